"""The replay against real HTTP servers on loopback: what is sent, what is counted, when outcomes are posted."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
from aiohttp import web

from services.data.contract import load_contract
from services.home import Home, Ports
from services.rehearsal.replay import (
    Replay,
    ReplayPlan,
    ReplaySummary,
    progress_file,
    read_progress,
    replay_command,
    stop_file,
)
from services.rehearsal.replay_rows import ReplayError, ReplayRow, rows_of, serving_fields

REPOSITORY = Path(__file__).parents[3]
CONTRACT = REPOSITORY / "policies" / "telemarketing" / "contract.yaml"


@dataclass
class Town:
    """A decision service and an outcome sink that remember what reached them."""

    url: str = ""
    asked: list[tuple[float, str, dict[str, object]]] = field(default_factory=list)
    posts: list[tuple[float, list[dict[str, object]], float]] = field(default_factory=list)
    outcome_status: Callable[[], int] = lambda: 202

    @property
    def outcomes(self) -> list[dict[str, object]]:
        return [outcome for _, outcomes, _ in self.posts for outcome in outcomes]

    async def decide(self, request: web.Request) -> web.StreamResponse:
        row = await request.json()
        self.asked.append((time.time(), request.headers["x-unit-id"], row))
        behaviour = row.get("behaviour", "call")
        if behaviour == "error":
            return web.json_response({"error": "broken"}, status=503)
        if behaviour == "refuse":
            return web.json_response({"error": "no", "field": "x"}, status=400)
        if behaviour == "hang":
            await asyncio.sleep(2)
        if behaviour == "nonsense":
            return web.json_response({"score": None})
        if behaviour == "drop":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(
            {"decision_id": f"d-{row['x']}", "action": behaviour, "release": f"r{row['x'] % 2}", "score": 0.5}
        )

    async def take_outcomes(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer secret"
        body = await request.json()
        status = self.outcome_status()
        if status < 300:
            self.posts.append((time.time(), body["outcomes"], body["watermark"]))
        return web.json_response({}, status=status)


@asynccontextmanager
async def a_town(town: Town, *ports: int) -> AsyncIterator[Town]:
    app = web.Application()
    app.router.add_post("/decide", town.decide)
    app.router.add_post("/outcomes", town.take_outcomes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        for port in ports or (0,):
            await web.TCPSite(runner, "127.0.0.1", port).start()
        town.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield town
    finally:
        await runner.cleanup()


def rows(count: int, **behaviour: int) -> list[ReplayRow]:
    """`count` rows; `behaviour` says which every how many-th row shows what."""

    def of(index: int) -> str:
        return next((name for name, every in behaviour.items() if index % every == 0), "call")

    return [
        ReplayRow(f"u{index}", {"x": index, "behaviour": of(index)}, "subscribed" if index % 3 else "no")
        for index in range(count)
    ]


async def replayed(town: Town, sent: list[ReplayRow], **plan: float) -> ReplaySummary:
    async with a_town(town):
        return await a_replay(town, sent, **plan).run()


def a_replay(
    town: Town,
    sent: list[ReplayRow],
    *,
    progress: Path | None = None,
    stops: Path | None = None,
    **plan: float,
) -> Replay:
    given: dict[str, float] = {"rate_per_s": 400, "outcome_delay_s": 0.3, "timeout_s": 0.8, "drain_s": 10.0}
    full = ReplayPlan(
        f"{town.url}/decide",
        f"{town.url}/outcomes",
        frozenset({"call"}),
        **(given | plan),  # type: ignore[arg-type]
    )
    return Replay(sent, full, read_token=lambda: "secret", progress=progress, stop_file=stops)


def test_each_row_is_sent_once_in_order_at_the_rate() -> None:
    """400 rows at 200 a second: every unit once, in order, the body as given, the rate within 5 %."""
    town = Town()
    summary = asyncio.run(replayed(town, rows(400), rate_per_s=200))
    arrived_as = [int(unit.removeprefix("u")) for _, unit, _ in town.asked]
    assert sorted(arrived_as) == list(range(400))
    # Sent in order over many connections: neighbours may overtake each other on the way, no more.
    assert max(abs(place - index) for place, index in enumerate(arrived_as)) <= 10
    bodies = {unit: body for _, unit, body in town.asked}
    assert bodies["u7"] == {"x": 7, "behaviour": "call"}
    assert (summary.sent, summary.answered, summary.failed, summary.rejected) == (400, 400, 0, 0)
    assert summary.by_release == {"r0": 200, "r1": 200}
    assert summary.rate_per_s == pytest.approx(200, rel=0.05)
    arrived = town.asked[-1][0] - town.asked[0][0]
    assert 399 / arrived == pytest.approx(200, rel=0.05)
    assert summary.p50_ms is not None
    assert summary.p99_ms is not None
    assert 0 < summary.p50_ms <= summary.p99_ms < 800
    assert summary.ended_by == "rows"


def test_rows_leave_exactly_in_order() -> None:
    """One request in flight at a time, so that none can overtake another on the way: the order is the rows' own."""
    town = Town()
    asyncio.run(replayed(town, rows(120), rate_per_s=200, concurrency=1))
    assert [unit for _, unit, _ in town.asked] == [f"u{index}" for index in range(120)]


def test_failed_and_rejected_requests_are_counted_apart() -> None:
    """A 503, a broken connection, a timeout and an answer that is no decision are failed user requests; a
    400 is not, and says which field.
    """
    town = Town()
    sent = rows(120, error=20, refuse=15, drop=17, nonsense=19, hang=23)
    shown = [str(row.fields["behaviour"]) for row in sent]
    summary = asyncio.run(replayed(town, sent))
    bad = {name: shown.count(name) for name in ("error", "drop", "nonsense", "hang")}
    assert min(bad.values()) >= 4
    assert summary.failed == sum(bad.values())
    assert summary.rejected == shown.count("refuse")
    assert summary.errors["503"] == bad["error"]
    assert summary.errors["timeout"] == bad["hang"]
    assert summary.errors["not a decision"] == bad["nonsense"]
    assert summary.answered == shown.count("call")
    assert any(text.startswith("400") and '"field"' in text for text in summary.errors)
    assert sum(summary.errors.values()) == summary.failed + summary.rejected


def test_outcomes_come_for_called_rows_only_and_not_before_the_delay() -> None:
    """Rows left alone reveal nothing; a called row's outcome arrives once, at least the delay after its
    request.
    """
    town = Town()
    sent = rows(300, leave=4)
    summary = asyncio.run(replayed(town, sent, outcome_delay_s=0.6))
    expected = {f"d-{row.fields['x']}": row.outcome for row in sent if row.fields["behaviour"] == "call"}
    assert {str(o["decision_id"]): o["outcome"] for o in town.outcomes} == expected
    assert len(town.outcomes) == len(expected) == summary.outcomes_posted
    asked = {f"d-{row['x']}": at for at, _, row in town.asked}
    waits = [at - asked[str(o["decision_id"])] for at, outcomes, _ in town.posts for o in outcomes]
    assert min(waits) >= 0.6 - 0.05
    assert max(waits) <= 0.6 + 0.5 + 0.4


def test_the_watermark_never_passes_an_outcome_that_is_still_to_come() -> None:
    """Whatever is posted later is later than every watermark before it; watermarks never fall; the last one
    covers all.
    """
    town = Town()
    asyncio.run(replayed(town, rows(300, hang=90), outcome_delay_s=0.5, timeout_s=3))
    marks = [mark for _, _, mark in town.posts]
    assert marks == sorted(marks)
    for index, (_, _, mark) in enumerate(town.posts):
        later = [outcome["at"] for _, outcomes, _ in town.posts[index + 1 :] for outcome in outcomes]
        assert all(float(str(at)) > mark for at in later)
    assert marks[-1] >= max(float(str(outcome["at"])) for outcome in town.outcomes)


def test_outcomes_survive_an_absent_control_service() -> None:
    """While the sink answers 503 for 1.2 s nothing is lost, nothing is posted twice, and the retries are
    said.
    """
    town = Town()
    back_at = time.time() + 1.6
    town.outcome_status = lambda: 202 if time.time() > back_at else 503
    summary = asyncio.run(replayed(town, rows(200)))
    assert town.posts[0][0] >= back_at
    assert sorted(str(o["decision_id"]) for o in town.outcomes) == sorted(f"d-{i}" for i in range(200))
    assert summary.outcome_retries >= 1
    assert summary.outcomes_waiting == 0
    assert summary.failed == 0


def test_the_stop_file_ends_it_and_due_outcomes_are_still_posted(tmp_path: Path) -> None:
    """A stop file ends the sending within a second; every answered row's outcome is posted all the same."""
    town, stops, progress = Town(), tmp_path / "stop", tmp_path / "progress.json"

    async def scenario() -> ReplaySummary:
        async with a_town(town):
            replay = a_replay(town, rows(4000), progress=progress, stops=stops, rate_per_s=200)
            running = asyncio.create_task(replay.run())
            await asyncio.sleep(1.3)
            seen = read_progress(progress)
            assert seen is not None
            assert seen.state == "sending"
            assert 150 < seen.sent < 400
            stops.touch()
            return await running

    summary = asyncio.run(scenario())
    assert summary.ended_by == "stop file"
    assert 200 < summary.sent < 500
    assert summary.outcomes_posted == summary.answered == summary.sent == len(town.outcomes)
    assert read_progress(progress) == summary


def test_rows_carry_only_what_the_contract_lets_a_caller_send() -> None:
    """The label, the entity key and what is known only after the call never leave; an unknown label is
    refused.
    """
    contract = load_contract(CONTRACT.read_text(encoding="utf-8"), str(CONTRACT))
    names = serving_fields(contract)
    assert "duration" not in names
    assert contract.label not in names
    columns: dict[str, list[object]] = {name: [1] for name in names}
    columns |= {contract.entity_key: ["c1"], contract.label: [next(iter(contract.label_outcomes))]}
    [row] = rows_of(columns | {"duration": [99], "stray": [1]}, contract)
    assert set(row.fields) == set(names)
    assert row.outcome == next(iter(contract.label_outcomes.values()))
    with pytest.raises(ReplayError, match="'perhaps' is not an outcome"):
        rows_of(columns | {contract.label: ["perhaps"]}, contract)
    with pytest.raises(ReplayError, match="lack balance"):
        rows_of({name: values for name, values in columns.items() if name != "balance"}, contract)


def test_the_process_ends_cleanly_on_a_signal(tmp_path: Path, free_base: Callable[[int], int]) -> None:
    """Started by its command line, SIGTERM ends it: exit 0, a summary on standard output, outcomes drained."""
    home = Home(tmp_path, Ports(free_base(40)))
    home.token_file.write_text("secret\n")
    stop_file(home).touch()  # left over from an earlier run: not an order for this one
    contract = load_contract(CONTRACT.read_text(encoding="utf-8"), str(CONTRACT))
    label = next(iter(contract.label_outcomes))
    count = 3000
    frame: dict[str, list[object]] = {name: [1] * count for name in serving_fields(contract)}
    frame |= {contract.entity_key: [f"c{i}" for i in range(count)], contract.label: [label] * count}
    pl.DataFrame(frame).write_parquet(tmp_path / "rows.parquet")
    argv = replay_command(
        home, rows=tmp_path / "rows.parquet", contract=CONTRACT, observed_actions=("call",), rate_per_s=100
    )
    argv = (sys.executable, *argv[1:], "--outcome-delay-s", "0.4")

    class Telemarketers(Town):
        async def decide(self, request: web.Request) -> web.StreamResponse:
            unit = request.headers["x-unit-id"]
            self.asked.append((time.time(), unit, await request.json()))
            return web.json_response({"decision_id": unit, "action": "call", "release": "r", "score": 0.5})

    town = Telemarketers()

    async def scenario() -> tuple[int, str]:
        async with a_town(town, home.ports.users, home.ports.control):
            process = await asyncio.create_subprocess_exec(
                *argv, cwd=REPOSITORY, stdout=subprocess.PIPE, start_new_session=True
            )
            while len(town.asked) < 60:
                assert process.returncode is None
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.wait_for(process.communicate(), timeout=20)
            assert process.returncode is not None
            return process.returncode, out.decode()

    status, out = asyncio.run(asyncio.wait_for(scenario(), timeout=60))
    assert status == 0
    summary = ReplaySummary(**json.loads(out))
    assert summary.ended_by == "SIGTERM"
    assert summary.sent == len(town.asked) == summary.outcomes_posted == len(town.outcomes)
    assert summary.outcomes_waiting == 0
    assert read_progress(progress_file(home)) == summary

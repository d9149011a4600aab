"""Replays recorded rows as live requests: in order, each once, at a steady rate, outcomes posted when they
come due.

A rehearsal tool: it stands for the users in front of Envoy and for the system that learns outcomes later.
The rate is an open loop (a slow service does not slow the users down) up to `concurrency` requests in
flight; a request that leaves more than `LATE_S` after its time is counted as late. Rows are never sent a
second time: when they run out, the gates have no data. Runs as a process of its own (`python -m
services.rehearsal.replay`), so that it outlives the rollout loop.

A failed user request is what a user would call one: status 500 or more, a broken connection, a timeout,
or an answer that is not a decision. A 4xx is counted apart (`rejected`): the row does not satisfy the
contract. Must never import: prefect, bentoml, torch, polars at module level.
"""

import argparse
import array
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from services.home import LOOPBACK, Home, Ports
from services.rehearsal.outcome_feed import OutcomeFeed
from services.rehearsal.replay_rows import ReplayRow, rows_of

LATE_S = 0.05


@dataclass(frozen=True)
class ReplayPlan:
    """How to send. URLs are whole (`…/decide`, `…/outcomes`); `observed_actions` are those whose outcome is
    seen.
    """

    decide_url: str
    outcomes_url: str
    observed_actions: frozenset[str]
    rate_per_s: float = 200.0
    outcome_delay_s: float = 4.0
    concurrency: int = 256
    timeout_s: float = 5.0
    drain_s: float = 60.0
    linger_s: float = 0.0


@dataclass(frozen=True)
class ReplaySummary:
    """What was sent and what came back; also the progress file's content, once a second."""

    rows: int
    sent: int
    answered: int
    failed: int
    rejected: int
    late: int
    by_release: Mapping[str, int]
    by_action: Mapping[str, int]
    errors: Mapping[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    outcomes_posted: int
    outcomes_waiting: int
    outcome_retries: int
    outcome_error: str
    watermark: float | None
    rate_per_s: float
    started_at: float
    at: float
    state: str = "sending"
    ended_by: str = ""


@dataclass
class _Tally:
    sent: int = 0
    answered: int = 0
    failed: int = 0
    rejected: int = 0
    late: int = 0
    by_release: Counter[str] = field(default_factory=Counter)
    by_action: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies_ms: "array.array[float]" = field(default_factory=lambda: array.array("d"))


class Replay:
    """One replay of `rows`. Call `run` once."""

    def __init__(
        self,
        rows: Sequence[ReplayRow],
        plan: ReplayPlan,
        *,
        read_token: Callable[[], str],
        progress: Path | None = None,
        stop_file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows, self._plan, self._read_token = rows, plan, read_token
        self._progress, self._stop_file, self._clock = progress, stop_file, clock
        self._tally = _Tally()
        self._ended_by = ""
        self._stop = asyncio.Event()
        self._sending_s = 0.0

    def stop(self, why: str) -> None:
        """Send no more rows; what is in flight is awaited and due outcomes are still posted."""
        if not self._stop.is_set():
            self._ended_by = why
            self._stop.set()

    async def run(self) -> ReplaySummary:
        """Send all rows (or until stopped), await the answers, post every outcome, and say what happened."""
        self._started_at = self._clock()
        connector = aiohttp.TCPConnector(limit=self._plan.concurrency + 4)
        async with aiohttp.ClientSession(connector=connector) as session:
            feed = OutcomeFeed(
                session,
                self._plan.outcomes_url,
                read_token=self._read_token,
                clock=self._clock,
                delay_s=self._plan.outcome_delay_s,
            )
            feeding_over = asyncio.Event()
            watching = asyncio.create_task(self._watch(feed))
            feeding = asyncio.create_task(feed.run(stop=feeding_over))
            try:
                await self._send_all(session, feed)
                await self._drain(feed)
            finally:
                feeding_over.set()
                await feeding
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            await feed.post_due()
            summary = self._summary(feed, state="ended")
            self._write(summary)
            return summary

    async def _send_all(self, session: aiohttp.ClientSession, feed: OutcomeFeed) -> None:
        slots = asyncio.Semaphore(self._plan.concurrency)
        requests: set[asyncio.Task[None]] = set()
        start = time.monotonic()
        for index, row in enumerate(self._rows):
            due = start + index / self._plan.rate_per_s
            ahead = due - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            while not feed.has_room and not self._stop.is_set():
                await asyncio.sleep(0.05)
            if self._stop.is_set():
                break
            await slots.acquire()
            self._tally.late += time.monotonic() - due > LATE_S
            self._tally.sent += 1
            feed.sent(index, self._clock())
            request = asyncio.create_task(self._send(session, feed, index, row))
            requests.add(request)
            request.add_done_callback(requests.discard)
            request.add_done_callback(lambda _: slots.release())
            self._sending_s = time.monotonic() - start
        else:
            self._ended_by = self._ended_by or "rows"
        if requests:
            await asyncio.wait(requests)

    async def _send(
        self, session: aiohttp.ClientSession, feed: OutcomeFeed, index: int, row: ReplayRow
    ) -> None:
        tally, decision_id, outcome = self._tally, None, None
        began = time.perf_counter()
        try:
            async with session.post(
                self._plan.decide_url,
                data=orjson.dumps(row.fields),
                headers={"content-type": "application/json", "x-unit-id": row.unit},
                timeout=aiohttp.ClientTimeout(total=self._plan.timeout_s),
            ) as answer:
                body = await answer.read()
            tally.latencies_ms.append(1000 * (time.perf_counter() - began))
            if answer.status >= 500:
                self._fail(str(answer.status))
            elif answer.status >= 400:
                tally.rejected += 1
                tally.errors[f"{answer.status} {body[:160].decode(errors='replace')}"] += 1
            else:
                decision = orjson.loads(body)
                decision_id, action, release = (
                    str(decision["decision_id"]),
                    str(decision["action"]),
                    str(decision["release"]),
                )
                tally.answered += 1
                tally.by_release[release] += 1
                tally.by_action[action] += 1
                outcome = row.outcome if action in self._plan.observed_actions else None
        except TimeoutError:
            self._fail("timeout")
        except (aiohttp.ClientError, OSError) as error:
            self._fail(type(error).__name__)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._fail("not a decision")
        finally:
            feed.settled(index, decision_id=decision_id, outcome=outcome)

    def _fail(self, why: str) -> None:
        self._tally.failed += 1
        self._tally.errors[why] += 1

    async def _drain(self, feed: OutcomeFeed) -> None:
        """Wait for outcomes still to come due and be accepted; then keep the watermark moving for
        `linger_s`.
        """
        limit = time.monotonic() + self._plan.outcome_delay_s + self._plan.drain_s
        while feed.waiting and time.monotonic() < limit:
            await asyncio.sleep(0.05)
        limit = time.monotonic() + self._plan.linger_s
        while time.monotonic() < limit and not self._stop.is_set():
            await asyncio.sleep(0.05)

    async def _watch(self, feed: OutcomeFeed) -> None:
        """Progress once a second; the stop file five times a second."""
        for tick in range(sys.maxsize):
            if self._stop_file is not None and self._stop_file.exists():
                self.stop("stop file")
            if tick % 5 == 0:
                over = self._stop.is_set() or self._tally.sent == len(self._rows)
                self._write(self._summary(feed, state="draining" if over else "sending"))
            await asyncio.sleep(0.2)

    def _summary(self, feed: OutcomeFeed, *, state: str) -> ReplaySummary:
        tally = self._tally
        times = np.asarray(tally.latencies_ms, dtype=np.float64)
        quantiles: list[float | None] = [None, None, None]
        if times.size:
            quantiles = [round(float(value), 3) for value in np.percentile(times, (50, 95, 99))]
        return ReplaySummary(
            rows=len(self._rows),
            sent=tally.sent,
            answered=tally.answered,
            failed=tally.failed,
            rejected=tally.rejected,
            late=tally.late,
            by_release=dict(tally.by_release),
            by_action=dict(tally.by_action),
            errors=dict(tally.errors.most_common(10)),
            p50_ms=quantiles[0],
            p95_ms=quantiles[1],
            p99_ms=quantiles[2],
            outcomes_posted=feed.posted,
            outcomes_waiting=feed.waiting,
            outcome_retries=feed.retries,
            outcome_error=feed.last_error,
            watermark=feed.watermark,
            rate_per_s=round((tally.sent - 1) / self._sending_s, 2) if self._sending_s > 0 else 0.0,
            started_at=self._started_at,
            at=self._clock(),
            state=state,
            ended_by=self._ended_by,
        )

    def _write(self, summary: ReplaySummary) -> None:
        if self._progress is None:
            return
        partial = self._progress.with_name(f".{self._progress.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(summary)), encoding="utf-8")
        partial.replace(self._progress)


def read_progress(path: Path) -> ReplaySummary | None:
    """The progress file's content, or None before its first second."""
    try:
        return ReplaySummary(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def replay_command(
    home: Home, *, rows: Path, contract: Path, observed_actions: Iterable[str], rate_per_s: float
) -> tuple[str, ...]:
    """Arguments that start a replay against `home` as a process of its own; progress is
    `progress_file(home)`.
    """
    argv = [sys.executable, "-m", "services.rehearsal.replay", "--home", str(home.root)]
    argv += ["--base-port", str(home.ports.base), "--rows", str(rows), "--contract", str(contract)]
    argv += ["--rate", f"{rate_per_s:g}"]
    for action in observed_actions:
        argv += ["--observed", action]
    return tuple(argv)


def progress_file(home: Home) -> Path:
    return home.root / "replay.json"


def stop_file(home: Home) -> Path:
    return home.root / "replay.stop"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the process; prints the summary as JSON. Exit 0 unless outcomes could not be posted."""
    parser = argparse.ArgumentParser(prog="python -m services.rehearsal.replay", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base-port", type=int, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="Parquet, in time order; sent once each")
    parser.add_argument("--contract", type=Path, required=True, help="contract.yaml of the decision service")
    parser.add_argument("--observed", action="append", required=True, help="action whose outcome is seen")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--outcome-delay-s", type=float, default=4.0)
    parser.add_argument("--skip", type=int, default=0, help="rows to leave out at the start")
    parser.add_argument("--limit", type=int, default=None, help="rows to send at most")
    parser.add_argument("--linger-s", type=float, default=10.0, help="keep the watermark moving afterwards")
    given = parser.parse_args(argv)

    import polars as pl

    from services.data.contract import load_contract

    home = Home(given.home.resolve(), Ports(given.base_port))
    contract = load_contract(given.contract.read_text(encoding="utf-8"), str(given.contract))
    frame = pl.read_parquet(given.rows).slice(given.skip, given.limit)
    rows = rows_of({name: frame[name].to_list() for name in frame.columns}, contract)
    plan = ReplayPlan(
        decide_url=f"http://{LOOPBACK}:{home.ports.users}/decide",
        outcomes_url=f"http://{LOOPBACK}:{home.ports.control}/outcomes",
        observed_actions=frozenset(given.observed),
        rate_per_s=given.rate,
        outcome_delay_s=given.outcome_delay_s,
        linger_s=given.linger_s,
    )
    stop_file(home).unlink(missing_ok=True)
    summary = asyncio.run(_run(rows, plan, home))
    print(json.dumps(asdict(summary)))
    return 0 if summary.outcomes_waiting == 0 else 1


async def _run(rows: Sequence[ReplayRow], plan: ReplayPlan, home: Home) -> ReplaySummary:
    replay = Replay(
        rows,
        plan,
        read_token=lambda: home.token_file.read_text(encoding="utf-8").strip(),
        progress=progress_file(home),
        stop_file=stop_file(home),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, replay.stop, signal.Signals(number).name)
    return await replay.run()


if __name__ == "__main__":
    sys.exit(main())

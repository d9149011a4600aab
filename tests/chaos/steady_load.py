"""Users at a steady rate, in a process of their own: each request written down with its answer, each failure counted.

An open loop: a service that is slow or gone does not slow the users down. Rows are sent over and over, each time as a
new unit. A failed user request is anything but a 200 with a decision: a 4xx too, for every row keeps the contract, and
an action that the policy does not have. Nothing is retried here.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

import aiohttp
import orjson

TIMEOUT_S = 12.0


@dataclass(frozen=True)
class Answered:
    """One user request: when it was sent (epoch s), status (0: no answer), how long it took, who decided; `why` it
    failed, empty when it did not; the decision's id, empty without one, and whether the answer says it is logged.
    """

    at: float
    status: int
    took_s: float
    release: str
    why: str
    decision_id: str = ""
    logged: bool = True


class SteadyLoad:
    """`with SteadyLoad(...) as load:` sends until the end of the block; the answers can be read while it sends."""

    def __init__(
        self,
        url: str,
        rows: Path,
        *,
        actions: Sequence[str],
        rate_per_s: float,
        folder: Path,
        units: str = "u",
    ) -> None:
        self.rate_per_s = rate_per_s
        self._out = folder / f"load-{time.monotonic_ns()}.jsonl"
        self._argv = [sys.executable, str(Path(__file__)), "--url", url, "--rows", str(rows)]
        self._argv += ["--rate", f"{rate_per_s:g}", "--out", str(self._out), "--units", units]
        self._argv += ["--actions", *actions]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SteadyLoad":
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20.0
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise RuntimeError("the users could not begin: " + " ".join(self._argv))
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(TIMEOUT_S + 5.0)

    def answers(self, *, since: float = 0.0, until: float = float("inf")) -> list[Answered]:
        """The requests sent in [since, until), by time, as far as they have ended."""
        if not self._out.is_file():
            return []
        text = self._out.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        found = [Answered(**orjson.loads(line)) for line in whole.splitlines()]
        return sorted((one for one in found if since <= one.at < until), key=lambda one: one.at)

    def failed(self, *, since: float = 0.0, until: float = float("inf")) -> list[Answered]:
        """The failed ones of `answers`."""
        return [one for one in self.answers(since=since, until=until) if one.why]

    def gap_s(self, *, since: float) -> float:
        """From the first to the end of the last failed request since then, s; 0 without any."""
        failed = self.failed(since=since)
        return max(one.at + one.took_s for one in failed) - failed[0].at if failed else 0.0


async def send(
    url: str,
    bodies: Sequence[bytes],
    *,
    actions: frozenset[str],
    rate_per_s: float,
    units: str,
    out: TextIO,
    stop: asyncio.Event,
) -> None:
    """Send until `stop` is set, then await what is in flight."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        tasks: set[asyncio.Task[None]] = set()
        start, number = time.monotonic(), 0
        while not stop.is_set():
            await asyncio.sleep(max(0.0, start + number / rate_per_s - time.monotonic()))
            body, unit = bodies[number % len(bodies)], f"{units}{number}"
            task = asyncio.create_task(_one(session, url, body, unit, actions, out))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if tasks:
            await asyncio.wait(tasks)


async def _one(
    session: aiohttp.ClientSession, url: str, body: bytes, unit: str, actions: frozenset[str], out: TextIO
) -> None:
    at, began = time.time(), time.perf_counter()
    status, release, why, more = 0, "", "", {}
    headers = {"content-type": "application/json", "x-unit-id": unit}
    try:
        async with session.post(url, data=body, headers=headers) as response:
            status, text = response.status, await response.read()
        release, why = judge(status, text, actions)
        if not why:
            answer = orjson.loads(text)
            more = {"decision_id": answer["decision_id"], "logged": answer.get("logged", True)}
    except TimeoutError:
        why = "timeout"
    except (aiohttp.ClientError, OSError) as error:
        why = type(error).__name__
    took_s = time.perf_counter() - began
    record = {"at": at, "status": status, "took_s": round(took_s, 4), "release": release, "why": why, **more}
    out.write(json.dumps(record) + "\n")
    out.flush()


def judge(status: int, text: bytes, actions: frozenset[str]) -> tuple[str, str]:
    """Who decided, and why the user has no decision (empty: there is one)."""
    if status != 200:
        return "", f"{status} {text[:120].decode(errors='replace')}"
    try:
        decision = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "", "not JSON"
    if not isinstance(decision, Mapping) or decision.get("action") not in actions:
        return "", f"not a decision: {text[:120].decode(errors='replace')}"
    return str(decision.get("release", "")), ""


def main() -> int:
    """Send until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rows", type=Path, required=True, help="one body a line, JSON")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--units", default="u", help="what every unit id begins with")
    parser.add_argument("--actions", nargs="+", required=True, help="the actions that a decision may have")
    given = parser.parse_args()
    bodies = given.rows.read_bytes().splitlines()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with given.out.open("w", encoding="utf-8") as out:
            await send(
                given.url,
                bodies,
                actions=frozenset(given.actions),
                rate_per_s=given.rate,
                units=given.units,
                out=out,
                stop=stop,
            )

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())

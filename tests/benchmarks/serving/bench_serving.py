"""`make bench-serving`: /decide alone and through Envoy against the usual ways to serve the same network.

Every contestant runs at the same time, idle but for its turn; every round gives each one a turn, in another order, so
that what else the machine does meets all alike. Ratios are taken within a round, against the release through Envoy,
and their median is shown: on a shared machine only they mean anything. CPU is that of all server processes (proxy
and release), without the client. What issue 5 asks for is measured after that, in pairs of short bursts (paired.py).
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import uvloop
from contestants import (
    ALONE,
    BENTOML,
    BENTOML_TUNED,
    FASTAPI,
    SILENT,
    THROUGH_ENVOY,
    WITH_SHADOW,
    Arena,
    Contestant,
    arena,
)
from load import Burst, Load, request
from made_up_release import some_rows
from paired import Ratio, measure
from rich.console import Console
from rich.table import Table

from services.home import LOOPBACK, Home, Ports

CONNECTIONS = 8
STEADY_RATE = 100.0
BATCH_ROWS = 1000
# The shorter, the more alike are the two of a pair: at 0.3 s the interval is half as wide again.
BURST_S = 0.1
# Three syncs of the log: of a shorter burst, much of the last one falls into the other's.
SYNCED_BURST_S = 0.3
BATCHES_S = 0.3
TWINS = 3
console = Console(width=None if Console().is_terminal else 150)


@dataclass(frozen=True)
class Turn:
    """One contestant's turn in one round: busy connections, then a steady rate; batches where it takes them."""

    name: str
    busy: Burst
    cpu_us: float
    steady: Burst
    batch_rows_per_s: float | None
    batch_cpu_us: float | None


def take_turn(
    contestant: Contestant, singles: Sequence[bytes], batches: Sequence[bytes], seconds: float
) -> Turn:
    """Load one contestant for `seconds` twice, and with batches for half of that."""
    before = contestant.cpu_s()
    busy = uvloop.run(Load(contestant.port, singles).closed(connections=CONNECTIONS, seconds=seconds))
    cpu_us = (contestant.cpu_s() - before) / max(1, busy.answered) * 1e6
    steady = uvloop.run(Load(contestant.port, singles).steady(rate=STEADY_RATE, seconds=seconds))
    rows_per_s = row_cpu_us = None
    if batches:
        before = contestant.cpu_s()
        many = uvloop.run(Load(contestant.port, batches).closed(connections=CONNECTIONS, seconds=seconds / 2))
        rows_per_s = many.rate * BATCH_ROWS
        row_cpu_us = (contestant.cpu_s() - before) / max(1, many.answered * BATCH_ROWS) * 1e6
    return Turn(contestant.name, busy, cpu_us, steady, rows_per_s, row_cpu_us)


def run_rounds(
    found: Arena, names: Sequence[str], *, rounds: int, seconds: float, seed: int
) -> list[list[Turn]]:
    """All turns, a list a round; a contestant meets its first requests before the first round."""
    bodies = [orjson.dumps(row) for row in some_rows(512, seed=3)]
    many = [orjson.dumps({"rows": some_rows(BATCH_ROWS, seed=seed)}) for seed in range(4, 8)]
    order = random.Random(seed)  # noqa: S311 - which contestant comes when
    result = []
    for number in range(-1, rounds):
        turns = []
        for name in order.sample(list(names), len(names)):
            contestant = found.contestants[name]
            if name == WITH_SHADOW:
                found.slots(shadow=True)
                time.sleep(1)
            port = contestant.port
            singles = [request(body, port=port, unit=f"c{at:06d}") for at, body in enumerate(bodies)]
            batches = (
                [request(body, port=port, unit="c0") for body in many]
                if name in (ALONE, SILENT, THROUGH_ENVOY)
                else []
            )
            turn = take_turn(contestant, singles, batches, seconds if number >= 0 else 0.5)
            if name == WITH_SHADOW:
                found.slots(shadow=False)
                time.sleep(1)
            turns.append(turn)
            console.print(
                f"round {number + 1} of {rounds}: {name}: {turn.busy.rate:.0f}/s, {turn.cpu_us:.0f} us",
                style="dim",
            )
        if number >= 0:
            result.append(turns)
    return result


def ratio(rounds: Sequence[Sequence[Turn]], name: str, base: str) -> float:
    """Median over the rounds of `name`'s answers per second to `base`'s."""
    found = []
    for turns in rounds:
        by_name = {turn.name: turn.busy.rate for turn in turns}
        if name in by_name and base in by_name:
            found.append(by_name[name] / by_name[base])
    return statistics.median(found) if found else float("nan")


def table(rounds: Sequence[Sequence[Turn]], names: Sequence[str]) -> Table:
    """Medians over the rounds, one row a contestant."""
    shown = Table("", "req/s", "to Envoy's", "p50 ms", "p99 ms", "CPU us/req", "p50 ms", "p99 ms", "failed")
    for name in names:
        turns = [turn for one in rounds for turn in one if turn.name == name]

        def middle(values: Sequence[float]) -> float:
            return statistics.median(values)

        shown.add_row(
            name,
            f"{middle([t.busy.rate for t in turns]):.0f}",
            f"{ratio(rounds, name, THROUGH_ENVOY):.2f}",
            f"{middle([t.busy.percentile_ms(50) for t in turns]):.1f}",
            f"{middle([t.busy.percentile_ms(99) for t in turns]):.1f}",
            f"{middle([t.cpu_us for t in turns]):.0f}",
            f"{middle([t.steady.percentile_ms(50) for t in turns]):.1f}",
            f"{middle([t.steady.percentile_ms(99) for t in turns]):.1f}",
            str(sum(t.busy.failed + t.steady.failed for t in turns)),
        )
    return shown


@dataclass(frozen=True)
class Target:
    """What issue 5 asks for: words, the ratio found, the least that it should be."""

    words: str
    found: Ratio
    least: float

    @property
    def verdict(self) -> str:
        """`holds` or `MISSED` where the whole interval says so."""
        if self.found.low >= self.least:
            return "holds"
        return "MISSED" if self.found.high < self.least else "not settled"


def targets(found: Arena, names: Sequence[str], *, pairs: int, seed: int) -> Iterator[Target]:
    """Every target of which both sides are among `names`, pair by pair (paired.py)."""
    order = random.Random(seed)  # noqa: S311 - which of a pair comes first

    def bursts(
        name: str, rows: int, *, callers: int = CONNECTIONS, seconds: float = BURST_S
    ) -> Callable[[], float]:
        """Rows a second of a burst, `rows` a request, at any of the processes of that name."""
        bodies = (
            [orjson.dumps(row) for row in some_rows(512, seed=3)]
            if rows == 1
            else [orjson.dumps({"rows": some_rows(rows, seed=seed)}) for seed in range(4, 8)]
        )
        contestant = found.contestants[name]
        loads = [
            (port, [request(body, port=port, unit=f"c{at:06d}") for at, body in enumerate(bodies)])
            for port in (contestant.port, *contestant.twins)
        ]

        def burst(port: int, asked: Sequence[bytes]) -> float:
            return rows * uvloop.run(Load(port, asked).closed(connections=callers, seconds=seconds)).rate

        for load in loads:  # nobody's first requests count
            burst(*load)
        return lambda: burst(*order.choice(loads))

    for words, first, second, least, count, seconds in (
        ("through Envoy to bare BentoML, direct", THROUGH_ENVOY, BENTOML, 0.8, pairs, BURST_S),
        ("through Envoy to bare BentoML tuned, direct", THROUGH_ENVOY, BENTOML_TUNED, 0.8, pairs, BURST_S),
        ("through Envoy to FastAPI by hand, direct", THROUGH_ENVOY, FASTAPI, 1.0, pairs, BURST_S),
        ("with the log to without", ALONE, SILENT, 0.9, pairs * 2, SYNCED_BURST_S),
    ):
        if first in names and second in names:
            one, other = bursts(first, 1, seconds=seconds), bursts(second, 1, seconds=seconds)
            yield Target(words, measure(one, other, pairs=count, order=order), least)
    for name in (ALONE, THROUGH_ENVOY):
        for callers in (1, CONNECTIONS) if name in names else ():
            batches = bursts(name, BATCH_ROWS, callers=callers, seconds=BATCHES_S)
            singles = bursts(name, 1, callers=callers)
            words = f"rows/s in batches of {BATCH_ROWS} to one by one, {callers} callers, {name}"
            yield Target(words, measure(batches, singles, pairs=pairs // 2, order=order), 20.0)


def as_json(rounds: Sequence[Sequence[Turn]]) -> list[dict[str, object]]:
    """Every turn as plain numbers."""
    return [
        {
            "round": number,
            "name": turn.name,
            "req_s": turn.busy.rate,
            "busy_p50_ms": turn.busy.percentile_ms(50),
            "busy_p99_ms": turn.busy.percentile_ms(99),
            "cpu_us": turn.cpu_us,
            "steady_p50_ms": turn.steady.percentile_ms(50),
            "steady_p99_ms": turn.steady.percentile_ms(99),
            "failed": turn.busy.failed + turn.steady.failed,
            "batch_rows_s": turn.batch_rows_per_s,
            "batch_cpu_us_row": turn.batch_cpu_us,
        }
        for number, turns in enumerate(rounds)
        for turn in turns
    ]


def free_ports(first: int) -> Iterator[int]:
    """Loopback ports that nobody listens on, from `first` on."""
    for port in range(first, 65000):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        yield port


def main(arguments: Sequence[str]) -> int:
    """Run, print, and end with 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="make bench-serving", description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each stretch of load")
    parser.add_argument(
        "--pairs", type=int, default=240, help="pairs of bursts for each ratio that is asked for"
    )
    parser.add_argument("--only", nargs="*", help="parts of names, e.g. --only Envoy FastAPI")
    parser.add_argument("--json", type=Path, help="also write every turn there")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    base = 20000 + (int(time.time()) * 61) % 10000  # below those that the kernel gives out
    with (
        tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder,
        arena(Home(Path(folder), Ports(base)), free_ports(base + 50)) as found,
    ):
        found.add_ours(twins=TWINS)
        found.add_peers()
        wanted = [part.lower() for part in options.only or [""]]
        names = [name for name in found.contestants if any(part in name.lower() for part in wanted)]
        for line in found.left_out:
            console.print(f"left out: {line}")
        rounds = run_rounds(found, names, rounds=options.rounds, seconds=options.seconds, seed=options.seed)
        reached = []
        for target in targets(found, names, pairs=options.pairs, seed=options.seed):
            reached.append(target)
            console.print(f"{target.verdict}: {target.words}: {target.found} (>= {target.least:g})")
    console.print(
        f"\n{CONNECTIONS} busy connections; on the right, {STEADY_RATE:g} requests/s at fixed times"
    )
    console.print(table(rounds, names))
    for turn_name in (ALONE, THROUGH_ENVOY):
        per_row = [t.batch_cpu_us for one in rounds for t in one if t.name == turn_name and t.batch_cpu_us]
        rows = [
            t.batch_rows_per_s for one in rounds for t in one if t.name == turn_name and t.batch_rows_per_s
        ]
        if rows:
            console.print(
                f"{turn_name}, batches of {BATCH_ROWS}: {statistics.median(rows):.0f} rows/s, "
                f"{statistics.median(per_row):.1f} us CPU a row"
            )
    if options.json:
        ratios = [asdict(target) for target in reached]
        options.json.write_text(json.dumps({"turns": as_json(rounds), "targets": ratios}, indent=1))
    return 1 if any(turn.busy.failed + turn.steady.failed for turns in rounds for turn in turns) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

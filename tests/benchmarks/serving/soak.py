"""`make bench-serving ARGS=soak`: as many requests as a busy hour brings, and the memory that they leave behind.

Single rows, batches, explained rows and rows that are refused, through Envoy at full speed. Memory is looked at after
a first stretch that fills caches and buffers, and at the end; ends with 1 if a process has grown by more than 5 % or
a request was not answered as it should.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil  # type: ignore[import-untyped]
import uvloop
from bench_serving import free_ports
from contestants import THROUGH_ENVOY, arena
from load import Load, request
from made_up_release import some_rows

from services.home import Home, Ports

MOST_GROWTH = 1.05
HOUR = 360_000  # requests: one hour at 100 a second
LOOKS = 6


def mixed(port: int) -> tuple[list[bytes], list[bytes]]:
    """Requests to be decided, and requests to be refused with 400."""
    rows = some_rows(400, seed=9)
    good = [orjson.dumps(row) for row in rows[:300]]
    good += [orjson.dumps({"rows": rows[at : at + 20]}) for at in range(0, 200, 20)]
    bad = [orjson.dumps({**row, "day": 99}) for row in rows[:20]] + [b"{", b"[]"]
    decided = [request(body, port=port, unit=f"c{at}") for at, body in enumerate(good)]
    decided += [one.replace(b"/decide ", b"/decide?explain=true ", 1) for one in decided[:10]]
    return decided, [request(body, port=port, unit="c0") for body in bad]


@dataclass(frozen=True)
class Look:
    """Memory of each process (bytes by pid) after so many answers."""

    answers: int
    rss: dict[int, int]


def soak(port: int, pids: Sequence[int], *, requests: int, warm: int) -> tuple[int, int, list[Look]]:
    """Sends `warm` and then `requests` requests; answers, wrong ones, memory after `warm`, on the way, at the end."""
    decided, refused = mixed(port)
    answers = wrong = 0
    looks: list[Look] = []
    while answers < warm + requests:
        if answers >= warm + len(looks) * requests / LOOKS:
            looks.append(_look(answers, pids))
        seconds = 1.0 if looks else 0.5
        good = uvloop.run(Load(port, decided).closed(connections=8, seconds=seconds))
        bad = uvloop.run(Load(port, refused, expected=400).closed(connections=2, seconds=seconds / 10))
        answers += good.answered + bad.answered
        wrong += good.failed + bad.failed
    return answers, wrong, [*looks, _look(answers, pids)]


def growth(looks: Sequence[Look], pid: int) -> float:
    """The process's memory at the end to that at the first look; 1.0 is none."""
    return looks[-1].rss[pid] / looks[0].rss[pid]


def _look(answers: int, pids: Sequence[int]) -> Look:
    return Look(answers, {pid: psutil.Process(pid).memory_info().rss for pid in pids})


def main(arguments: Sequence[str]) -> int:
    """Run, print, and say whether memory stood still."""
    parser = argparse.ArgumentParser(
        prog="make bench-serving ARGS=soak", description=__doc__.partition("\n")[0]
    )  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=HOUR)
    parser.add_argument("--warm", type=int, default=20_000)
    options = parser.parse_args(arguments)
    base = 20000 + (int(time.time()) * 61) % 10000  # below those that the kernel gives out
    with (
        tempfile.TemporaryDirectory(prefix="trimtab-soak-") as folder,
        arena(Home(Path(folder), Ports(base)), free_ports(base + 50)) as found,
    ):
        found.add_ours()
        envoy = found.contestants[THROUGH_ENVOY]
        began = time.monotonic()
        answers, wrong, looks = soak(envoy.port, envoy.pids, requests=options.requests, warm=options.warm)
        names = {pid: psutil.Process(pid).name() for pid in envoy.pids}
    print(f"{answers} answers in {time.monotonic() - began:.0f} s, {wrong} of them wrong")
    has_grown = False
    for pid, name in names.items():
        factor = growth(looks, pid)
        has_grown |= factor > MOST_GROWTH
        course = ", ".join(f"{look.rss[pid] / 1e6:.1f} MB after {look.answers}" for look in looks)
        print(f"{name}: {factor - 1:+.1%} since the first {looks[0].answers} answers: {course}")
    return 1 if wrong or has_grown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

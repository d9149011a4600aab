"""`make bench-gates`: our gates against the usual ones, on gates.md's canary and on its utility. One core, minutes.

Prints, for every method, the share rolled back and the median time at each rate, beside gates.md's number where it
has one; then our times as ratios of the fastest method that holds its error rate. Not a test: CI does not run it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from canary_traffic import BASE, CONDITIONS, POLLS, Score, draw, score
from numpy.typing import NDArray
from our_gates import ALPHA, alone, guarded, per_poll, share, share_evenly
from payoff_gates import LOSSES, lives
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from usual_gates import group_sequential, mann_whitney, success_rate, threshold, z_every_poll

from policies.sequential.proportions import BoundTest, TwoByTwoTest
from policies.sequential.spending import boundaries, obrien_fleming, pocock
from policies.what_if.paths import CountRuns

Method = Callable[[CountRuns], NDArray[np.bool_]]
BATCH = 500
console = Console(width=None if Console().is_terminal else 190)


def spending(looks: int, spent: Callable[[float, float], float]) -> Method:
    """Evenly spaced looks up to the horizon."""
    times = [look / looks for look in range(1, looks + 1)]
    bounds = np.array(boundaries(times, alpha=ALPHA, spent=spent))
    return lambda counts: group_sequential(counts, bounds)


# name, ours?, method, gates.md's own words on A/A, 1.5 %, 2 %, 5 %, A/A with a shared incident (% / median s)
METHODS: tuple[tuple[str, bool, Method, str], ...] = (
    ("F2 behind the guard (the gate)", True, guarded(share), ""),
    ("F3 behind the guard (the gate)", True, guarded(TwoByTwoTest), ""),
    ("F2 alone", True, alone(share), ""),
    ("F2 alone, even mixture", True, alone(share_evenly), "2.1; 320; 90; 20; 2.3"),
    ("F3 alone", True, alone(TwoByTwoTest), "1.9; 340; 100; 20; 1.9"),
    ("F1 per poll", True, per_poll, "1.6; 400; 190; 190; 1.8"),
    ("F6, bound 1 %, guarded", True, guarded(lambda: BoundTest(BASE, "above")), ""),
    (
        "threshold > 2 % over 60 s, 3 failures",
        False,
        lambda counts: threshold(counts, above=0.02, window=6, failures=3),
        "31; 240; 80; 40; 100",
    ),
    (
        "success ≥ 99 % a minute, 5 failures",
        False,
        lambda counts: success_rate(counts, at_least=0.99, every=6, failures=5),
        "100; 360; 300; 300; 100",
    ),
    (
        "Mann–Whitney each minute",
        False,
        lambda counts: mann_whitney(counts, every=6, growing=False),
        "",
    ),
    (
        "Mann–Whitney, growing window",
        False,
        lambda counts: mann_whitney(counts, every=6, growing=True),
        "0; 5 % found; 600; 300; 0",
    ),
    (
        "z at every poll",
        False,
        lambda counts: z_every_poll(counts, alpha=ALPHA),
        "37; 60; 30; 10; 39",
    ),
    (
        "O'Brien–Fleming, 5 looks",
        False,
        spending(5, obrien_fleming),
        "",
    ),
    (
        "Pocock, 5 looks",
        False,
        spending(5, pocock),
        "",
    ),
    (
        "Pocock, 30 looks",
        False,
        spending(30, pocock),
        "",
    ),
)
PEERS = {"1.5 %": 320.0, "2 %": 90.0, "5 %": 20.0}
"""The best of gates.md that holds its error rate: F2 at .05, median seconds."""
SAME_PEER = "F2 alone, even mixture"
"""The same method over this very traffic."""
UTILITY_SAYS = {
    "betting (F4)": ("1.6", "72 / 1160", "100 / 310", "100 / 130", "100 / 60"),
    "Welch z at every poll": ("25", "", "", "", ""),
}


@contextmanager
def _bar(what: str) -> Iterator[Callable[[float], None]]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda done: progress.update(task, completed=done)


def rates(runs: int, seed: int) -> dict[str, dict[str, Score]]:
    """Scores by method and condition."""
    found: dict[str, dict[str, Score]] = {name: {} for name, *_ in METHODS}
    with _bar("error rates") as tell:
        for number, condition in enumerate(CONDITIONS):
            counts = draw(condition, runs, np.random.default_rng((seed, number)))
            for index, (name, _, method, _) in enumerate(METHODS):
                alarms = [
                    method(CountRuns(*(part[at : at + BATCH] for part in vars(counts).values())))
                    for at in range(0, runs, BATCH)
                ]
                found[name][condition.name] = score(np.concatenate(alarms), counts)
                tell((number + (index + 1) / len(METHODS)) / len(CONDITIONS))
    return found


def holds(one: Score, runs: int) -> bool:
    """Whether a share of false rollbacks is within alpha and three Monte-Carlo errors."""
    return one.share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def show_rates(found: dict[str, dict[str, Score]], runs: int) -> None:
    """One row a method."""
    title = f"5 % of 200 requests/s, a poll every 10 s, {POLLS} polls, 1 % of errors, {runs:,} runs: % rolled back"
    table = Table(title=f"{title} (median s; canary requests)", title_justify="left")
    table.add_column("method")
    for condition in CONDITIONS:
        table.add_column(condition.name, justify="right")
    table.add_column("gates.md: A/A; 1.5; 2; 5 %; incident")
    for name, is_ours, _, says in METHODS:
        cells = [_cell(found[name][one.name], runs if one.is_null else 0) for one in CONDITIONS]
        table.add_row(f"[bold]{name}[/]" if is_ours else name, *cells, says)
    console.print(table)


def _cell(one: Score, null_runs: int = 0) -> str:
    share_text = f"{100 * one.share:.1f}"
    if null_runs:
        return share_text if holds(one, null_runs) else f"[red]{share_text}[/]"
    if one.median_s is None:
        return share_text
    return f"{100 * one.share:.0f} ({one.median_s:.0f}; {one.requests:,.0f})"


def show_ratios(found: dict[str, dict[str, Score]], runs: int) -> None:
    """Our median times over gates.md's best valid method, and over the usual ones that hold their error rate here in
    the plain A/A run and with an incident (bursts break all but Mann-Whitney and, of ours, what is guarded)."""
    nulls = [one.name for one in CONDITIONS if one.is_null and not one.is_bursty]
    usual = [
        name
        for name, is_ours, *_ in METHODS
        if not is_ours and all(holds(found[name][null], runs) for null in nulls)
    ]
    table = Table(title="median time to a rollback as a ratio: below 1 is faster", title_justify="left")
    for column in ("ours", "against", *PEERS):
        table.add_column(column)
    for ours in ("F2 behind the guard (the gate)", "F3 behind the guard (the gate)", "F2 alone"):
        table.add_row(
            ours, "F2, as gates.md has it", *(_ratio(found[ours][at].median_s, PEERS[at]) for at in PEERS)
        )
        for name in [SAME_PEER, *usual]:
            cells = (_ratio(found[ours][at].median_s, found[name][at].median_s) for at in PEERS)
            table.add_row("", name, *cells)
    console.print(table)


def _ratio(ours: float | None, theirs: float | None) -> str:
    if ours is None or theirs is None:
        return "it finds < half" if ours is not None else "–"
    return f"{ours / theirs:.2f}  ({ours:.0f} s / {theirs:.0f} s)"


def show_utility(runs: int, seed: int) -> None:
    """Loss rates of the canary, one column each."""
    found = []
    for number, loss in enumerate(LOSSES):
        with _bar(f"utility, {100 * loss:g} % of losses") as tell:
            found.append(lives(loss, runs, seed + number, tell))
    title = (
        f"utility in [−1, 0.25], stable loses 2 %, {runs:,} runs: % rolled back (median s; units) [gates.md]"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for loss in LOSSES:
        table.add_column("A/A" if loss == LOSSES[0] else f"{100 * loss:g} %", justify="right")
    for name in found[0]:
        says = UTILITY_SAYS.get(name, ("",) * len(LOSSES))
        cells = [
            f"{_cell(one[name], 0 if at else runs)}{f' [{text}]' if text else ''}".replace("[1", r"\[1")
            for at, (one, text) in enumerate(zip(found, says, strict=True))
        ]
        table.add_row(name, *cells)
    console.print(table)


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="runs per condition")
    parser.add_argument("--utility-runs", type=int, default=None, help="default: a quarter of --runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    found = rates(given.runs, given.seed)
    show_rates(found, given.runs)
    show_ratios(found, given.runs)
    show_utility(given.utility_runs or max(given.runs // 4, 1), given.seed)
    console.print(f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of one core")


if __name__ == "__main__":
    main()

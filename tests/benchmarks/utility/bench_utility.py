"""Trimtab's utility against its peers on real data: `make bench-utility` (ARGS='--quick', '--json FILE').

Savings are 1 - cost / cost of the better of acting always and never, in percent; the standard error is over the splits
(over resampled rows where there is one split). All methods have the same rows and splits; nothing is chosen
on test rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import constrained
import hidden
import numpy as np
import over_time
import peers
import targets
from real_data import DataSet, Split, random_split, read_all, time_split
from score_table import Table, Target
from trimtab_side import OURS, OURS_BOOSTED, OURS_TUNED, Trained, train_split

USUAL = ("cross_entropy", "payoff_weighted")
BOOSTED = ("cross_entropy", "boosted", "boosted_average")
QUICK_ROWS = 6_000
PARTS = ("random", "time", "hidden", "bounds")


class Progress:
    """One line per step on stderr, with the time."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.0f} s] {text}", file=sys.stderr, flush=True)


def trimtab_entries(split: Split, *, seed: int, with_trees: bool) -> tuple[list[peers.Entry], Trained]:
    """The product as it comes, under its per-row rule and, to compare, under one tuned threshold; and with trees."""
    usual = train_split(split, seed=seed, candidates=USUAL)
    p_validation, p = (usual.probabilities(part)[:, 1] for part in (split.validation, split.test))
    threshold = peers.tuned_threshold(split.validation, p_validation)
    entries = [
        peers.Entry(OURS, usual.actions(split.test), usual.fit_s),
        peers.Entry(OURS_TUNED, (p >= threshold).astype(int), usual.fit_s),
    ]
    if not with_trees:
        return entries, usual
    both = train_split(split, seed=seed, candidates=BOOSTED)
    return [peers.Entry(OURS_BOOSTED, both.actions(split.test), both.fit_s), *entries], both


def peer_entries(split: Split, *, seed: int, say: Callable[[str], None]) -> Iterator[peers.Entry]:
    """Every peer that is installed."""
    inputs = peers.Inputs(split, seed)
    for scored in peers.usual_models(inputs):
        yield from peers.two_rules(scored, split)
        if scored.name == "LightGBM":
            best = scored
    for name, entries in (
        ("empulse", peers.empulse_entries(inputs)),
        ("fairlearn", peers.fairlearn_entries(inputs, best)),
    ):
        try:
            yield from entries
        except ImportError as error:
            say(f"{name} is not installed, its lines are left out: {error}")


def compare(title: str, splits: list[Split], say: Callable[[str], None]) -> tuple[Table, list[Trained]]:
    """All methods on the same splits; the seed of a model is the number of its split."""
    table, trained = Table(title, splits[0].test.unit), []
    for seed, split in enumerate(splits):
        say(f"{title}: split {seed + 1} of {len(splits)}, Trimtab")
        entries, model = trimtab_entries(split, seed=seed, with_trees=True)
        trained.append(model)
        for entry in entries:
            table.add(entry, split.test)
        say(f"{title}: split {seed + 1} of {len(splits)}, peers")
        for entry in peer_entries(split, seed=seed, say=say):
            table.add(entry, split.test)
    return table, trained


def in_time(data: DataSet, seeds: int, say: Callable[[str], None]) -> Table:
    """One split by time, models of several seeds; the standard error is over the test rows."""
    split = time_split(data)
    table = Table(f"{data.name}, in the order of time", data.unit)
    for seed in range(seeds):
        say(f"{table.title}: seed {seed + 1} of {seeds}")
        entries, _ = trimtab_entries(split, seed=seed, with_trees=True)
        for entry in (*entries, *peer_entries(split, seed=seed, say=say)):
            table.add(entry, split.test)
            if seed == 0:
                table.lines[entry.name].row_se = 100 * over_time.row_error(split.test, entry.actions)
    return table


@dataclass
class Found:
    """Everything a run found."""

    tables: list[Table] = field(default_factory=list)
    deciles: list[over_time.DecileResult] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "tables": [
                {"title": t.title, "unit": t.unit, "lines": [line.to_json() for line in t.lines.values()]}
                for t in self.tables
            ],
            "deciles": [asdict(one) for one in self.deciles],
            "targets": [asdict(one) for one in self.targets],
        }


def run(data: dict[str, DataSet], seeds: int, say: Callable[[str], None], *, parts: tuple[str, ...]) -> Found:
    """The parts asked for, in the order of PARTS."""
    found = Found()
    splits = {name: [random_split(one, seed) for seed in range(seeds)] for name, one in data.items()}
    trained: dict[str, list[Trained]] = {}
    if "random" in parts:
        for name in data:
            table, trained[name] = compare(f"{name}, random splits", splits[name], say)
            found.tables.append(table)
            found.targets += targets.against_peers(table)
        found.targets += targets.across(found.tables)
    if "time" in parts:
        found.tables.append(in_time(data["bank"], seeds, say))
        for seed in range(seeds):
            found.deciles += over_time.run(data["bank"], seed=seed, candidates=BOOSTED, on_step=say)
        found.targets += targets.over_deciles(found.deciles)
    if "hidden" in parts:
        for name, one in data.items():
            table = Table(f"{name}, payoffs hidden at decision time", one.unit)
            for seed in range(seeds):
                say(f"{table.title}: split {seed + 1} of {seeds}")
                for entry in hidden.hidden_entries(one, seed=seed):
                    table.add(entry, splits[name][seed].test)
            found.tables.append(table)
            found.targets += targets.hidden(table) if name == "pakdd" else []
    if "bounds" in parts:
        for name in constrained.BOUNDS:
            table = bounded(data[name], splits[name], trained.get(name), say)
            found.tables.append(table)
            found.targets += targets.bounds(table, constrained.BOUNDS[name])
    return found


def bounded(
    data: DataSet, splits: list[Split], trained: list[Trained] | None, say: Callable[[str], None]
) -> Table:
    """Rules under the bound on false positives, and every model without it."""
    table = Table(f"{data.name}, false-positive rate at most {constrained.BOUNDS[data.name]}", data.unit)
    for seed, split in enumerate(splits):
        say(f"{table.title}: split {seed + 1} of {len(splits)}")
        model = trained[seed] if trained else train_split(split, seed=seed, candidates=BOOSTED)
        for entry in constrained.bounded_entries(split, model, seed=seed, on_step=say):
            rate = constrained.false_positive_rate(split.test, entry.actions)
            table.add(entry, split.test, **{"rate on test": rate})
    return table


def thinned(data: DataSet) -> DataSet:
    """Some rows of it, in their order."""
    some = np.random.default_rng(0).permutation(len(data))[:QUICK_ROWS]
    return data.rows(np.sort(some))


def main() -> int:
    """Run, print the tables and the targets; 0 whether or not they are met: the numbers say it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cache", type=Path, default=Path(".bench/data"), help="where the data's wheel is kept"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"one split of {QUICK_ROWS:,} rows: does it run?"
    )
    parser.add_argument("--splits", type=int, default=3, help="random splits, and seeds")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    parser.add_argument("--json", type=Path, help="write all numbers here, too")
    options = parser.parse_args()
    progress, seeds = Progress(), 1 if options.quick else options.splits
    data = read_all(options.cache)
    if options.quick:
        data = {name: thinned(one) for name, one in data.items()}
    parts = PARTS if options.only is None else (options.only,)
    found = run(data, seeds, progress.say, parts=parts)
    for table in found.tables:
        print("\n" + table.text())
    if found.deciles:
        print("\n" + over_time.text(found.deciles))
    print("\nTargets" + (" (a quick run judges none)" if options.quick else ""))
    for target in found.targets:
        verdict = "met" if target.is_met else "NOT MET"
        print(f"  {'' if options.quick else verdict:7s}  {target.asked}: {target.found}")
    if options.json is not None:
        options.json.write_text(json.dumps(found.to_json(), indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

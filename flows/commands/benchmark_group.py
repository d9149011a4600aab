"""`trimtab benchmark …`: freeze an evaluation set, list what is frozen, score releases on it and keep the numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    SERVICE_OPTION,
    console,
    open_records,
    print_json,
    print_table,
    refuse_policy,
)

if TYPE_CHECKING:
    from services.benchmarks.score import Score

_HEADER = ("when", "release", "per decision", "95 %", "over the best trivial", "95 %", "savings", "note")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Frozen evaluation sets, and what releases come to on them."
    )
    group.command("freeze")(freeze_rows)
    group.command("list")(list_frozen)
    group.command("run")(run_release)
    app.add_typer(group, name="benchmark")


def freeze_rows(
    name: str = typer.Argument(help="What to call it: small letters, digits, '_'."),
    service: str = SERVICE_OPTION,
    rows: Path = typer.Option(
        None, "--rows", help="A file of rows with outcomes (.csv, .parquet); default: the rehearsal's calls."
    ),
    start: float = typer.Option(0.0, "--start", help="From this fraction of the rows on, in order of time."),
    stop: float = typer.Option(1.0, "--stop", help="Up to this fraction, exclusive."),
    version: int = typer.Option(None, "--version", help="Default: one after the newest of this name."),
    home_name: str = HOME_OPTION,
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Freeze rows, contract and prices as a version that never changes; choose rows later than any release saw.

    Example: trimtab benchmark freeze autumn --start 0.6 --stop 0.8
    """
    from dataclasses import asdict

    from flows.read_rows import read_rows
    from policies.language.yaml_source import PolicyError
    from services.benchmarks.frozen_rows import freeze
    from services.benchmarks.history import record_frozen
    from services.rollout.policy_set import POLICIES, load_policies

    home, db = open_records(home_name)
    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    made = freeze(
        home.benchmarks / service,
        read_rows(rows, policies.contract),
        texts=policies.texts,
        name=name,
        version=version,
        start=start,
        stop=stop,
        source="the rehearsal's calls" if rows is None else str(rows.resolve()),
        at=time.time(),
    )
    record_frozen(db, made, at=made.made_at)
    if as_json:
        print_json({"digest": made.digest, **asdict(made)})
        return
    left_out = f"{made.quarantined:,} broke the contract and {made.unlabelled:,} had no outcome: left out"
    console.print(f"frozen: {made.title}, {made.rows:,} rows ({left_out})", highlight=False, soft_wrap=True)
    console.print(f"{home.benchmarks / service / made.title}, {made.digest}", highlight=False, soft_wrap=True)


def list_frozen(
    service: str = SERVICE_OPTION, home_name: str = HOME_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """List what is frozen, whether it still is what was frozen, and how often releases ran on it.

    Example: trimtab benchmark list
    """
    from dataclasses import asdict

    from services.benchmarks.frozen_rows import BenchmarkError, manifests, verify_files
    from services.benchmarks.history import check_frozen, runs

    home, db = open_records(home_name)
    found = []
    for made in manifests(home.benchmarks / service):
        fault = ""
        try:
            verify_files(home.benchmarks / service / made.title, made)
            check_frozen(db, made)
        except BenchmarkError as error:
            fault = str(error)
        found.append((made, fault, len(runs(db, made))))
    if as_json:
        print_json(
            [{"digest": m.digest, **asdict(m), "fault": fault, "runs": ran} for m, fault, ran in found]
        )
    elif found:
        print_table(
            f"Benchmarks of {service}",
            ("benchmark", "rows", "events", "made from", "runs", "digest", ""),
            [
                (
                    m.title,
                    f"{m.rows:,}",
                    f"{_day(m.first_event)} to {_day(m.last_event)}",
                    m.made_from,
                    str(ran),
                    m.digest[:19],
                    fault or "as frozen",
                )
                for m, fault, ran in found
            ],
        )
    else:
        console.print(f"none in {home.benchmarks / service}", highlight=False, soft_wrap=True)
    if any(fault for _, fault, _ in found):
        raise SystemExit(1)


def run_release(
    name: str = typer.Argument(help="The benchmark."),
    release: str = typer.Option(..., "--release", help="The id of the release to score."),
    against: str = typer.Option(None, "--against", help="Another release, compared row by row."),
    version: int = typer.Option(None, "--version", help="Default: the newest."),
    service: str = SERVICE_OPTION,
    home_name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Score a release on the frozen rows, enter it in the ledger, and show all numbers on this version so far.

    Example: trimtab benchmark run autumn --release telemarketing-0123456789ab
    """
    from services.benchmarks.frozen_rows import read_frozen
    from services.benchmarks.history import check_frozen, record_run, runs
    from services.benchmarks.score import score, seen_rows
    from services.serving.release import find_release
    from services.serving.scorer import Scorer

    home, db = open_records(home_name)
    frozen = read_frozen(home.benchmarks / service, name, version)
    check_frozen(db, frozen.manifest)
    of = find_release(home.releases, release)
    rival = None
    if against is not None:
        other = find_release(home.releases, against)
        rival = (other.id, Scorer.load(other), seen_rows(frozen, other, home.snapshots))
    found = score(
        frozen,
        Scorer.load(of),
        release=of.id,
        seen=seen_rows(frozen, of, home.snapshots),
        rival=rival,
    )
    record_run(db, frozen.manifest, found, at=time.time())
    past = runs(db, frozen.manifest)
    if as_json:
        history = [{"seq": one.seq, "at": one.at, "score": one.body["score"]} for one in past]
        print_json(
            {
                "benchmark": frozen.manifest.title,
                "digest": frozen.manifest.digest,
                "score": found.to_json(),
                "history": history,
            }
        )
        return
    title = f"{frozen.manifest.title} of {service}: {found.n:,} rows, {found.unit}"
    print_table(title, _HEADER, [_row(one.at, one.body["score"]) for one in past])
    _say(found)


def _row(at: float, body: Any) -> Sequence[str]:
    """One run of the history, as the ledger has it."""
    note = [] if body["is_same_spec"] else ["another utility spec"]
    if body["seen"] is None:
        note.append("cannot tell whether it was made of these rows")
    savings = body["savings"]
    return (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(at)),
        body["release"],
        f"{body['utility']['value']:.4f}",
        _ends(body["utility"]),
        f"{body['gain_over_trivial']['value']:+.4f}",
        _ends(body["gain_over_trivial"]),
        "" if savings is None else f"{100 * savings['value']:.1f} %",
        "; ".join(note),
    )


def _say(found: Score) -> None:
    lines = [
        f"{name}: {one.value:.4f} a decision, 95 % {one.lower:.4f} to {one.upper:.4f}"
        for name, one in found.stakeholders.items()
    ]
    lines.append(
        "decides " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.actions.items())
    )
    lines.append(f"best trivial policy: {found.best_trivial}; savings 100 % would be to know each outcome")
    if found.against is not None:
        apart = found.against.difference
        lines.append(
            f"against {found.against.release}, row by row: {apart.value:+.4f} {found.unit} a decision, "
            f"95 % {apart.lower:+.4f} to {apart.upper:+.4f}; they differ on "
            f"{100 * found.against.disagreement:.1f} % of the rows"
        )
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _ends(measured: Mapping[str, float]) -> str:
    return f"{measured['lower']:.4f} to {measured['upper']:.4f}"


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))

"""`trimtab outcomes import`: what became of decisions, from a file."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    SERVICE_OPTION,
    console,
    fail,
    open_records,
    print_json,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="What became of decisions (see also POST /outcomes).")
    group.command("import")(import_file)
    app.add_typer(group, name="outcomes")


def import_file(
    file: Path = typer.Argument(
        help="CSV, Parquet or JSON lines: outcome, at, and decision_id or unit. `at` is epoch seconds or ISO 8601. "
        "With a decision_id also the measured amounts that utility.yaml names."
    ),
    within: str = typer.Option(
        None,
        "--within",
        help="For rows by unit: each goes to every decision about the unit this long before it, e.g. 30d.",
    ),
    complete_through: str = typer.Option(
        None,
        "--complete-through",
        help="All outcomes up to this instant are delivered now (the watermark); ISO 8601 or epoch seconds.",
    ),
    service: str = SERVICE_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Record a file of outcomes. A file that has a mistake is refused whole; the same file again changes nothing.

    Of contradictory outcomes the one that happened last stands, the others are kept and counted.

    Example: trimtab outcomes import outcomes.csv --within 30d --complete-through 2026-11-22T00:00:00Z
    """
    from services.rollout.policy_set import load_policies
    from services.store.decisions import set_watermark
    from services.telemetry.outcome_file import OutcomeFileError, import_outcomes, read_outcomes

    now = time.time()
    within_s = None if within is None else _seconds(within)
    watermark = None if complete_through is None else _instant(complete_through, now=now)
    _, db = open_records(name)
    utility = load_policies(service).utility
    try:
        rows = read_outcomes(
            file, outcomes=utility.outcomes, within_s=within_s, now=now, amounts=utility.amounts
        )
    except OutcomeFileError as error:
        fail(str(error), code=2)
    found = import_outcomes(db, rows, received_at=now)
    if watermark is not None and not found.too_early:
        set_watermark(db, watermark, at=now)
    if as_json:
        is_set = watermark is not None and not found.too_early
        left = {"unmatched": found.unmatched, "too_early": found.too_early}
        print_json({**asdict(found.receipt), **left, "watermark": watermark if is_set else None})
        return
    receipt = found.receipt
    console.print(
        f"{receipt.new} new, {receipt.duplicates} known already, {receipt.conflicts} contradict an earlier one",
        highlight=False,
    )
    for count, text in (
        (receipt.unknown, "name a decision that is not in the store (yet): kept until it is"),
        (receipt.late, "are late: the watermark had promised them"),
        (found.unmatched, "are about units without a decision in that time: not recorded"),
        (found.too_early, "are newer than what is shipped: not recorded, import the file again later"),
    ):
        if count:
            console.print(f"{count} {text}", highlight=False, soft_wrap=True)
    if watermark is not None and found.too_early:
        console.print("the watermark stays where it was", highlight=False)


def _seconds(text: str) -> float:
    from policies.language.quantities import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        fail(f"'--within' {error}", code=2)


def _instant(text: str, *, now: float) -> float:
    from services.telemetry.outcome_file import instant

    found = instant(text)
    if found is None or not 0 <= found <= now:
        fail(
            f"'--complete-through' must be an instant in the past, e.g. 2026-11-22T00:00:00Z: {text}", code=2
        )
    return found

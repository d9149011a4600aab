"""`trimtab rollout export-history`: a rollout's decisions and outcomes as a flat file that policies can be tried on."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape

from flows.commands.output import HOME_OPTION, JSON_OPTION, console, fail, open_records, print_json

FILES = (".csv", ".parquet")


def export_history(
    rollout: str = typer.Argument(None, help="The rollout's id; default: the newest."),
    out: Path = typer.Option(..., "--out", help="The file to write, .csv or .parquet."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write the canary stages of a rollout, one row per unit, for `trimtab policy simulate --history`.

    Example: trimtab rollout export-history --out history.parquet
    """
    from services.rollout.history_export import export_history as export
    from services.store.rollouts import recent

    if out.suffix not in FILES:
        fail(f"'--out' must end in .csv or .parquet: {out}")
    home, db = open_records(name)
    if rollout is None:
        newest = recent(db, limit=1)
        if not newest:
            fail(f"no rollout on record in {home.root}")
        rollout = newest[0].id
    found = export(db, rollout, out, releases=home.releases)
    if as_json:
        print_json({**vars(found), "rollout": rollout})
        return
    stages = ", ".join(f"{units:,} in {stage}" for stage, units in found.by_stage.items())
    console.print(f"{out}: {found.units:,} units of {rollout}: {stages}", highlight=False, soft_wrap=True)
    for column, why in found.lacks.items():
        console.print(f"[yellow]without[/] {column}: {escape(why)}", highlight=False, soft_wrap=True)

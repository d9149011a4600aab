"""`trimtab replay`: a rollout's verdicts worked out again from the evidence on record; they must agree."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from flows.commands.output import HOME_OPTION, JSON_OPTION, console, fail, open_records, print_json

if TYPE_CHECKING:
    from services.store.database import Database
    from services.trace.verdict_replay import Replayed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    rollout: str = typer.Argument("last", help="A rollout's id, or `last`."),
    every: bool = typer.Option(False, "--all", help="Every rollout of this home, oldest first."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Judge a rollout again: every poll, every verdict on the ledger, the gates at the end, the ledger's chain.

    Exit status 1 if anything differs from the record; the first difference is named.

    Example: trimtab replay last
    Example: trimtab replay --all --json
    """
    home, db = open_records(name)
    ids = _chosen(db, rollout, every=every)
    if not ids:
        fail(f"no rollout on record in {home.root}", code=2)
    from services.trace.verdict_replay import replay_verdicts

    found = []
    for one in ids:
        began = time.perf_counter()
        replayed = replay_verdicts(db, one)
        found.append(replayed)
        if not as_json:
            _print(replayed, took_s=time.perf_counter() - began)
    if as_json:
        print_json([{**vars(one), "agrees": one.agrees, "differs": _plain(one)} for one in found])
    if not all(one.agrees for one in found):
        raise SystemExit(1)


def _chosen(db: Database, rollout: str, *, every: bool) -> list[str]:
    from services.store import rollouts

    if every:
        return [one.id for one in reversed(rollouts.recent(db, limit=100_000))]
    if rollout == "last":
        return [one.id for one in rollouts.recent(db, limit=1)]
    try:
        return [rollouts.load(db, rollout).id]
    except rollouts.UnknownRollout as error:
        fail(str(error), code=2)


def _print(found: Replayed, *, took_s: float) -> None:
    word = "[green]agrees[/]" if found.agrees else "[red]differs[/]"
    parts = [f"{found.polls} polls", f"{found.on_ledger} verdicts on the ledger", f"{found.offline} offline"]
    parts += [f"{found.by_people} by people or failed effects"] if found.by_people else []
    parts += [f"{found.void} void, their conductor died"] if found.void else []
    console.print(
        f"{word} {found.rollout_id}: {', '.join(parts)} ({took_s:.1f} s)", highlight=False, soft_wrap=True
    )
    for one in found.silent:
        console.print(f"  [yellow]not recomputed[/] {escape(one)}", highlight=False, soft_wrap=True)
    if found.differs:
        first, more = found.differs[0], len(found.differs) - 1
        console.print(f"  first: {first.sentence()}", highlight=False, soft_wrap=True, markup=False)
        if more:
            console.print(f"  and {more} more; --json names them all", highlight=False)


def _plain(found: Replayed) -> list[dict[str, object]]:
    return [vars(one) for one in found.differs]

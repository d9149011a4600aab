"""`trimtab report` and `trimtab ledger`: read what was decided, and check that nobody changed it."""

from __future__ import annotations

import json
import os
import time

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    ledger = typer.Typer(no_args_is_help=True, help="The append-only record of verdicts, orders and effects.")
    ledger.command("verify")(verify)
    ledger.command("show")(show)
    app.add_typer(ledger, name="ledger")


def report(
    stage: str = typer.Option(None, "--stage", help="Only this stage."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """List the stage reports with their verdicts, newest last.

    Example: trimtab report --stage alignment
    """
    from policies.rollout.verdict import Verdict
    from services.ledger.ledger import entries

    home, db = open_records(name)
    found = []
    for entry in entries(db, kind="verdict"):
        verdict = Verdict.from_json(_mapping(entry.body["verdict"]))
        path = entry.body.get("report")
        if path is None or (stage is not None and verdict.stage != stage):
            continue
        file = home.root / str(path)
        found.append((entry, verdict, file, file.exists()))
    if as_json:
        print_json(
            [
                {"release": e.body["release"], "report": str(f), "written": there, **v.to_json()}
                for e, v, f, there in found
            ]
        )
        return
    if not found:
        fail(f"no stage report in {home.root}" + (f" for stage {stage!r}" if stage else ""))
    for e, v, file, there in found:
        console.print(
            f"[bold]{v.stage:10}[/] {v.decision.value:8} {v.reason.value}, {e.body['release']}",
            highlight=False,
            soft_wrap=True,
        )
        place = os.path.relpath(file) if there else "not written; `trimtab ledger show` says why"
        console.print(f"           {place}", highlight=False, soft_wrap=True)


def verify(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Recompute the ledger's hash chain; exit status 1 if an entry was changed, removed or inserted.

    Example: trimtab ledger verify
    """
    from dataclasses import asdict

    from services.ledger.ledger import verify as check

    _, db = open_records(name)
    found = check(db)
    if as_json:
        print_json(asdict(found))
    elif found.ok:
        console.print(
            f"[green]ledger whole[/]: {found.entries} entries, head {found.head.hash[:16]}", highlight=False
        )
    else:
        console.print(f"[red]ledger broken[/] at entry {found.first_bad}: {found.why}", highlight=False)
    if not found.ok:
        raise SystemExit(1)


def show(
    rollout: str = typer.Option(None, "--rollout", help="Only this rollout."),
    kind: str = typer.Option(
        None, "--kind", help="Only entries of this kind, e.g. verdict, intent, effect, order."
    ),
    last: int = typer.Option(40, "--last", help="How many, newest last."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Print the ledger's entries.

    Example: trimtab ledger show --kind verdict
    """
    from services.ledger.ledger import entries

    _, db = open_records(name)
    found = entries(db, rollout, kind)[-last:]
    if as_json:
        print_json([vars(entry) for entry in found])
        return
    rows = [
        (
            str(e.seq),
            time.strftime("%H:%M:%S", time.localtime(e.at)),
            e.kind,
            e.rollout_id or "",
            _short(e.kind, e.body),
        )
        for e in found
    ]
    print_table("Ledger", ("#", "at", "kind", "rollout", "what"), rows)


def _short(kind: str, body: dict[str, object]) -> str:
    from policies.rollout.verdict import Verdict

    if kind == "verdict":
        return Verdict.from_json(_mapping(body["verdict"])).sentence()
    if kind == "intent":
        steps = body["steps"]
        return ", ".join(str(_mapping(step)["action"]) for step in steps) if isinstance(steps, list) else ""
    return ", ".join(f"{key} {_plain(value)}" for key, value in body.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        fail("the ledger holds an entry that is no object; `trimtab ledger verify` says more")
    return value

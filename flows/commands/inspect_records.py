"""`trimtab report` and `trimtab ledger`: read what was decided, and check that nobody changed it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from services.ledger.checkpoints import CheckpointsCheck


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    ledger = typer.Typer(no_args_is_help=True, help="The append-only record of verdicts, orders and effects.")
    ledger.command("verify")(verify)
    ledger.command("checkpoint")(checkpoint)
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


def verify(
    name: str = HOME_OPTION,
    checkpoint: Path = typer.Option(
        None, "--checkpoint", help="A checkpoint kept elsewhere: the ledger must agree with it, too."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Recompute the hash chain and check the signed checkpoints; exit status 1 if an entry was changed or removed.

    Example: trimtab ledger verify --checkpoint /mnt/elsewhere/monday.json
    """
    from dataclasses import asdict

    from services.ledger.checkpoints import kept_checkpoints, verify_checkpoints
    from services.ledger.ledger import verify as check
    from services.signing.keys import trusted_keys

    home, db = open_records(name)
    envelopes = kept_checkpoints(home.root)
    if checkpoint is not None:
        if not checkpoint.is_file():
            fail(f"'--checkpoint' must be a file: {checkpoint}", code=2)
        envelopes = (*envelopes, checkpoint.read_text(encoding="utf-8").strip())
    found = check(db)
    signed = verify_checkpoints(db, envelopes, trusted_keys(home.trusted_keys_file))
    if as_json:
        print_json({**asdict(found), "ok": found.ok and signed.ok, "checkpoints": asdict(signed)})
    elif not found.ok:
        console.print(
            f"[red]ledger broken[/] at entry {found.first_bad}: {escape(found.why)}", highlight=False
        )
    elif not signed.ok:
        console.print(f"[red]ledger broken[/]: {escape(signed.why)}", highlight=False)
    else:
        console.print(
            f"[green]ledger whole[/]: {found.entries} entries, head {found.head.hash[:16]}; {_signed(signed)}",
            highlight=False,
        )
    if not (found.ok and signed.ok):
        raise SystemExit(1)


def _signed(found: CheckpointsCheck) -> str:
    if found.last is None:
        return "no signed checkpoint yet"
    return f"{found.count} signed checkpoints agree, the last at entry {found.last.entries}, by {found.signed_by!r}"


def checkpoint(
    out: Path = typer.Option(None, "--out", help="A file to keep it in, elsewhere; default: print it."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Sign the ledger as it stands now, to be kept where nobody who may write here may write.

    Example: trimtab ledger checkpoint --out /mnt/elsewhere/monday.json
    """
    from services.ledger.checkpoints import write_checkpoint
    from services.signing.keys import signer_of

    home, db = open_records(name)
    envelope = write_checkpoint(db, signer_of(home.keys, name=home.root.name), at=time.time())
    if envelope is None:
        fail("the ledger is empty: there is nothing to sign")
    if out is None:
        sys.stdout.write(envelope + "\n")
        return
    out.write_text(envelope + "\n", encoding="utf-8")
    if as_json:
        print_json({"written": str(out)})
        return
    console.print(f"signed: {out}; keep `trimtab key show` with it", highlight=False)


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

"""`trimtab openapi`: the two HTTP interfaces, described for machines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer

from flows.commands.output import HOME_OPTION, JSON_OPTION, console, fail, open_records, print_json

OUT_OPTION = typer.Option(None, "--out", help="A file; default: print it.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    documents = typer.Typer(no_args_is_help=True, help="OpenAPI documents of the two HTTP interfaces.")
    documents.command("decide")(decide)
    documents.command("control")(control)
    app.add_typer(documents, name="openapi")


def decide(
    release: str = typer.Option(None, "--release", help="A release id; default: the stable one."),
    out: Path = OUT_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """POST /decide: the fields, bounds and answers of one release.

    Example: trimtab openapi decide --out decide.json
    """
    from flows.system import stable_release
    from services.home import LOOPBACK
    from services.serving.openapi import document
    from services.serving.release import find_release

    home, _ = open_records(name)
    wanted = release or stable_release(home)
    if wanted is None:
        fail(f"there is no stable release in {home.root} yet: name one with --release")
    found = find_release(home.releases, wanted)
    _write(document(found, url=f"http://{LOOPBACK}:{home.ports.users}"), out, as_json=as_json)


def control(out: Path = OUT_OPTION, name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """The control service: every endpoint, its role, its body.

    Example: trimtab openapi control --out control.json
    """
    from services.control.openapi import document
    from services.control.service import all_endpoints
    from services.control.state import ControlState

    home, db = open_records(name)
    described = document(all_endpoints(ControlState(home, db, clock=time.time)), port=home.ports.control)
    _write(described, out, as_json=as_json)


def _write(document: dict[str, object], out: Path | None, *, as_json: bool) -> None:
    """Print the document, which is JSON in any case, or write it and say where."""
    if out is None:
        print_json(document)
        return
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json({"written": str(out)})
    else:
        console.print(f"written: {out}", highlight=False, soft_wrap=True)

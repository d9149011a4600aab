"""How commands print: tables for people, JSON for machines, errors on standard error."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from policies.language.yaml_source import PolicyError
    from services.home import Home
    from services.store.database import Database

PIPE_WIDTH = 160  # a log is not a terminal of 80 columns
console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)

JSON_OPTION = typer.Option(False, "--json", help="Print JSON for machines.")
SERVICE_OPTION = typer.Option(
    "telemarketing", "--service", "-s", help="The decision service (a folder in policies/)."
)
HOME_OPTION = typer.Option(
    "main", "--home", help="Which state directory under .trimtab (TRIMTAB_STATE) to speak of."
)
REASON_OPTION = typer.Option(..., "--reason", "-r", help="Why; goes on the ledger.")
BY_OPTION = typer.Option(None, "--by", help="Who; default: the user who runs this.")


def visible(text: str) -> str:
    """Somebody's words for a terminal: what would move its cursor, or turn its lines round, is shown by its code."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=False, default=str) + "\n")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people. Its cells are text, not markup: they hold what others wrote."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    console.print(table)


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Names and values, aligned."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        console.print(f"[dim]{name:{width}}[/]  {escape(str(value))}", highlight=False, soft_wrap=True)


def open_records(name: str) -> tuple[Home, Database]:
    """The home of this name and its store; fails where there is none, rather than make an empty one.

    Whoever runs `kill` or `ledger verify` in the wrong folder must hear of it, not that all is well.
    """
    from flows.wiring import locate_home, open_store

    home = locate_home(name)
    if not (home.root / "ports.json").is_file():
        fail(
            f"there is no state in {home.root}: `trimtab run` makes it; "
            "or is this another folder than you ran it in (TRIMTAB_STATE names one)?"
        )
    return home, open_store(home)


def speaker(by: str | None) -> str:
    """Whose order it is, for the record: the name given, and always the user of this machine who ran the command."""
    user = getpass.getuser()
    return user if by is None or by == user else f"{by} (user {user})"


def refuse_policy(error: PolicyError, *, as_json: bool, more: Mapping[str, object] | None = None) -> NoReturn:
    """Print every mistake of a policy file with its place, exit status 1. more: further keys of the JSON."""
    if as_json:
        print_json({"ok": False, "issues": [vars(issue) for issue in error.issues], **(more or {})})
    else:
        for issue in error.issues:
            console.print(f"[red]error[/]  {escape(str(issue))}", highlight=False, soft_wrap=True)
    raise SystemExit(1) from None


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Say what is wrong on standard error and end with this exit status."""
    Console(stderr=True).print(
        f"[red]trimtab:[/] {escape(visible(message))}", highlight=False, soft_wrap=True
    )
    raise SystemExit(code)

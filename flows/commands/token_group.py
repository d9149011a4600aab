"""`trimtab token`: give, list, rotate and revoke the tokens of the control service. Needs no running system."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable

import typer
from rich.console import Console

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
)

ROLE_HELP = (
    "viewer (reads), operator (stops things, feeds outcomes), approver (lets stages pass) or admin (tokens)."
)
HOMES_OWN = "home"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tokens = typer.Typer(
        no_args_is_help=True,
        help="Who may speak to the control service, in which role. Only hashes are kept.",
    )
    tokens.command("create")(create)
    tokens.command("list")(list_all)
    tokens.command("rotate")(rotate)
    tokens.command("revoke")(revoke)
    app.add_typer(tokens, name="token")


def create(
    token_name: str = typer.Argument(..., metavar="NAME", help="Whom it speaks for; goes on the ledger."),
    role: str = typer.Option(..., "--role", help=ROLE_HELP),
    days: float = typer.Option(None, "--days", min=0.0, help="For how long; default: until it is revoked."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Give a token. It is printed once and cannot be read again.

    Example: trimtab token create ana --role approver --days 90
    """
    from services.control.roles import role_of
    from services.control.token_desk import give

    try:
        wanted = role_of(role)
    except ValueError as error:
        fail(str(error), code=2)
    home, db = open_records(name)
    now = time.time()
    until = None if days is None else now + days * 86_400
    file = home.issued_tokens_file
    made = _or_refused(
        lambda: give(db, file, name=token_name, role=wanted, by=getpass.getuser(), at=now, until=until)
    )
    _show_given(made, as_json=as_json)


def list_all(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Every token ever given, without its secret.

    Example: trimtab token list
    """
    from services.control.issued_tokens import read_tokens

    home, _ = open_records(name)
    found = read_tokens(home.issued_tokens_file)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    now = time.time()
    rows = [
        (
            one.id,
            one.name,
            one.role.word,
            _day(one.created_at),
            one.created_by,
            "live" if one.is_live(now) else "revoked" if one.revoked_at else "expired",
            "" if one.expires_at is None else _day(one.expires_at),
        )
        for one in found
    ]
    print_table("Tokens", ("id", "name", "role", "since", "by", "state", "until"), rows)
    console.print(f"and the home's own (admin): {home.token_file}", highlight=False, soft_wrap=True)


def rotate(
    token_id: str = typer.Argument(..., metavar="ID", help="As `trimtab token list` shows it, or 'home'."),
    grace_s: float = typer.Option(
        0.0, "--grace", min=0.0, help="For how many s the old one goes on working."
    ),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Replace a token by a new one of the same name and role; `home` replaces the home's own, at once.

    Example: trimtab token rotate 1f0c9a3b7d22 --grace 60
    """
    from services.control.token import replace
    from services.control.token_desk import rotate as exchange

    home, db = open_records(name)
    if token_id == HOMES_OWN:
        replace(home.token_file)
        if as_json:
            print_json({"id": HOMES_OWN, "file": str(home.token_file)})
        else:
            console.print(f"replaced: {home.token_file}", highlight=False, soft_wrap=True)
        return
    file, by, now = home.issued_tokens_file, getpass.getuser(), time.time()
    made = _or_refused(lambda: exchange(db, file, token_id, by=by, at=now, grace_s=grace_s))
    _show_given(made, as_json=as_json)


def revoke(
    token_id: str = typer.Argument(..., metavar="ID", help="As `trimtab token list` shows it."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Take a token back, at once and for good.

    Example: trimtab token revoke 1f0c9a3b7d22
    """
    from services.control.token_desk import revoke as take_back

    home, db = open_records(name)
    file, by, now = home.issued_tokens_file, getpass.getuser(), time.time()
    gone = _or_refused(lambda: take_back(db, file, token_id, by=by, at=now))
    if as_json:
        print_json(gone)
    else:
        console.print(f"revoked: {gone['name']} ({gone['role']}), {gone['id']}", highlight=False)


def _or_refused(act: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `act` answers; a refusal is bad input, exit status 2."""
    from services.control.token import TokenRefused

    try:
        return act()
    except TokenRefused as error:
        fail(str(error), code=2)


def _show_given(made: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    sys.stdout.write(f"{made['token']}\n")
    Console(stderr=True).print(  # so that `> file` keeps the token alone
        f"[dim]{made['name']}, {made['role']}, id {made['id']}: shown this once; "
        'send it as "authorization: Bearer …"[/]',
        highlight=False,
        soft_wrap=True,
    )


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))

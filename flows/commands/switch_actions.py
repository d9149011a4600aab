"""`trimtab switch`: one action off for everyone at once, whatever the releases would choose, and on again."""

from __future__ import annotations

import time

import typer

from flows.commands.output import (
    BY_OPTION,
    HOME_OPTION,
    JSON_OPTION,
    REASON_OPTION,
    SERVICE_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
    speaker,
)

ACTION = typer.Argument(help="An action of the service's utility spec, but not its default action.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Switch an action off for everyone at once, or on again.")
    group.command("off")(switch_off)
    group.command("on")(switch_on)
    group.command("list")(list_switches)
    app.add_typer(group, name="switch")


def switch_off(
    action: str = ACTION,
    reason: str = REASON_OPTION,
    by: str = BY_OPTION,
    service: str = SERVICE_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Nobody is given this action any more, within 2 s: every release takes the best one that is left, and says so.

    The default action cannot be switched off. Exit status 1 if a serving release does not confirm it.

    Example: trimtab switch off call --reason 'the call centre is closed'
    """
    _switch(action, reason, by, service, name, as_json=as_json, is_off=True)


def switch_on(
    action: str = ACTION,
    reason: str = REASON_OPTION,
    by: str = BY_OPTION,
    service: str = SERVICE_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """The action may be chosen again, within 2 s.

    Example: trimtab switch on call --reason 'the call centre is open again'
    """
    _switch(action, reason, by, service, name, as_json=as_json, is_off=False)


def list_switches(
    service: str = SERVICE_OPTION, name: str = HOME_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """Which actions are off, since when, by whom and why.

    Example: trimtab switch list
    """
    from services.control.switch import is_in_force, switched_off

    home, db = open_records(name)
    off = switched_off(db, service)
    in_force = is_in_force(home, service, off)
    if as_json:
        print_json({"service": service, "off": [vars(one) for one in off], "in_force": in_force})
    elif not off:
        console.print(f"no action of {service!r} is off", highlight=False)
    else:
        rows = [
            (one.action, time.strftime("%F %T", time.localtime(one.at)), one.by, one.reason, str(one.entry))
            for one in off
        ]
        print_table(f"Switched off: {service}", ("action", "since", "by", "why", "ledger"), rows)
    if not in_force:
        fail(
            f"{home.switches_file(service)} does not say what the ledger says: repeat the last switch "
            "command, or `trimtab up`"
        )


def _switch(
    action: str, reason: str, by: str | None, service: str, name: str, *, as_json: bool, is_off: bool
) -> None:
    from services.control.switch import SwitchRefused, switch

    home, db = open_records(name)
    try:
        found = switch(
            db,
            home,
            service=service,
            action=action,
            is_off=is_off,
            by=speaker(by),
            reason=reason,
            at=time.time(),
        )
    except SwitchRefused as error:
        fail(str(error), code=2)
    if as_json:
        print_json({**vars(found), "off": [vars(one) for one in found.off]})
    else:
        state = f"[red]{action} is off[/]" if is_off else f"[green]{action} is on[/]"
        already = "" if found.changed else ", as it was"
        console.print(f"{state} for everyone{already}; off now: {_names(found.off)}", highlight=False)
        followers = f"confirmed by {', '.join(found.confirmed)} ({found.after_s:.1f} s)"
        said = followers if found.confirmed else "no release runs now: it holds from their start"
        console.print(said, highlight=False, soft_wrap=True)
    if found.silent:
        fail(f"not confirmed by {', '.join(found.silent)}: see its log under {home.processes}")


def _names(off: object) -> str:
    return ", ".join(one.action for one in off) if isinstance(off, tuple) and off else "nothing"

"""`trimtab throttle`: how many requests a second the canary, or all users together, may make; lift it, show it."""

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
    speaker,
)

VARIANT = typer.Argument(help="canary (stable answers what is over the limit) or users (429 over it).")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Limit the traffic of the canary, or of all users.")
    group.command("set")(set_limit)
    group.command("lift")(lift_limit)
    group.command("show")(show_limits)
    app.add_typer(group, name="throttle")


def set_limit(
    variant: str = VARIANT,
    rate: str = typer.Argument(help="Requests with their unit: 20/s, 600/m."),
    reason: str = REASON_OPTION,
    by: str = BY_OPTION,
    service: str = SERVICE_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Let no more than this through, from within a second on.

    canary: stable answers the rest, which is no evidence; a rollout whose canary misses its share of units holds.
    users: the rest is answered 429 with retry-after, whoever would have decided.

    Example: trimtab throttle set canary 20/s --reason 'its database is slow'
    """
    from policies.language.quantities import per_second_of

    try:
        per_s = per_second_of(rate)
    except ValueError as error:
        fail(f"'rate' {error}", code=2)
    if per_s <= 0:
        fail(f"'rate' must be > 0: {rate}; `trimtab kill` takes the canary out", code=2)
    _throttle(variant, per_s, reason, by, service, name, as_json=as_json)


def lift_limit(
    variant: str = VARIANT,
    reason: str = REASON_OPTION,
    by: str = BY_OPTION,
    service: str = SERVICE_OPTION,
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Take the limit away.

    Example: trimtab throttle lift canary --reason 'its database is well again'
    """
    _throttle(variant, None, reason, by, service, name, as_json=as_json)


def show_limits(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """The limits, and whether the proxy has them.

    Example: trimtab throttle show --json
    """
    from services.control.throttling import in_force
    from services.traffic.throttle import read_throttle

    home, _ = open_records(name)
    limits = read_throttle(home)
    has_them = in_force(home, limits)
    if as_json:
        print_json({**vars(limits), "in_force": has_them})
        return
    for variant, per_s in (("canary", limits.canary_per_s), ("users", limits.users_per_s)):
        console.print(f"{variant}: {_rate(per_s)}", highlight=False)
    if not has_them:
        fail("the proxy does not answer" if has_them is None else "the proxy has other limits: `trimtab up`")


def _throttle(
    variant: str, per_s: float | None, reason: str, by: str | None, service: str, name: str, *, as_json: bool
) -> None:
    from services.control.throttling import throttle

    if variant not in ("canary", "users"):
        fail(f"'variant' must be canary or users: {variant!r}", code=2)
    home, db = open_records(name)
    found = throttle(
        db,
        home,
        service=service,
        variant=variant,  # type: ignore[arg-type]  # checked above
        per_s=per_s,
        by=speaker(by),
        reason=reason,
        at=time.time(),
    )
    if as_json:
        print_json({**vars(found.limits), "changed": found.changed, "in_force": found.in_force})
    else:
        already = "" if found.changed else ", as it was"
        console.print(f"{variant}: {_rate(per_s)}{already}", highlight=False)
    if found.in_force is False:
        fail("the proxy has not taken it: see its log, and `trimtab throttle show`")
    if found.in_force is None and not as_json:
        console.print("the proxy does not answer; it holds from its start")


def _rate(per_s: float | None) -> str:
    return "no limit" if per_s is None else f"at most {per_s:g} a second"

"""What operators do to a rollout: `rollout start|resume`, `status`, `promote`, `hold`, `resume`, `abort`, `kill`.

Orders are written to the store and taken by the conductor at its next poll. `status` and `kill` need neither Prefect,
the control service nor the conductor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from flows.commands.export_history import export_history
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

if TYPE_CHECKING:
    from services.home import Home
    from services.store.database import Database
    from services.store.orders import Order

EXIT_NOT_PROMOTED = 3
ORDER_WAIT_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rollouts = typer.Typer(no_args_is_help=True, help="Start a rollout, or take up one whose conductor died.")
    rollouts.command("start")(start)
    rollouts.command("resume")(take_up)
    rollouts.command("export-history")(export_history)
    app.add_typer(rollouts, name="rollout")
    app.command("status")(status)
    for verb, says, why in (
        (
            "promote",
            "Pass the current stage on your own responsibility.",
            "seen the report, numbers are fine",
        ),
        (
            "hold",
            "Let nothing advance until `resume`; rollbacks stay armed.",
            "the owner wants to see the report",
        ),
        ("resume", "Go on after a hold; the stage bakes again.", "the owner agrees"),
        ("abort", "Roll back now.", "not worth the wait"),
    ):
        app.command(verb, help=f"{says}\n\nExample: trimtab {verb} --reason '{why}'")(_order(verb))
    app.command("kill")(kill)


def start(
    release: str = typer.Option(..., "--release", help="The candidate: a release id under releases/."),
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    without_prefect: bool = typer.Option(
        False, "--without-prefect", help="Conduct it without Prefect's API."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Roll out a release that is already there, against the stable one, by the policies frozen in it.

    Needs `trimtab up` and traffic. An unfinished rollout of the same release is taken up again.

    Example: trimtab rollout start --release telemarketing-0123456789ab
    """
    from flows.system import is_up, make_world, stable_release
    from flows.wiring import locate_home, open_store
    from services.rollout.new_rollout import begin_rollout
    from services.serving.release import ReleaseError, find_release
    from services.signing.keys import SignatureError
    from services.signing.release_signature import verify_in_home
    from services.store import rollouts

    home = locate_home(name)
    champion = stable_release(home)
    if champion is None:
        fail(f"there is no stable release in {home.root} to challenge: `trimtab run` makes the first one")
    if release == champion:
        fail(f"{release} is the stable release already")
    if not (home.releases / release).is_dir():
        known = ", ".join(sorted(path.name for path in home.releases.glob("*-*"))) or "none"
        fail(f"no release {release!r} in {home.releases}; there are: {known}")
    try:
        candidate = find_release(home.releases, release)
        verify_in_home(candidate, home)
    except (ReleaseError, SignatureError) as error:
        fail(str(error))
    if candidate.service != service:
        fail(f"{release} is a release of {candidate.service!r}: say --service {candidate.service}")
    db = open_store(home)
    active = rollouts.active(db, service)
    if active is not None and active.candidate != release:
        fail(f"rollout {active.id} of {active.candidate} is not over; `trimtab status` shows it")
    if not is_up(home):  # before it is on record: nobody could conduct it
        fail("the system is down: `trimtab up` first")
    record = active or begin_rollout(
        make_world(home, db),
        service=service,
        champion=champion,
        candidate=release,
        policy_text=(candidate.folder / "rollout.yaml").read_text(encoding="utf-8"),
        utility_text=(candidate.folder / "utility.yaml").read_text(encoding="utf-8"),
    )
    _conduct(name, record.id, resumed=active is not None, with_prefect=not without_prefect, as_json=as_json)


def take_up(
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    without_prefect: bool = typer.Option(
        False, "--without-prefect", help="Conduct it without Prefect's API."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Take up the rollout whose conductor died: it goes on where the record stands.

    Of one that has ended, the stage reports that its conductor did not come to write are written.

    Example: trimtab rollout resume
    """
    from services.store import rollouts

    home, db = open_records(name)
    record = rollouts.active(db, service)
    if record is None:
        _report_late(home, db, service, as_json=as_json)
        return
    _conduct(name, record.id, resumed=True, with_prefect=not without_prefect, as_json=as_json)


def _report_late(home: Home, db: Database, service: str, *, as_json: bool) -> None:
    """Write what the last rollout's reports lack; where nothing is lacking, there is nothing to take up."""
    from flows.conduct_rollout import write_missing_reports
    from flows.system import make_world
    from services.store import rollouts

    newest = next(iter(rollouts.recent(db, service, limit=1)), None)
    stages = () if newest is None else write_missing_reports(make_world(home, db), newest)
    if newest is None or not stages:
        fail(f"no rollout of {service!r} is under way; `trimtab status` shows the last one")
    if as_json:
        print_json({"rollout": newest.id, "reports_written": list(stages)})
        return
    console.print(f"{newest.id} has ended; reports written of {', '.join(stages)}", highlight=False)


def _conduct(name: str, rollout_id: str, *, resumed: bool, with_prefect: bool, as_json: bool) -> None:
    """Conduct a recorded rollout to its end, with progress; exit status 3 where it was not promoted."""
    from rich.console import Console

    from flows.conduct_rollout import conduct
    from flows.show_progress import ProgressView
    from flows.system import is_up, make_world
    from flows.wiring import locate_home, open_store, use_prefect
    from policies.rollout.rollout_policy import load_rollout
    from policies.rollout.verdict import Verdict
    from services.reports.stage_report import warm_up
    from services.store import rollouts

    home = locate_home(name)
    if not is_up(home):
        fail("the system is down: `trimtab up` first")
    warm_up()
    if with_prefect:
        use_prefect(home)  # it is not waited for: a rollout must be taken up while Prefect is down, too
    db = open_store(home)
    record = rollouts.load(db, rollout_id)
    policy = load_rollout(record.policy_text, f"{rollout_id}/rollout.yaml")
    screen = Console(stderr=True) if as_json else console
    verdicts: list[tuple[Verdict, str]] = []
    with ProgressView(screen, [stage.name for stage in policy.live_stages]) as view:
        view.say(f"rollout {rollout_id}: {record.candidate} challenges {record.champion}")

        def conclude(verdict: Verdict, report: str) -> None:
            verdicts.append((verdict, report))
            view.conclude(verdict)

        phase = conduct(
            make_world(home, db),
            record,
            view,
            on_verdict=conclude,
            resumed=resumed,
            with_prefect=with_prefect,
        )
        view.say(f"[bold]{phase}[/]: {record.candidate}")
    if as_json:
        found = [{**verdict.to_json(), "report": report} for verdict, report in verdicts]
        print_json({"rollout": rollout_id, "phase": phase, "verdicts": found})
    if phase != "promoted":
        raise SystemExit(EXIT_NOT_PROMOTED)


def status(
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    watch: bool = typer.Option(False, "--watch", "-w", help="Look again every second until Ctrl-C."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Who serves whom, the rollout under way, its weight as Envoy has it, and why it holds. Needs no Prefect.

    Example: trimtab status --watch
    """
    from rich.live import Live

    from flows.system_status import render_status, system_status
    from flows.wiring import locate_home

    home = locate_home(name)
    if as_json:
        print_json(system_status(home, service))
        return
    if not watch:
        console.print(render_status(system_status(home, service)))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(render_status(system_status(home, service)), refresh=True)
            time.sleep(1.0)


def kill(
    reason: str = REASON_OPTION,
    by: str = BY_OPTION,
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """The kill switch: weight 0 within 2 s, the rollout frozen for good. Needs neither Prefect nor a conductor.

    Afterwards only `trimtab abort` goes on: it ends the rollout as rolled back.

    Example: trimtab kill --reason 'customers complain'
    """
    import logging

    logging.getLogger("services.control.kill").addHandler(logging.NullHandler())  # said below, for people
    from services.control.kill import kill as revoke

    home, db = open_records(name)
    found = revoke(db, by=speaker(by), reason=reason, at=time.time(), service=service)
    weight_pct = _weight_within(home, 0.0, wait_s=ORDER_WAIT_S) if found else None
    late = {one.rollout_id: why for one in found if (why := _came_too_late(db, one.rollout_id))}
    if as_json:
        killed = [one.rollout_id for one in found if one.rollout_id not in late]
        print_json({"killed": killed, "weight_pct": weight_pct, "too_late": late})
        return
    if not found:
        console.print(f"no rollout of {service!r} is under way; nothing to kill", highlight=False)
    for rollout_id, why in late.items():
        console.print(f"[red]not killed[/] {rollout_id}: {escape(why)}", highlight=False)
    for one in found:
        if one.rollout_id in late:
            continue
        read = "not read back: Envoy does not answer" if weight_pct is None else f"{weight_pct:g} % at Envoy"
        console.print(
            f"[red]killed[/] {one.rollout_id}: canary weight {read}; `trimtab abort` ends it", highlight=False
        )


def _came_too_late(db: Database, rollout_id: str) -> str | None:
    """Why a kill changed nothing: the last stage was passed and the old release has left stable. None: it did."""
    from services.ledger.ledger import latest
    from services.store import rollouts

    deadline = time.monotonic() + ORDER_WAIT_S
    while True:
        record = rollouts.load(db, rollout_id)
        state = record.state["state"]
        if not isinstance(state, dict) or state["phase"] != "promoted":
            return None
        if record.ended_at is not None:
            refused = latest(db, rollout_id, "order_refused")
            return "the rollout has ended, promoted" if refused is None else str(refused.body["why"])
        if time.monotonic() >= deadline:
            return (
                "it has passed its last stage; whether it can be called back shows `trimtab rollout resume`"
            )
        time.sleep(0.2)


def _weight_within(home: Home, wanted_pct: float, *, wait_s: float) -> float | None:
    """The canary's weight as Envoy has it, once it is `wanted_pct` or the wait is over; None: no answer."""
    from services.traffic.admin import EnvoyAdmin
    from services.traffic.errors import TrafficError

    deadline, seen = time.monotonic() + wait_s, None
    while True:
        try:
            seen = EnvoyAdmin(home).weight_pct()
        except TrafficError:
            seen = None
        if seen == wanted_pct or time.monotonic() >= deadline:
            return seen
        time.sleep(0.1)


def _is_taken(db: Database, given: Order) -> bool:
    from services.store import orders

    return all(one.id != given.id for one in orders.open_orders(db, given.rollout_id))


def _refusal(db: Database, given: Order, verb: str) -> str | None:
    """Why the conductor refused this order, from the ledger; None: it was carried out."""
    from services.ledger.ledger import latest

    entry = latest(db, given.rollout_id, "order_refused")
    if entry is None or entry.at < given.at or entry.body["verb"] != verb:
        return None
    return str(entry.body["why"])


def _order(verb: str) -> Callable[..., None]:
    """The command that gives one order to the rollout under way and waits until the conductor has taken it."""

    def give(
        reason: str = REASON_OPTION,
        by: str = BY_OPTION,
        name: str = HOME_OPTION,
        service: str = SERVICE_OPTION,
        as_json: bool = JSON_OPTION,
    ) -> None:
        from services.store import orders, rollouts

        _, db = open_records(name)
        record = rollouts.active(db, service)
        if record is None:
            fail(f"no rollout of {service!r} is under way; `trimtab status` shows the last one")
        given = orders.give(
            db, rollout_id=record.id, verb=verb, by=speaker(by), reason=reason, at=time.time()
        )
        deadline = time.monotonic() + ORDER_WAIT_S
        while not (taken := _is_taken(db, given)) and time.monotonic() < deadline:
            time.sleep(0.2)
        refused = _refusal(db, given, verb) if taken else None
        if as_json:
            print_json({"rollout": record.id, "order": verb, "taken": taken, "refused": refused})
        if not taken and rollouts.active(db, service) is None:
            fail(f"{verb}: it came too late, {record.id} has ended; `trimtab status` shows how")
        if refused is not None:
            fail(f"{verb}: refused by the conductor of {record.id}: {refused}")
        if as_json:
            return
        if taken:
            console.print(
                f"{verb}: taken by the conductor of {record.id}; `trimtab status` shows it", highlight=False
            )
        else:
            console.print(
                f"{verb}: on record for {record.id}, but nobody conducts it; `trimtab rollout resume` takes it up",
                highlight=False,
            )

    return give

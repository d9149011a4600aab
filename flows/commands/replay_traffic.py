"""`trimtab traffic replay`: send recorded rows as live requests, outcomes later; a tool for rehearsals."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from flows.commands.output import HOME_OPTION, JSON_OPTION, SERVICE_OPTION, console, fail, print_json

WATCH_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    traffic = typer.Typer(no_args_is_help=True, help="Rehearse with recorded traffic.")
    traffic.command("replay")(replay)
    app.add_typer(traffic, name="traffic")


def replay(
    rows: Path = typer.Option(
        None, "--rows", help="Your own rows, Parquet or CSV; default: the bank's calls."
    ),
    start: float = typer.Option(
        0.6, "--from", min=0.0, max=1.0, help="First row, as a share of the rows in time."
    ),
    stop: float = typer.Option(
        1.0, "--to", min=0.0, max=1.0, help="Last row, as a share of the rows in time."
    ),
    rate: float = typer.Option(200.0, "--rate", min=0.1, help="Requests a second."),
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send each row once through Envoy, in the order of time, and post the outcomes of the calls 4 s later.

    Exit status 1 if a user request failed or an outcome could not be posted.

    Example: trimtab traffic replay --from 0.6 --rate 200
    """
    from flows.read_rows import read_rows
    from flows.system import is_up
    from flows.wiring import locate_home
    from services.data.splits import by_event_time
    from services.rehearsal.replay_process import ReplayProcess
    from services.rollout.policy_set import load_policies

    home = locate_home(name)
    if not is_up(home):
        fail("the system is down: `trimtab up` first")
    if not start < stop:
        fail(f"'--from' must be < '--to': {start} and {stop}")
    policies = load_policies(service)
    delivered = read_rows(rows, policies.contract)
    chosen = by_event_time(delivered, policies.contract, start=start, stop=stop)
    with ReplayProcess(home, policies, chosen, rate_per_s=rate) as process:
        process.start()
        while process.is_running():
            time.sleep(WATCH_EVERY_S)
            if not as_json:
                console.print(process.line(), highlight=False, soft_wrap=True)
        summary = process.finish()
    if summary is None:
        fail(f"the replay did not start; its output: {home.root / 'replay' / 'replay.log'}")
    if as_json:
        print_json(vars(summary))
    else:
        console.print(f"failed user requests: {summary.failed} of {summary.sent}", highlight=False)
    if summary.failed or summary.outcomes_waiting:
        raise SystemExit(1)

"""`trimtab drill`: rehearse a candidate that is bad on purpose; the policy rolls it back, unfelt by users."""

from __future__ import annotations

import time

import typer

from flows.commands.output import JSON_OPTION, SERVICE_OPTION, console, print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    drills = typer.Typer(
        no_args_is_help=True,
        help="Rehearse a bad candidate at 50 % of 150 requests a second, on ports and state of its own.",
    )
    for name, says in (
        ("harmful", "Its decisions lose money: it calls everybody."),
        ("erroring", "It answers 500."),
        ("nan", "Its scores are NaN."),
        ("slow", "It answers after 400 ms."),
    ):
        drills.command(name, help=f"{says}\n\nExit status 0: rolled back, no failed user request.")(
            _drill(name)
        )
    app.add_typer(drills, name="drill")


def _drill(kind: str):  # type: ignore[no-untyped-def]
    def drill(service: str = SERVICE_OPTION, as_json: bool = JSON_OPTION) -> None:
        from rich.console import Console

        from flows.drill import Drilling
        from flows.show_progress import ProgressView, gate_table
        from flows.system import take_down
        from flows.wiring import archive_home, locate_home
        from services.rehearsal.drill_releases import DRILLS

        home = locate_home(f"drill-{kind}", offset=50 * (1 + list(DRILLS).index(kind)))
        take_down(home)
        archive_home(home, time.time())
        screen = Console(stderr=True) if as_json else console
        with ProgressView(screen, ["shadow", "canary-50", "full", "probation"]) as view:
            try:
                found = Drilling(home, view, service=service, drill=DRILLS[kind]).run()
            finally:
                take_down(home)
        if as_json:
            print_json(found.to_json())
        else:
            if found.verdict is not None:
                console.print(f"\nledger: {found.verdict.sentence()}", highlight=False, soft_wrap=True)
                console.print(gate_table(found.verdict.gates))
            console.print(f"state and ledger: {home.root}", highlight=False, soft_wrap=True)
            console.print(f"failed user requests: {found.failed} of {found.sent}", highlight=False)
            colour = "green" if found.passed else "red"
            console.print(f"[{colour}]drill {kind}: {found.phase}[/]", highlight=False)
        if not found.passed:
            raise SystemExit(1)

    return drill

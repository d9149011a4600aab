"""`trimtab run`: the main job, from nothing to a promoted canary."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer

from flows.commands.output import JSON_OPTION, PIPE_WIDTH, SERVICE_OPTION, console, fail, print_json

EXIT_NOT_PROMOTED = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    service: str = SERVICE_OPTION,
    rows: Path = typer.Option(
        None, "--rows", help="Your own rows, Parquet or CSV; default: the bank's calls."
    ),
    rate: float = typer.Option(200.0, help="Replayed requests a second."),
    keep_up: bool = typer.Option(False, "--keep-up", help="Leave the system running afterwards."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Run the main job: contract, training, alignment, release, shadow, canaries, full, probation.

    Starts from an empty state directory (an earlier one is moved to .trimtab/archive). Exit status 0 means promoted,
    3 that the policy held or rolled back and said why.

    Example: trimtab run --keep-up, or trimtab run --service credit --rows loans.parquet
    """
    from rich.console import Console

    from flows.closing_table import closing_json, print_closing
    from flows.main_job import MainJob
    from flows.read_rows import read_rows
    from flows.show_progress import ProgressView
    from flows.system import is_up, take_down
    from flows.wiring import archive_home, locate_home
    from services.rollout.policy_set import load_policies
    from services.rollout.release_job import StageRefused

    home = locate_home()
    if is_up(home):
        fail("the system is up and in use; `trimtab down` first, then run")
    started = time.time()
    policies = load_policies(service)
    if rows is not None:
        read_rows(rows, policies.contract)  # what is wrong with the file is said before anything is moved
    archived = archive_home(home, started)
    screen = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH) if as_json else console
    stages = [stage.name for stage in policies.rollout.stages]
    with ProgressView(screen, stages) as view:
        if archived is not None:
            view.say(f"[dim]the last run's state was moved to {archived}[/]")
        job = MainJob(home, view, service=service, rate_per_s=rate, rows=rows)
        try:
            result = job.run()
        except StageRefused:
            result = job.result
            result.phase = "refused"
        finally:
            if not keep_up:
                take_down(home)
    if as_json:
        print_json(closing_json(home, result, took_s=time.time() - started))
    else:
        print_closing(screen, home, result, took_s=time.time() - started, is_up=keep_up)
    if result.phase != "promoted":
        raise SystemExit(EXIT_NOT_PROMOTED)

"""`trimtab schedule`: register retraining and retention with cron schedules at Prefect's API, and serve their runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from flows.commands.output import HOME_OPTION, SERVICE_OPTION, console, fail
from flows.commands.retention_group import kept_of

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

RETAIN_CRON = "0 3 * * *"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schedule")(schedule)


def schedule(
    cron: str = typer.Option("0 6 * * 1", "--cron", help="When to retrain; five fields, UTC."),
    stop: float = typer.Option(0.6, "--to", help="Train on the rows up to this share of them in time."),
    rows: Path = typer.Option(
        None, "--rows", help="Your own rows, Parquet or CSV; default: the bank's calls."
    ),
    older_than: str = typer.Option(
        None,
        "--older-than",
        help="Also every night at three: `trimtab retention run` with this, e.g. 90d; default: not scheduled.",
    ),
    logs_older_than: str = typer.Option("7d", "--logs-older-than", help="As of `trimtab retention run`."),
    erase_after: str = typer.Option(None, "--erase-after", help="As of `trimtab retention run`."),
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
) -> None:
    """Register a deployment of the release flow with a cron schedule and serve its runs until Ctrl-C.

    One run at a time; the schedule and every run show in Prefect's UI. Needs `trimtab up`.

    Example: trimtab schedule --cron '0 6 * * 1' --older-than 90d
    """
    from flows.system import is_up, wait_for_prefect
    from flows.wiring import locate_home, prefect_url, use_prefect

    if older_than is not None:
        kept_of(older_than, logs_older_than, erase_after)  # refused now, not at three in the morning
    home = locate_home(name)
    if not is_up(home):
        fail("the system is down: `trimtab up` first")
    use_prefect(home)
    wait_for_prefect(home)
    from prefect import serve

    from flows.retain import retain
    from flows.retrain import retrain

    console.print(
        f"serving [bold]retrain-{service}[/] at {prefect_url(home)}, cron '{cron}' (Ctrl-C ends it); run it now with\n"
        f"PREFECT_API_URL={prefect_url(home)} prefect deployment run 'retrain/retrain-{service}'",
        highlight=False,
        soft_wrap=True,
    )
    deployments = [
        retrain.to_deployment(
            name=f"retrain-{service}",
            cron=cron,
            parameters={
                "service": service,
                "home": name,
                "stop": stop,
                "rows": None if rows is None else str(rows.resolve()),
            },
            description="Contract, training, alignment, release; then the rollout against the stable release.",
            tags=["trimtab", service],
            concurrency_limit=1,  # of the deployment: a worker elsewhere waits as well
        )
    ]
    if older_than is not None:
        periods = {"older_than": older_than, "logs_older_than": logs_older_than, "erase_after": erase_after}
        deployments.append(
            retain.to_deployment(
                name=f"retain-{name}",
                cron=RETAIN_CRON,
                parameters={**periods, "home": name},
                description="Old rows to Parquet; shipped logs, and days of Parquet where asked, for good.",
                tags=["trimtab"],
                concurrency_limit=1,
            )
        )
    made = cast("list[RunnerDeployment]", deployments)  # never a coroutine: nothing here is async
    serve(*made, pause_on_shutdown=False, print_starting_message=False, limit=len(made))

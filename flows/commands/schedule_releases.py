"""`trimtab schedule`: register the retraining flow with a cron schedule at Prefect's API, and serve its runs."""

from __future__ import annotations

from pathlib import Path

import typer

from flows.commands.output import HOME_OPTION, SERVICE_OPTION, console, fail


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schedule")(schedule)


def schedule(
    cron: str = typer.Option("0 6 * * 1", "--cron", help="When to retrain; five fields, UTC."),
    stop: float = typer.Option(0.6, "--to", help="Train on the rows up to this share of them in time."),
    rows: Path = typer.Option(
        None, "--rows", help="Your own rows, Parquet or CSV; default: the bank's calls."
    ),
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
) -> None:
    """Register a deployment of the release flow with a cron schedule and serve its runs until Ctrl-C.

    One run at a time; the schedule and every run show in Prefect's UI. Needs `trimtab up`.

    Example: trimtab schedule --cron '0 6 * * 1'
    """
    from flows.system import is_up, wait_for_prefect
    from flows.wiring import locate_home, prefect_url, use_prefect

    home = locate_home(name)
    if not is_up(home):
        fail("the system is down: `trimtab up` first")
    use_prefect(home)
    wait_for_prefect(home)
    from flows.retrain import retrain

    console.print(
        f"serving [bold]retrain-{service}[/] at {prefect_url(home)}, cron '{cron}' (Ctrl-C ends it); run it now with\n"
        f"PREFECT_API_URL={prefect_url(home)} prefect deployment run 'retrain/retrain-{service}'",
        highlight=False,
        soft_wrap=True,
    )
    retrain.serve(
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
        limit=1,
        global_limit=1,  # of the deployment: a worker elsewhere waits as well
        pause_on_shutdown=False,
        print_starting_message=False,
    )

"""`trimtab up`, `down` and `ui`: keep the system running, stop it, open the pages."""

from __future__ import annotations

import os
import subprocess

import typer

from flows.commands.output import HOME_OPTION, JSON_OPTION, console, fail, print_json, print_pairs


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    pages = typer.Typer(no_args_is_help=True, help="Open the pages of Prefect or the stage reports.")
    pages.command("prefect")(ui_prefect)
    pages.command("reports")(ui_reports)
    app.add_typer(pages, name="ui")


def up(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Start Envoy, the stable release, the control service and (unless PREFECT_API_URL names one) Prefect's server.

    They run in the background until `trimtab down`. There must be a stable release: `trimtab run` makes the first one.

    Example: trimtab up && curl -s localhost:8700/decide -H 'x-unit-id: c1' -d @row.json
    """
    from flows.system import addresses, bring_up, stable_release
    from flows.wiring import locate_home
    from services.traffic.supervision import wait_ready

    home = locate_home(name)
    stable = stable_release(home)
    if stable is None:
        fail(f"there is no release in {home.root} yet: `trimtab run` makes the first one")
    say = (lambda text: None) if as_json else (lambda text: console.print(text, highlight=False))
    fresh = bring_up(home, say)
    wait_ready(home, stable, 120.0)
    wait_ready(home, "envoy", 60.0)
    if as_json:
        print_json(
            {"started": fresh, "stable": stable, "addresses": addresses(home), "state": str(home.root)}
        )
        return
    console.print(f"[green]{'up' if fresh else 'already up'}[/]: {stable} serves all users", highlight=False)
    print_pairs({**addresses(home), "token": home.token_file})


def down(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Stop everything that `trimtab up` started, and only that. State stays.

    Example: trimtab down
    """
    from flows.system import take_down
    from flows.wiring import locate_home

    home = locate_home(name)
    was_up = take_down(home)
    if as_json:
        print_json({"stopped": was_up, "state": str(home.root)})
        return
    console.print("down" if was_up else "nothing was up", highlight=False)


def ui_prefect(name: str = HOME_OPTION) -> None:
    """Say where Prefect's own pages are (flows, schedules, artifacts)."""
    from flows.wiring import locate_home, prefect_url

    home = locate_home(name)
    console.print(f"{prefect_url(home).removesuffix('/api')} (while `trimtab up` runs)", highlight=False)


def ui_reports(
    name: str = HOME_OPTION, port: int = typer.Option(0, help="Port to serve on; default: the home's own.")
) -> None:
    """Serve Evidently's own pages over the stage reports until Ctrl-C.

    Example: trimtab ui reports
    """
    from flows.wiring import locate_home
    from services.reports.stage_report import ui_command

    home = locate_home(name)
    if not any(home.reports.glob("*")):
        fail(f"no report in {home.reports} yet: `trimtab run` writes one for every stage")
    port = port or home.ports.reports
    console.print(f"reports: http://127.0.0.1:{port} (ready in about 20 s; Ctrl-C ends it)", highlight=False)
    raise SystemExit(subprocess.call(ui_command(home, port), env={**os.environ, "DO_NOT_TRACK": "1"}))

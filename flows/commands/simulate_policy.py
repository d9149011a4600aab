"""`trimtab policy simulate`: what a rollout policy would do (`--what-if`), or what it would have done (`--history`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    PIPE_WIDTH,
    console,
    fail,
    print_json,
    print_table,
    refuse_policy,
)

if TYPE_CHECKING:
    from policies.rollout.rollout_policy import RolloutPolicy
    from policies.utility.utility import UtilitySpec
    from policies.what_if.simulation import Effect, WhatIf

RUNS = 2000


def simulate(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    what_if: bool = typer.Option(False, "--what-if", help="Monte-Carlo over assumed effects and traffic."),
    history: str = typer.Option(
        None,
        "--history",
        help="Judge again: a file of decisions (.csv, .parquet), the id of a rollout, or `last`.",
    ),
    compare: Path = typer.Option(
        None, "--compare", help="A second rollout.yaml, on the same seeds or the same history."
    ),
    effect: list[str] = typer.Option(
        [], "--effect", help="Own scenario, e.g. 'canary_errors=2%' or 'utility=-0.3'; again for more."
    ),
    baseline: list[str] = typer.Option(
        [],
        "--baseline",
        help="What both releases have, e.g. 'canary_errors=0.2%'; default: what gates expect.",
    ),
    traffic: str = typer.Option(None, "--traffic", help="E.g. 200/s; default: the policy's expectedTraffic."),
    runs: int = typer.Option(RUNS, "--runs", min=1, max=200_000, help="Runs per scenario."),
    seed: int = typer.Option(0, "--seed", min=0, help="The same seed gives the same numbers."),
    out: Path = typer.Option(
        None, "--out", help="Folder for the plot (PNG and HTML) and the numbers (JSON)."
    ),
    home_name: str = HOME_OPTION,
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Try a rollout policy before it decides anything: shares rolled back and promoted, time, exposed units, loss.

    Without --effect the scenarios are the policy's own: as stable, at each tolerance, margin and bound, and beyond.

    Example: trimtab policy simulate telemarketing --what-if --effect utility=-0.6 --out /tmp/what-if

    Example: trimtab policy simulate telemarketing --history history.parquet --compare stricter.yaml
    """
    from flows.commands.simulate_history import simulate_history
    from policies.language.yaml_source import PolicyError
    from services.rollout.policy_set import POLICIES, load_policies

    if what_if == (history is not None):
        fail("say one of --what-if and --history (a file or a rollout)")
    try:
        policies = load_policies(service, folder=folder or POLICIES)
        rivals = [("", policies.rollout)] if compare is None else _both(policies.rollout, compare)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    if history is not None:
        simulate_history(policies, rivals, history, out=out, home_name=home_name, as_json=as_json)
        return
    found = _simulate_all(
        rivals,
        policies.utility,
        effects=effect,
        baseline=baseline,
        traffic=traffic,
        runs=runs,
        seed=seed,
        is_quiet=as_json,
    )
    unit = policies.utility.unit
    if as_json:
        print_json([{"policy_file": name or "rollout.yaml", **one.to_json()} for name, one in found])
    else:
        _print(service, found, unit=unit)
    if out is not None:
        _write(service, found, out, unit=unit, is_quiet=as_json)


def _both(first: RolloutPolicy, path: Path) -> list[tuple[str, RolloutPolicy]]:
    from policies.rollout.rollout_policy import load_rollout

    if not path.is_file():
        fail(f"no rollout policy in {path}")
    return [("rollout.yaml", first), (path.name, load_rollout(path.read_text(encoding="utf-8"), str(path)))]


def _simulate_all(
    rivals: Sequence[tuple[str, RolloutPolicy]],
    utility: UtilitySpec,
    *,
    effects: Sequence[str],
    baseline: Sequence[str],
    traffic: str | None,
    runs: int,
    seed: int,
    is_quiet: bool,
) -> list[tuple[str, WhatIf]]:
    """Every scenario under every policy, scenario by scenario, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from policies.language.quantities import per_second_of
    from policies.what_if.scenarios import baseline_of, effects_from, rates_from, scenarios_of
    from policies.what_if.simulation import AssumptionError, Settings
    from policies.what_if.simulation import simulate as run

    try:
        per_s = None if traffic is None else per_second_of(traffic)
    except ValueError as error:
        fail(f"'--traffic' {error}")
    if per_s == 0:
        fail(f"'--traffic' must be more than nothing: {traffic}")
    settings = Settings(runs=runs, seed=seed, requests_per_s=per_s)
    first = rivals[0][1]
    base = baseline_of(first, utility.range, rates=rates_from(baseline))
    wanted: Sequence[Effect] = effects_from(effects, base) if effects else scenarios_of(first, base)
    found = []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, width=None if console.is_terminal else PIPE_WIDTH),
        transient=True,
        disable=is_quiet,
    )
    with bar:
        for one in wanted:
            for name, policy in rivals:
                task = bar.add_task(f"{one.name} {name}".strip(), total=1.0)
                try:
                    result = run(
                        policy,
                        one,
                        settings,
                        progress=lambda share, task=task: bar.update(task, completed=share),  # type: ignore[misc]
                    )
                except AssumptionError as error:
                    fail(f"scenario {one.name!r}: {error}")
                found.append((name, result))
                bar.remove_task(task)
    return found


def _print(service: str, found: Sequence[tuple[str, WhatIf]], *, unit: str) -> None:
    first = found[0][1]
    title = f"{service}: {first.runs:,} runs a scenario, {first.requests_per_s:g} requests a second"
    header = ["scenario", "rolled back", "promoted", "inconclusive", "waits", "median", "90 %"]
    header += ["units", f"{unit} lost", "most often"]
    print_table(title, header, [_row(name, one) for name, one in found])
    console.print(
        "[dim]inconclusive: rolled back because nothing was shown in the longest bake; waits: for a person. "
        "Units: served by the candidate until the decision, mean. Below 0 lost: gained.[/]",
        soft_wrap=True,
    )
    if first.assumed:
        console.print(
            f"[yellow]taken to pass[/]: {', '.join(first.assumed)} (nothing assumed of the metric, or no simulation)",
            highlight=False,
            soft_wrap=True,
        )


def _name(one: WhatIf, policy_file: str) -> str:
    """The scenario, and the policy where there are two."""
    return f"{one.effect} ({policy_file})" if policy_file else one.effect


def _row(name: str, one: WhatIf) -> tuple[str, ...]:
    from policies.what_if.result import OUTCOMES, lasting

    shares = (
        f"{100 * one.share(outcome):.1f} ±{100 * one.standard_error(outcome):.1f} %" for outcome in OUTCOMES
    )
    ending = one.endings[0]
    by = f" by {ending.gate}" if ending.gate else ""
    lost = "–" if one.lost is None else f"{one.lost:,.0f}"
    return (
        _name(one, name),
        *shares,
        lasting(one.time_to(0.5) or 0.0),
        lasting(one.time_to(0.9) or 0.0),
        f"{one.exposed_mean:,.0f}",
        lost,
        f"{ending.reason.value}{by} in {ending.stage}",
    )


def _write(
    service: str, found: Sequence[tuple[str, WhatIf]], out: Path, *, unit: str, is_quiet: bool
) -> None:
    import json

    from services.reports.what_if_plot import write_html, write_png

    out.mkdir(parents=True, exist_ok=True)
    titled = [(_name(one, name), one) for name, one in found]
    write_png(out / "what-if.png", titled, service=service, unit=unit)
    write_html(out / "what-if.html", titled, service=service, unit=unit)
    (out / "what-if.json").write_text(
        json.dumps(
            [{"policy_file": name or "rollout.yaml", **one.to_json()} for name, one in found], indent=2
        ),
        encoding="utf-8",
    )
    if not is_quiet:
        console.print(
            f"written: {out}/what-if.png, what-if.html, what-if.json", highlight=False, soft_wrap=True
        )

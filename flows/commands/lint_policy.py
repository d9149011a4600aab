"""`trimtab policy lint`: check the policy files of a decision service, offline, before anything runs by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from flows.commands.output import JSON_OPTION, console, print_json, print_table, refuse_policy

if TYPE_CHECKING:
    from policies.rollout.planning import Plan
    from policies.rollout.rollout_policy import RolloutPolicy


def lint(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    is_strict: bool = typer.Option(False, "--strict", help="Warnings, too, give exit status 1."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Name every mistake in contract.yaml, utility.yaml and rollout.yaml, as file:line:column. Exit status 1 if any.

    Then say how long each gate needs in each stage, at the traffic that rollout.yaml expects.

    Example: trimtab policy lint telemarketing
    """
    from datetime import UTC, datetime

    from policies.language.yaml_source import PolicyError
    from policies.rollout.planning import plan_rollout
    from services.rollout.policy_set import POLICIES, lint_warnings, load_policies

    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json, more={"warnings": [], "plan": []})
    warnings = lint_warnings(policies, today=datetime.now(UTC).date())
    plans = plan_rollout(policies.rollout, policies.utility.range)
    is_ok = not (is_strict and warnings)
    if as_json:
        found = [vars(issue) for issue in warnings]
        print_json({"ok": is_ok, "issues": [], "warnings": found, "plan": [plan.to_json() for plan in plans]})
        raise SystemExit(0 if is_ok else 1)
    for issue in warnings:
        console.print(f"[yellow]warning[/]  {escape(str(issue))}", highlight=False, soft_wrap=True)
    _print_plans(policies.rollout, plans)
    if not is_ok:
        raise SystemExit(1)
    digests = f"contract {policies.contract.digest[:19]}, utility {policies.utility.digest[:19]}"
    console.print(
        f"[green]ok[/]: {service}: {len(policies.rollout.stages)} stages, "
        f"{len(policies.rollout.live_gates)} live gates; {digests}, rollout {policies.rollout.digest[:19]}",
        highlight=False,
        soft_wrap=True,
    )


def _print_plans(policy: RolloutPolicy, plans: Sequence[Plan]) -> None:
    """How long each required gate needs: the median for a candidate as good as stable."""
    from policies.language.quantities import about

    print_table(
        "How long each gate needs to pass a candidate as good as stable, at "
        f"{policy.expected_requests_per_s:g} requests a second (the median; nine in ten are through in twice the time)",
        ("stage", "weight", "gate", "units", "about", "longest bake"),
        [
            (
                plan.stage,
                _weight(policy.stage(plan.stage).weight_pct),
                plan.gate,
                f"{plan.units:,.0f}",
                about(plan.seconds),
                about(plan.longest_s),
            )
            for plan in plans
        ],
    )


def _weight(weight_pct: float | None) -> str:
    return "" if weight_pct is None else f"{weight_pct:g}%"

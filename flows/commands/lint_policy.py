"""`trimtab policy lint`: check the policy files of a decision service, offline, before anything runs by them."""

from __future__ import annotations

from pathlib import Path

import typer

from flows.commands.output import JSON_OPTION, console, print_json
from flows.commands.test_policy import run_tests


def register(app: typer.Typer) -> None:
    """Add the commands."""
    policy = typer.Typer(
        no_args_is_help=True, help="Policy files: the contract, the utility and the rollout."
    )
    policy.command("lint")(lint)
    policy.command("test")(run_tests)
    app.add_typer(policy, name="policy")


def lint(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Name every mistake in contract.yaml, utility.yaml and rollout.yaml, as file:line:column. Exit status 1 if any.

    Example: trimtab policy lint telemarketing
    """
    from datetime import UTC, datetime

    from policies.yaml_source import PolicyError
    from services.rollout.policy_set import POLICIES, lint_warnings, load_policies

    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        if as_json:
            print_json({"ok": False, "issues": [vars(issue) for issue in error.issues], "warnings": []})
        else:
            for issue in error.issues:
                console.print(f"[red]error[/]  {issue}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    warnings = lint_warnings(policies, today=datetime.now(UTC).date())
    if as_json:
        print_json({"ok": True, "issues": [], "warnings": [vars(issue) for issue in warnings]})
        return
    for issue in warnings:
        console.print(f"[yellow]warning[/]  {issue}", highlight=False, soft_wrap=True)
    digests = f"contract {policies.contract.digest[:19]}, utility {policies.utility.digest[:19]}"
    console.print(
        f"[green]ok[/]: {service}: {len(policies.rollout.stages)} stages, "
        f"{len(policies.rollout.live_gates)} live gates; {digests}, rollout {policies.rollout.digest[:19]}",
        highlight=False,
        soft_wrap=True,
    )

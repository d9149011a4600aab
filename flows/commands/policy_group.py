"""`trimtab policy …`: check, explain, test and try a decision service's policy files before anything runs by them."""

from __future__ import annotations

import typer

from flows.commands.explain_policy import explain_policy
from flows.commands.lint_policy import lint
from flows.commands.publish_schemas import publish_schemas
from flows.commands.simulate_policy import simulate
from flows.commands.test_policy import run_tests


def register(app: typer.Typer) -> None:
    """Add the commands."""
    policy = typer.Typer(
        no_args_is_help=True, help="Policy files: the contract, the utility and the rollout."
    )
    policy.command("lint")(lint)
    policy.command("explain")(explain_policy)
    policy.command("test")(run_tests)
    policy.command("simulate")(simulate)
    policy.command("schema")(publish_schemas)
    app.add_typer(policy, name="policy")

"""`trimtab utility …`: what a decision service's utility spec means, and how much rests on its numbers."""

from __future__ import annotations

import typer

from flows.commands.explain_utility import explain_utility
from flows.commands.reestimate_quantities import reestimate_quantities
from flows.commands.study_sensitivity import study_sensitivity


def register(app: typer.Typer) -> None:
    """Add the commands."""
    utility = typer.Typer(no_args_is_help=True, help="The utility spec: what it means and what rests on it.")
    utility.command("explain")(explain_utility)
    utility.command("sensitivity")(study_sensitivity)
    utility.command("reestimate")(reestimate_quantities)
    app.add_typer(utility, name="utility")

"""Payoffs over what is known only after the decision: what the three policy files must agree on, and what to look at.

Must never import: torch, Prefect, anything that reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from policies.language.quantities import duration_text
from policies.language.yaml_source import Document, Issue
from policies.utility.utility import UtilitySpec
from services.data.contract import DataContract

if TYPE_CHECKING:
    from services.rollout.policy_set import PolicySet


def amounts_after_the_label(
    contract: DataContract, utility: UtilitySpec, document: Document
) -> Iterator[Issue]:
    """An amount that is still out when the label counts as known; `document` is that of contract.yaml.

    The young rows whose outcome needs the amount would be left out of training, those of the other outcomes would
    stay: base rates that nobody meets.
    """
    late = [name for name in utility.hidden if name in contract.payoff_names]
    for at, column in enumerate(contract.columns):
        if column.name in late and column.available_at_s > contract.label_delay_s:
            properties = ("schema", 0, "properties", at, "customProperties")
            names = [one["property"] for one in document.data["schema"][0]["properties"][at][properties[-1]]]
            yield document.issue(
                (*properties, names.index("availableAt"), "value"),
                f"availableAt of '{column.name}' must be <= the label's labelDelay, "
                f"{duration_text(contract.label_delay_s)}: {duration_text(column.available_at_s)}; utility.yaml prices "
                "with it, and between the two a row's outcome would be known and its payoff not. Raise labelDelay",
            )


def known_later(policies: PolicySet, document: Document) -> Iterator[Issue]:
    """Payoffs that read what is known only after the decision; `document` is that of utility.yaml."""
    for at, stakeholder in enumerate(policies.utility.stakeholders):
        for action, row in zip(policies.utility.actions, stakeholder.payoffs, strict=True):
            for name in policies.utility.hidden:
                if any(name in cell.fields for cell in row):
                    yield document.issue(
                        ("stakeholders", at, "payoffs", action), _late(policies, name), of_key=True
                    )


def _late(policies: PolicySet, name: str) -> str:
    after_s, maturity_s = policies.contract.column(name).available_at_s, policies.rollout.maturity_s
    text = (
        f"reads '{name}', known only {duration_text(after_s)} after the decision: releases decide on their prediction "
        f"of it; live, a decision whose payoff reads it counts once the amount '{name}' has come with its outcome, "
        "within the maturity"
    )
    if maturity_s >= after_s:
        return text
    return (
        f"{text}. That is {duration_text(maturity_s)} in rollout.yaml, shorter than the amount takes: but for a "
        "rehearsal, which replays faster than life, utility would be judged without such decisions"
    )

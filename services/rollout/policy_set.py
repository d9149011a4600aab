"""The three policy files of a decision service, read from its folder, checked, with the texts that a release freezes.

Reading files is the services' work; what stands in them is judged by the pure loaders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from policies.rollout_policy import RolloutPolicy, load_rollout
from policies.utility import UtilitySpec, load_utility
from policies.utility_file import unknown_fields
from policies.yaml_source import Document, Issue, PolicyError, load_document
from services.data.contract import DataContract, load_contract

POLICIES = Path(__file__).resolve().parents[2] / "policies"
FILES = ("contract.yaml", "utility.yaml", "rollout.yaml")


class PolicyFolderError(ValueError):
    """There is no such decision service, or a file of it is missing; the text says what there is."""


@dataclass(frozen=True)
class PolicySet:
    """A decision service's policies, parsed, and their texts by file name."""

    service: str
    contract: DataContract
    utility: UtilitySpec
    rollout: RolloutPolicy
    texts: Mapping[str, str]


def load_policies(service: str, *, folder: Path = POLICIES) -> PolicySet:
    """Read and check `<folder>/<service>/*.yaml`.

    Raises PolicyError with the mistakes of all three files, each with its place, and PolicyFolderError.
    """
    home = folder / service
    missing = [name for name in FILES if not (home / name).is_file()]
    if missing:
        known = ", ".join(sorted(path.parent.name for path in folder.glob("*/utility.yaml"))) or "none"
        raise PolicyFolderError(f"{home} must hold {', '.join(missing)}; decision services there: {known}")
    texts = {name: (home / name).read_text(encoding="utf-8") for name in FILES}
    return parse_policies(service, texts, place=os.path.relpath(home))


def parse_policies(service: str, texts: Mapping[str, str], *, place: str) -> PolicySet:
    """Check the three texts together; `place` is named in errors. Raises PolicyError."""
    issues: list[Issue] = []
    contract = utility = rollout = None
    try:
        contract = load_contract(texts["contract.yaml"], f"{place}/contract.yaml")
    except PolicyError as error:
        issues += error.issues
    try:
        utility = load_utility(texts["utility.yaml"], f"{place}/utility.yaml")
    except PolicyError as error:
        issues += error.issues
    try:
        rollout = load_rollout(texts["rollout.yaml"], f"{place}/rollout.yaml")
    except PolicyError as error:
        issues += error.issues
    if contract is None or utility is None or rollout is None:
        raise PolicyError(tuple(issues))
    documents = {name: load_document(texts[name], f"{place}/{name}") for name in FILES}
    issues += _disagreements(service, contract, utility, rollout, documents=documents)
    issues += _laxer_gates(utility, rollout, documents["rollout.yaml"])
    if issues:
        raise PolicyError(tuple(issues))
    return PolicySet(service, contract, utility, rollout, dict(texts))


def _disagreements(
    service: str,
    contract: DataContract,
    utility: UtilitySpec,
    rollout: RolloutPolicy,
    *,
    documents: Mapping[str, Document],
) -> list[Issue]:
    """What each file may say alone, but not beside the others."""
    found = []
    for name, owner in (("utility.yaml", utility.service), ("rollout.yaml", rollout.service)):
        if owner != service:
            text = f"must be the folder's service {service!r}: {owner!r}"
            found.append(documents[name].issue(("service",), text))
    declared = {column.name for column in contract.decision_columns}
    found += unknown_fields(documents["utility.yaml"], sorted(declared))
    strangers = sorted(set(contract.label_outcomes.values()) ^ set(utility.outcomes))
    if strangers:
        text = f"outcomes must be those of the contract's label: {', '.join(strangers)} differ"
        found.append(documents["utility.yaml"].issue(("outcomes",), text))
    return found


# The gate metric that judges a constraint's quantity, by the constraint's kind.
_SAME_QUANTITY = {
    "action_rate_gap": ("call_rate_gap", "group_call_rate_gap"),
    "action_rate": ("action_rate",),
}


def _laxer_gates(utility: UtilitySpec, rollout: RolloutPolicy, document: Document) -> list[Issue]:
    """Gates whose upper bound is laxer than the stakeholders' own bound on the same quantity."""
    names = [gate["name"] for gate in document.data["gates"]]
    gates = {gate.name: gate for stage in rollout.stages for gate in stage.gates}
    found = []
    for constraint in utility.constraints:
        for gate in gates.values():
            is_same = gate.metric in _SAME_QUANTITY.get(constraint.kind, ())
            if not is_same or gate.max is None or constraint.at_most is None:
                continue
            if gate.max > constraint.at_most:
                message = (
                    f"must be <= {constraint.at_most:g}, the bound of constraint '{constraint.name}' "
                    f"in utility.yaml: {gate.max:g}"
                )
                found.append(document.issue(("gates", names.index(gate.name), "max"), message))
    return found


def lint_warnings(policies: PolicySet, *, today: date) -> tuple[Issue, ...]:
    """What is allowed but should be looked at: unobservable payoffs, a review that is overdue."""
    found = list(policies.utility.warnings)
    if policies.utility.review_by < today:
        text = f"the review was due on {policies.utility.review_by.isoformat()}"
        found.append(Issue("utility.yaml", 1, 1, "reviewBy", text))
    return tuple(found)

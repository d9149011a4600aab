"""The three policy files of a decision service, read from its folder, checked, with the texts that a release freezes.

Reading files is the services' work; what stands in them is judged by the pure loaders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, PolicyError, load_document
from policies.rollout.rollout_agreement import rollout_errors_beside, rollout_warnings_beside
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.utility.payoff_bounds import doubtful_payoffs, field_ends, text_fields
from policies.utility.scenarios import KnownField, ScenarioSet, load_scenarios, scenario_errors_beside
from policies.utility.utility import UtilitySpec, load_utility
from policies.utility.utility_mistakes import unknown_fields
from services.data.contract import DataContract, load_contract
from services.rollout.late_amounts import amounts_after_the_label, known_later
from services.training.plan import LAGRANGIAN, TrainingPlan, load_plan
from services.training.rate_bounds import rate_bounds

NUMBERS = ("number", "integer", "boolean")
METRIC = "failed_scenarios"
POLICIES = Path(__file__).resolve().parents[2] / "policies"
FILES = ("contract.yaml", "utility.yaml", "rollout.yaml")
SCENARIOS = "scenarios.yaml"
TRAINING = "training.yaml"


class PolicyFolderError(ValueError):
    """There is no such decision service, or a file of it is missing; the text says what there is."""


@dataclass(frozen=True)
class PolicySet:
    """A decision service's policies, parsed, and their texts by file name; place: the folder, as errors name it.

    scenarios, training: what scenarios.yaml and training.yaml say, where they are; a release carries their digests.
    """

    service: str
    contract: DataContract
    utility: UtilitySpec
    rollout: RolloutPolicy
    texts: Mapping[str, str]
    place: str
    scenarios: ScenarioSet | None = None
    training: TrainingPlan = field(default_factory=TrainingPlan)


def load_policies(service: str, *, folder: Path = POLICIES) -> PolicySet:
    """Read and check `<folder>/<service>/*.yaml`; scenarios.yaml and training.yaml need not be there.

    Raises PolicyError with the mistakes of all the files, each with its place, and PolicyFolderError.
    """
    home = folder / service
    missing = [name for name in FILES if not (home / name).is_file()]
    if missing:
        known = ", ".join(sorted(path.parent.name for path in folder.glob("*/utility.yaml"))) or "none"
        raise PolicyFolderError(f"{home} must hold {', '.join(missing)}; decision services there: {known}")
    texts = {name: (home / name).read_text(encoding="utf-8") for name in FILES}
    place = os.path.relpath(home)
    file = home / SCENARIOS
    text = file.read_text(encoding="utf-8") if file.is_file() else None
    try:
        return _with_training(
            with_scenarios(parse_policies(service, texts, place=place), text), home / TRAINING
        )
    except PolicyError as error:
        raise PolicyError((*error.issues, *_alone(text, place, of=error))) from None


def with_scenarios(policies: PolicySet, text: str | None) -> PolicySet:
    """The same policies with the scenarios of this text, None for no such file. Raises PolicyError."""
    if text is None:
        rollout = load_document(policies.texts["rollout.yaml"], f"{policies.place}/rollout.yaml")
        waiting = tuple(
            rollout.issue(
                ("gates", at, "metric"), f"needs {SCENARIOS} beside it, and there is none: '{METRIC}'"
            )
            for at, gate in enumerate(rollout.data["gates"])
            if gate["metric"] == METRIC
        )
        if waiting:
            raise PolicyError(waiting)
        return policies
    source = f"{policies.place}/{SCENARIOS}"
    found, document = load_scenarios(text, source), load_document(text, source)
    fields = {
        column.name: KnownField(column.kind in ("number", "integer", "boolean"), column.categories)
        for column in policies.contract.decision_columns
    }
    issues = list(scenario_errors_beside(policies.utility, found, document, fields=fields))
    if found.service != policies.service:
        message = f"must be the folder's service {policies.service!r}: {found.service!r}"
        issues.append(document.issue(("service",), message))
    if issues:
        raise PolicyError(tuple(issues))
    return replace(policies, scenarios=found)


def _with_training(policies: PolicySet, file: Path) -> PolicySet:
    """The same policies with what training.yaml asks of training, if it is there. Raises PolicyError."""
    if not file.is_file():
        return policies
    contract = policies.contract
    plan = load_plan(
        file.read_text(encoding="utf-8"),
        f"{policies.place}/{TRAINING}",
        service=policies.service,
        fields={column.name: column.kind for column in contract.columns if column.name != contract.label},
    )
    if LAGRANGIAN in plan.candidates:
        issues = tuple(_against_lagrangian(policies, plan, file))
        if issues:
            raise PolicyError(issues)
    return replace(policies, training=plan)


def _against_lagrangian(policies: PolicySet, plan: TrainingPlan, file: Path) -> Iterator[Issue]:
    """What a network that decides cannot be trained for: it needs bounds to keep, and has no probabilities."""
    document = load_document(file.read_text(encoding="utf-8"), f"{policies.place}/{TRAINING}")
    here = ("candidates", plan.candidates.index(LAGRANGIAN))
    if not rate_bounds(policies.utility):
        yield document.issue(
            here, f"'{LAGRANGIAN}' needs an upper bound on a rate or a capacity in utility.yaml"
        )
    if policies.utility.abstain is not None:
        yield document.issue(
            here, f"'{LAGRANGIAN}' has no probabilities, and abstain in utility.yaml needs them"
        )
    gates = {gate.name: gate for stage in policies.rollout.stages for gate in stage.gates}
    for gate in gates.values():
        if gate.metric == "calibration_error":
            yield document.issue(
                here,
                f"'{LAGRANGIAN}' has no probabilities, and gate '{gate.name}' asks for their calibration error",
            )


def _alone(text: str | None, place: str, *, of: PolicyError) -> tuple[Issue, ...]:
    """The mistakes of scenarios.yaml by itself, where another file's kept it from being read."""
    source = f"{place}/{SCENARIOS}"
    if text is None or any(issue.source == source for issue in of.issues):
        return ()
    try:
        load_scenarios(text, source)
    except PolicyError as error:
        return error.issues
    return ()


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
    issues += rollout_errors_beside(utility, rollout, documents["rollout.yaml"])
    if issues:
        raise PolicyError(tuple(issues))
    return PolicySet(service, contract, utility, rollout, dict(texts), place)


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
    declared = sorted(column.name for column in contract.decision_columns)
    found += unknown_fields(documents["utility.yaml"], declared, contract.payoff_names)
    texts = {one.name: one.kind for one in contract.columns if one.kind not in NUMBERS}
    found += text_fields(utility, documents["utility.yaml"], texts)
    found += _groups(contract, utility, documents["utility.yaml"])
    found += _hidden_in_log(contract, utility, documents)
    found += amounts_after_the_label(contract, utility, documents["contract.yaml"])
    strangers = sorted(set(contract.label_outcomes.values()) ^ set(utility.outcomes))
    if strangers:
        text = f"outcomes must be those of the contract's label: {', '.join(strangers)} differ"
        found.append(documents["utility.yaml"].issue(("outcomes",), text))
    return found


def _groups(contract: DataContract, utility: UtilitySpec, document: Document) -> list[Issue]:
    """Groups are told by fields known at decision time; only those that may shape decisions may have prices."""
    columns = {column.name: column for column in contract.decision_columns}
    found = []
    for at, one in enumerate(utility.constraints):
        if one.group_field is None:
            continue
        column = columns.get(one.group_field)
        if column is None:
            text = f"the contract does not offer it at decision time: {one.group_field}"
            hint = did_you_mean(one.group_field, sorted(columns))
            found.append(document.issue(("constraints", at, "groups", "field"), text + hint))
        elif one.group_prices and column.sensitive and "training" not in column.allowed_uses:
            text = (
                f"the contract does not allow: '{column.name}' is sensitive and may be used for "
                f"{', '.join(column.allowed_uses)} only"
            )
            found.append(document.issue(("constraints", at, "groupPrices"), text))
    return found


def _hidden_in_log(
    contract: DataContract, utility: UtilitySpec, documents: Mapping[str, Document]
) -> list[Issue]:
    """What the contract keeps out of the decision log must not be needed to judge decisions by that log."""
    found = []
    needed = {*utility.fields, *(one.group_field for one in utility.constraints)}
    for at, column in enumerate(contract.columns):
        if column.in_log != "plain" and column.name in needed:
            text = (
                f"decisionLog of '{column.name}' must be plain: utility.yaml reads it, and without it the log cannot "
                f"tell what a decision earned"
            )
            path = ("schema", 0, "properties", at, "customProperties")
            found.append(documents["contract.yaml"].issue(path, text))
    hidden = ", ".join(contract.hidden_in_log(()))
    for at, gate in enumerate(documents["rollout.yaml"].data["gates"]):
        if hidden and gate.get("where") == "disagreement":
            text = f"disagreement works decisions out again from the log, where contract.yaml hides {hidden}"
            found.append(documents["rollout.yaml"].issue(("gates", at, "where"), text))
    return found


def _ends(contract: DataContract) -> dict[str, tuple[float, float]]:
    """What the contract lets each number be."""
    return {
        one.name: (0.0, 1.0) if one.kind == "boolean" else field_ends(one.minimum, one.maximum)
        for one in contract.columns
        if one.kind in NUMBERS
    }


def lint_warnings(policies: PolicySet, *, today: date) -> tuple[Issue, ...]:
    """What is allowed but should be looked at: unobservable payoffs, starved bets, a review that is overdue."""
    utility = load_document(policies.texts["utility.yaml"], f"{policies.place}/utility.yaml")
    rollout = load_document(policies.texts["rollout.yaml"], f"{policies.place}/rollout.yaml")
    found = [*policies.utility.warnings, *known_later(policies, utility)]
    found += doubtful_payoffs(policies.utility, utility, _ends(policies.contract))
    found += rollout_warnings_beside(policies.utility, policies.rollout, rollout)
    for document, due in ((utility, policies.utility.review_by), (rollout, policies.rollout.review_by)):
        if due is not None and due < today:
            found.append(document.issue(("reviewBy",), f"the review was due on {due.isoformat()}"))
    return tuple(found)

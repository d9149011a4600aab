"""The mistakes of `utility.yaml` between its keys, and beside the fields that a contract offers, each with its place.

What one key may say by itself stands in `policies/utility/utility_file.py`.
Must never import: anything that does I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from policies.language.expression import FUNCTIONS, ExpressionError, compile_expression
from policies.language.expression_bounds import bounds_of
from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path
from policies.rollout.metrics import METRICS
from policies.utility.constraint_file import StakeholderConstraintFile
from policies.utility.utility_file import UtilityFile


def cross_check(file: UtilityFile, document: Document) -> tuple[Issue, ...]:
    """Every mistake between the keys: unknown or repeated names, missing cells, bad expressions."""
    return tuple(
        issue
        for issues in (
            _repeated_names(file, document),
            _references(file, document),
            _cells(file, document),
            _quantities(file, document),
            _sensitivities(file, document),
            _hidden(file, document),
            _rest(file, document),
        )
        for issue in issues
    )


def _repeated_names(file: UtilityFile, document: Document) -> Iterator[Issue]:
    lists: tuple[tuple[str, Sequence[str], bool], ...] = (
        ("actions", file.actions, False),
        ("outcomes", file.outcomes, False),
        ("hiddenWhenDeciding", file.hidden_when_deciding, False),
        ("quantities", [q.name for q in file.quantities], True),
        ("stakeholders", [s.name for s in file.stakeholders], True),
        ("domains", [d.name for d in file.domains], True),
        ("constraints", [c.name for c in file.constraints], True),
        ("hypotheses", [h.name for h in file.hypotheses], True),
    )
    for key, names, is_mapping in lists:
        for at, name in enumerate(names):
            if name in names[:at]:
                path: Path = (key, at, "name") if is_mapping else (key, at)
                yield document.issue(path, f"must be unique: '{name}'")


def _references(file: UtilityFile, document: Document) -> Iterator[Issue]:
    yield from _one_of(document, ("defaultAction",), file.default_action, file.actions)
    for at, action in enumerate(file.outcome_known_after):
        yield from _one_of(document, ("outcomeKnownAfter", at), action, file.actions)
    domains = [domain.name for domain in file.domains]
    stakeholders = [stakeholder.name for stakeholder in file.stakeholders]
    for at, constraint in enumerate(file.constraints):
        here: Path = ("constraints", at)
        yield from _one_of(document, (*here, "domain"), constraint.domain, domains)
        if isinstance(constraint, StakeholderConstraintFile):
            yield from _one_of(document, (*here, "stakeholder"), constraint.stakeholder, stakeholders)
        for key, known in (("action", file.actions), ("among", file.outcomes), ("outcome", file.outcomes)):
            if hasattr(constraint, key):
                yield from _one_of(document, (*here, key), getattr(constraint, key), known)
    for at, hypothesis in enumerate(file.hypotheses):
        yield from _one_of(document, ("hypotheses", at, "metric"), hypothesis.metric, metric_names(file))
    if file.abstain is not None:
        yield from _one_of(document, ("abstain", "action"), file.abstain.action, file.actions)
        if len(file.actions) < 3:
            text = f"needs two actions to doubt between besides its own: {', '.join(file.actions)}"
            yield document.issue(("abstain", "action"), text)


def metric_names(file: UtilityFile) -> tuple[str, ...]:
    """What a hypothesis may be about: the alignment stage's metrics, stakeholders, constraints, satisfaction."""
    found = [metric.name for metric in METRICS.values() if "alignment" in metric.sources]
    found += [f"{stakeholder.name}_utility" for stakeholder in file.stakeholders]
    found += [constraint.name for constraint in file.constraints]
    if file.user_satisfaction is not None:
        found.append(file.user_satisfaction.metric)
    return tuple(dict.fromkeys(found))


def _one_of(document: Document, path: Path, value: str, known: Iterable[str]) -> Iterator[Issue]:
    names = tuple(known)
    if value not in names:
        listed = ", ".join(f"'{name}'" for name in names)
        yield document.issue(path, f"must be one of {listed}: '{value}'{did_you_mean(value, names)}")


def _cells(file: UtilityFile, document: Document) -> Iterator[Issue]:
    for at, stakeholder in enumerate(file.stakeholders):
        here: Path = ("stakeholders", at, "payoffs")
        yield from _same_keys(document, here, tuple(stakeholder.payoffs), file.actions)
        for action, row in stakeholder.payoffs.items():
            yield from _same_keys(document, (*here, action), tuple(row), file.outcomes)
            for outcome, cell in row.items():
                if isinstance(cell, str):
                    yield from _never_finite(cell, (*here, action, outcome), file, document)


def _never_finite(text: str, path: Path, file: UtilityFile, document: Document) -> Iterator[Issue]:
    """What is not in the grammar, or has no finite value whatever the row."""
    try:
        found = bounds_of(compile_expression(text, {one.name: one.value for one in file.quantities}), {})
    except ExpressionError as error:
        yield document.issue(path, str(error))
        return
    for fault in [one for one in found.faults if one.is_certain][:1]:
        yield document.issue_within(path, 1, fault.column, message=fault.message)


def _quantities(file: UtilityFile, document: Document) -> Iterator[Issue]:
    """Each must be read by a payoff, be no function, and lie within its range."""
    texts = [cell for s in file.stakeholders for row in s.payoffs.values() for cell in row.values()]
    read = {name for text in texts if isinstance(text, str) for name in _names(text)}
    for at, one in enumerate(file.quantities):
        here: Path = ("quantities", at)
        if one.name in FUNCTIONS:
            yield document.issue(
                (*here, "name"), f"must not be a function of payoff expressions: '{one.name}'"
            )
        elif one.name not in read:
            strangers = read - {other.name for other in file.quantities}
            meant = did_you_mean(one.name, sorted(strangers)).replace(
                "did you mean", "did a payoff mean it by"
            )
            yield document.issue((*here, "name"), f"is read by no payoff: '{one.name}'{meant}")
        if one.measured is not None and one.measured.per is not None:
            yield from _per(one.measured.per, (*here, "measured", "per"), one.name, document)
        found = one.sensitivity
        if found is not None and not found.low <= one.value <= found.high:
            text = f"must hold {one.value:g}, as it is now: [{found.low:g}, {found.high:g}]"
            yield document.issue((*here, "sensitivity"), text, of_key=True)


def _hidden(file: UtilityFile, document: Document) -> Iterator[Issue]:
    """Each must be read by a payoff."""
    texts = [cell for s in file.stakeholders for row in s.payoffs.values() for cell in row.values()]
    read = {name for text in texts if isinstance(text, str) for name in _names(text)}
    for at, name in enumerate(file.hidden_when_deciding):
        if name not in read or name in {one.name for one in file.quantities}:
            yield document.issue(("hiddenWhenDeciding", at), f"must be a field that a payoff reads: '{name}'")


def _per(text: str, path: Path, own: str, document: Document) -> Iterator[Issue]:
    try:
        fields = compile_expression(text).fields
    except ExpressionError as error:
        yield document.issue(path, str(error))
        return
    if own in fields:
        yield document.issue(path, f"must not read the quantity that it measures: '{own}'")


def constant_payoff(cell: float | str | None, file: UtilityFile) -> float | str | None:
    """A payoff that reads quantities alone as the number it is; anything else as it stands."""
    if not isinstance(cell, str):
        return cell
    try:
        found = compile_expression(cell, {one.name: one.value for one in file.quantities})
        return cell if found.fields else float(found.evaluate({"": np.zeros(1)})[0])
    except ExpressionError:
        return cell  # said at its cell, or with its row


def _names(text: str) -> frozenset[str]:
    try:
        return compile_expression(text).fields
    except ExpressionError:
        return frozenset()  # said at its cell


def _sensitivities(file: UtilityFile, document: Document) -> Iterator[Issue]:
    """Every range must be in order and hold the value that the file states."""
    for at, stakeholder in enumerate(file.stakeholders):
        if stakeholder.sensitivity is None:
            continue
        here: Path = ("stakeholders", at, "sensitivity")
        ranges = [((*here, "weight"), stakeholder.sensitivity.weight, stakeholder.weight)]
        for number, payoff in enumerate(stakeholder.sensitivity.payoffs):
            cell: Path = (*here, "payoffs", number)
            yield from _one_of(document, (*cell, "action"), payoff.action, file.actions)
            yield from _one_of(document, (*cell, "outcome"), payoff.outcome, file.outcomes)
            ranges += [((*cell, "factor"), payoff.factor, 1.0), ((*cell, "amount"), payoff.amount, 0.0)]
        for path, found, stated in ranges:
            if found is not None and not found.low <= stated <= found.high:
                text = f"must hold {stated:g}, as it is now: [{found.low:g}, {found.high:g}]"
                yield document.issue(path, text, of_key=True)
            if path[-1] == "weight" and found is not None and found.low < 0:
                yield document.issue((*path, "low"), f"must be >= 0: {found.low:g}")


def _same_keys(
    document: Document, path: Path, found: Sequence[str], wanted: Sequence[str]
) -> Iterator[Issue]:
    for key in found:
        if key not in wanted:
            message = f"unknown key '{key}'{did_you_mean(key, wanted)} (known: {', '.join(wanted)})"
            yield document.issue((*path, key), message, of_key=True)
    for key in wanted:
        if key not in found:
            yield document.issue((*path, key), "is missing")


def _rest(file: UtilityFile, document: Document) -> Iterator[Issue]:
    low, high = file.range.low, file.range.high
    for action in file.actions:
        for outcome in file.outcomes:
            parts = [
                (s.weight, constant_payoff(s.payoffs.get(action, {}).get(outcome), file))
                for s in file.stakeholders
            ]
            numbers = [weight * cell for weight, cell in parts if weight and isinstance(cell, float)]
            if len(numbers) == sum(1 for weight, _ in parts if weight) and not low <= sum(numbers) <= high:
                message = f"must hold the payoff {action} x {outcome}, {sum(numbers):g}: [{low:g}, {high:g}]"
                yield document.issue(("range",), message, of_key=True)
    if not file.range.low < file.range.high:
        yield document.issue(("range", "high"), f"must be > low ({file.range.low:g}): {file.range.high:g}")
    if not any(stakeholder.weight > 0 for stakeholder in file.stakeholders):
        yield document.issue(("stakeholders",), "must hold one weight > 0 at least", of_key=True)
    newest = file.changelog[0].version
    if newest != file.version:
        yield document.issue(
            ("changelog", 0, "version"),
            f"must be the file's version ({file.version}), newest first: {newest}",
        )
    for at, hypothesis in enumerate(file.hypotheses):
        if hypothesis.registered > file.changelog[0].date:
            yield document.issue(
                ("hypotheses", at, "registered"),
                f"must not be after the newest change ({file.changelog[0].date}): {hypothesis.registered}",
            )


def unknown_fields(document: Document, known: Iterable[str], later: Collection[str]) -> tuple[Issue, ...]:
    """Fields that a payoff reads and nobody offers, each at its cell; `document` must have passed the checks above.

    `known` when deciding; `later`: known only afterwards, and to be named under hiddenWhenDeciding.
    """
    names = tuple(known)
    hidden = document.data.get("hiddenWhenDeciding", ())
    quantities = {one["name"]: 0.0 for one in document.data.get("quantities", ())}
    found = [
        document.issue(("quantities", at, "name"), f"must not be a field of the contract, too: '{name}'")
        for at, name in enumerate(quantities)
        if name in names
    ]
    found += [
        document.issue(
            ("hiddenWhenDeciding", at),
            f"must be a column of the contract with mlRole payoff: '{name}'"
            + did_you_mean(name, tuple(later)),
        )
        for at, name in enumerate(hidden)
        if name not in later
    ]
    for at, one in enumerate(document.data.get("quantities", ())):
        per = one.get("measured", {}).get("per")
        for field in sorted(set(compile_expression(per, quantities).fields if per else ()) - set(names)):
            text = f"reads a field that the contract does not offer at decision time: {field}"
            found.append(
                document.issue(("quantities", at, "measured", "per"), text + did_you_mean(field, names))
            )
    for at, stakeholder in enumerate(document.data["stakeholders"]):
        for action, row in stakeholder["payoffs"].items():
            for outcome, cell in row.items():
                fields = compile_expression(cell, quantities).fields if isinstance(cell, str) else ()
                for field in sorted(set(fields) - set(names) - set(hidden)):
                    text = f"reads a field that the contract does not offer at decision time: {field}"
                    text += (
                        "; it is known later: name it under hiddenWhenDeciding, and releases predict it"
                        if field in later
                        else did_you_mean(field, names)
                    )
                    path: Path = ("stakeholders", at, "payoffs", action, outcome)
                    found.append(document.issue(path, f"{text} (known: {', '.join(names)})"))
    return tuple(found)

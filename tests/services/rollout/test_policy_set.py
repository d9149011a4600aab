"""Promises of a service's three policy files together: what each may say alone but not beside the others."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from services.rollout.policy_set import (
    FILES,
    POLICIES,
    PolicyFolderError,
    lint_warnings,
    load_policies,
    parse_policies,
    with_scenarios,
)
from services.training.plan import TrainingPlan

SERVICE = "telemarketing"
TEXTS: Mapping[str, str] = {name: (POLICIES / SERVICE / name).read_text(encoding="utf-8") for name in FILES}


def refused(file: str, old: str, new: str, *, service: str = SERVICE) -> list[str]:
    """The issues of the shipped policies with one text of one file replaced."""
    assert old in TEXTS[file], old
    texts = {**TEXTS, file: TEXTS[file].replace(old, new, 1)}
    with pytest.raises(PolicyError) as caught:
        parse_policies(service, texts, place="p")
    return [str(issue) for issue in caught.value.issues]


def line_of(file: str, words: str) -> int:
    return next(number for number, line in enumerate(TEXTS[file].splitlines(), 1) if words in line)


def test_shipped_policies_agree() -> None:
    """The shipped files load together, for their own service, with their texts as they stand."""
    found = load_policies(SERVICE)
    assert (found.service, found.rollout.service, found.utility.service) == (SERVICE,) * 3
    assert found.texts == TEXTS


def test_gate_laxer_than_the_constraint_is_refused_where_it_stands() -> None:
    """A gate may not allow a wider call-rate gap than compliance signed; one that is stricter may stand."""
    (issue,) = refused("rollout.yaml", "    max: 0.20 ", "    max: 0.25 ")
    line = line_of("rollout.yaml", "    max: 0.20 ")
    assert issue.startswith(f"p/rollout.yaml:{line}:")
    assert "must be <= 0.2, the bound of constraint 'call_rate_gap_by_age' in utility.yaml: 0.25" in issue
    stricter = {**TEXTS, "rollout.yaml": TEXTS["rollout.yaml"].replace("    max: 0.20 ", "    max: 0.15 ", 1)}
    assert parse_policies(SERVICE, stricter, place="p").service == SERVICE


def test_groups_need_a_field_and_their_prices_a_contract_that_allows_them() -> None:
    """A misspelled group field and prices by a sensitive attribute that only audits may use are named in place."""
    (issue,) = refused("utility.yaml", "field: age ", "field: aeg ")
    assert issue.startswith(f"p/utility.yaml:{line_of('utility.yaml', 'field: age ')}:")
    assert "does not offer it at decision time: aeg; did you mean 'age'?" in issue
    (issue,) = refused("utility.yaml", "    atMost: 0.20\n", "    atMost: 0.20\n    groupPrices: true\n")
    assert issue.startswith(f"p/utility.yaml:{line_of('utility.yaml', 'atMost: 0.20') + 1}:")
    assert "'age' is sensitive and may be used for audit, monitoring only" in issue


def test_payoff_over_an_undeclared_field_names_it() -> None:
    """A payoff may read only what the contract offers at decision time; duration is known after the call."""
    issues = refused("utility.yaml", "margin * clip(balance, 0, cap)", "margin * clip(duration, 0, cap)")
    assert len(issues) == 1
    line = line_of("utility.yaml", "margin * clip(balance, 0, cap)")
    assert issues[0].startswith(f"p/utility.yaml:{line}:")
    assert "the contract does not offer at decision time: duration" in issues[0]


def test_an_amount_that_comes_after_the_label_is_known_is_refused() -> None:
    """It would be missing from the young rows of the outcomes that need it, and from no others; up to labelDelay it is
    taken, and a column that no payoff reads may come whenever it does."""
    role = "- {property: mlRole, value: excluded}"
    contract = TEXTS["contract.yaml"].replace(role, role.replace("excluded", "payoff"))
    priced = TEXTS["utility.yaml"].replace("* clip(balance, 0, cap)", "* clip(duration, 0, cap)")
    priced = priced.replace("range:", "hiddenWhenDeciding: [duration]\nrange:", 1)

    def at(when: str, utility: str) -> dict[str, str]:
        changed = contract.replace("value: 2h\n", f"value: {when}\n")
        assert changed != contract
        return {**TEXTS, "contract.yaml": changed, "utility.yaml": utility}

    with pytest.raises(PolicyError) as caught:
        parse_policies(SERVICE, at("25h", priced), place="p")
    (issue,) = caught.value.issues
    assert "availableAt of 'duration' must be <= the label's labelDelay, 1d: 25h;" in issue.message
    assert issue.line == line_of("contract.yaml", "value: 2h")
    parse_policies(SERVICE, at("24h", priced), place="p")
    parse_policies(SERVICE, at("25h", TEXTS["utility.yaml"]), place="p")


def test_a_payoff_column_is_read_where_it_is_named_as_hidden() -> None:
    """With both words the policies load, and the lint says what that means; one word alone is an error in its place."""
    role = "- {property: mlRole, value: excluded}"
    contract = {"contract.yaml": TEXTS["contract.yaml"].replace(role, role.replace("excluded", "payoff"))}

    def reading(field: str, hidden: str) -> dict[str, str]:
        text = TEXTS["utility.yaml"].replace("* clip(balance, 0, cap)", f"* clip({field}, 0, cap)")
        return {"utility.yaml": text.replace("range:", f"hiddenWhenDeciding: [{hidden}]\nrange:", 1)}

    found = parse_policies(SERVICE, {**TEXTS, **contract, **reading("duration", "duration")}, place="p")
    assert found.utility.hidden == found.contract.payoff_names == ("duration",)
    (warning,) = [str(one) for one in lint_warnings(found, today=date(2026, 11, 2)) if "duration" in str(one)]
    assert "reads 'duration', known only 2h after the decision: releases decide on" in warning
    assert "That is 4s in rollout.yaml, shorter than the amount takes" in warning
    for texts, path, text in (
        (
            reading("duration", "duration"),
            "hiddenWhenDeciding[0]",
            "must be a column of the contract with mlRole",
        ),
        (
            {**contract, **reading("balance", "duration")},
            "hiddenWhenDeciding[0]",
            "that a payoff reads: 'duration'",
        ),
        (
            {**contract, **reading("duration", "")},
            "call.subscribed",
            "name it under hiddenWhenDeciding, and releases",
        ),
    ):
        with pytest.raises(PolicyError) as caught:
            parse_policies(SERVICE, {**TEXTS, **texts}, place="p")
        (issue,) = caught.value.issues
        assert issue.path.endswith(path)
        assert text in issue.message


@pytest.mark.parametrize("file", ["utility.yaml", "rollout.yaml"])
def test_file_of_another_service_is_refused(file: str) -> None:
    """A utility or rollout file of another service in this folder is named, with both services."""
    issues = refused(file, "service: telemarketing", "service: lending")
    line = line_of(file, "service: telemarketing")
    assert any(
        one.startswith(f"p/{file}:{line}:10: ")
        and "must be the folder's service 'telemarketing': 'lending'" in one
        for one in issues
    )


def test_mistakes_of_all_files_come_at_once() -> None:
    """One typo in each file: three errors, each with its file, line and column."""
    texts = {
        "contract.yaml": TEXTS["contract.yaml"].replace("apiVersion:", "apiVersio:", 1),
        "utility.yaml": TEXTS["utility.yaml"].replace("stakeholders:", "stakeholder:", 1),
        "rollout.yaml": TEXTS["rollout.yaml"].replace("poll:", "pol:", 1),
    }
    with pytest.raises(PolicyError) as caught:
        parse_policies(SERVICE, texts, place="p")
    assert {Path(issue.source).name for issue in caught.value.issues} == set(FILES)
    assert all(issue.line >= 1 and issue.column >= 1 for issue in caught.value.issues)


def test_unknown_service_says_which_there_are(tmp_path: Path) -> None:
    """No such folder, or one that lacks a file: told what is missing and what exists."""
    with pytest.raises(PolicyFolderError, match=r"must hold contract\.yaml.*services there: .*telemarketing"):
        load_policies("telemarketin")
    (tmp_path / "loans").mkdir()
    (tmp_path / "loans" / "utility.yaml").write_text(TEXTS["utility.yaml"])
    with pytest.raises(PolicyFolderError, match=r"must hold contract\.yaml, rollout\.yaml; .*there: loans"):
        load_policies("loans", folder=tmp_path)


def test_overdue_review_is_a_warning() -> None:
    """The day after a review was due the lint warns where the day stands, in each file that has one, and loads."""
    found = load_policies(SERVICE)
    due = found.utility.review_by
    assert found.rollout.review_by == due
    late = [str(one) for one in lint_warnings(found, today=date(due.year + 1, 1, 1))]
    for file in ("utility.yaml", "rollout.yaml"):
        place = f"{found.place}/{file}:{line_of(file, 'reviewBy:')}:11: 'reviewBy' "
        assert any(one.startswith(f"{place}the review was due on {due.isoformat()}") for one in late), late
    assert not any("review" in str(one) for one in lint_warnings(found, today=due))


def test_scenarios_are_read_beside_the_others_and_may_be_absent() -> None:
    """With the file they come along, checked against the contract; without it the policies are as before, unless a gate
    waits for them, which is said at the gate."""
    policies = load_policies(SERVICE)
    assert policies.scenarios is not None
    assert len(policies.scenarios.scenarios) >= 8
    text = (POLICIES / SERVICE / "scenarios.yaml").read_text(encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        with_scenarios(policies, text.replace("{field: age, upTo: 30}", "{field: duration, upTo: 30}", 1))
    assert "'scenarios[0].rows.field' must be one of" in str(caught.value)
    with pytest.raises(PolicyError) as caught:
        with_scenarios(replace(policies, scenarios=None), None)
    assert "needs scenarios.yaml beside it, and there is none: 'failed_scenarios'" in str(caught.value)
    start = TEXTS["rollout.yaml"].index("  - name: scenarios\n")
    stop = TEXTS["rollout.yaml"].index("  # --- live:")
    ungated = TEXTS["rollout.yaml"][:start] + TEXTS["rollout.yaml"][stop:]
    plain = parse_policies(SERVICE, {**TEXTS, "rollout.yaml": ungated}, place="p")
    assert with_scenarios(plain, None) == plain
    assert plain.scenarios is None


def test_training_is_asked_for_beside_the_others_and_may_be_absent(tmp_path: Path) -> None:
    """training.yaml names candidates; its mistakes come with their place; without it training is the usual."""
    folder = tmp_path / SERVICE
    shutil.copytree(POLICIES / SERVICE, folder)
    assert load_policies(SERVICE, folder=tmp_path).training == TrainingPlan()
    text = "service: telemarketing\ncandidates: [cross_entropy, boosted_average]\nneedsProof: true\n"
    (folder / "training.yaml").write_text(text)
    asked = load_policies(SERVICE, folder=tmp_path).training
    assert (asked.candidates, asked.needs_proof) == (("cross_entropy", "boosted_average"), True)
    (folder / "training.yaml").write_text(
        text + "rowWeights: [{expression: trust, missing: 1, why: Test.}]\n"
    )
    with pytest.raises(PolicyError, match=r"training\.yaml:4:27: .*columns of the contract.*'trust'"):
        load_policies(SERVICE, folder=tmp_path)


def test_a_network_that_decides_needs_bounds_and_no_probabilities(tmp_path: Path) -> None:
    """`lagrangian` beside a gate on calibration, or without an upper bound on a rate, is refused at its place."""
    folder = tmp_path / SERVICE
    shutil.copytree(POLICIES / SERVICE, folder)
    (folder / "training.yaml").write_text("service: telemarketing\ncandidates: [cross_entropy, lagrangian]\n")
    with pytest.raises(PolicyError, match=r"training\.yaml:2:29: .*gate 'calibrated' asks for") as caught:
        load_policies(SERVICE, folder=tmp_path)
    assert len(caught.value.issues) == 1
    start = TEXTS["rollout.yaml"].index("  - name: calibrated\n")
    stop = TEXTS["rollout.yaml"].index("  # --- offline: alignment")
    (folder / "rollout.yaml").write_text(TEXTS["rollout.yaml"][:start] + TEXTS["rollout.yaml"][stop:])
    assert load_policies(SERVICE, folder=tmp_path).training.candidates == ("cross_entropy", "lagrangian")
    start = TEXTS["utility.yaml"].index("  - name: calls_made\n")
    stop = TEXTS["utility.yaml"].index("  - name: call_rate_gap_by_age\n")
    (folder / "utility.yaml").write_text(TEXTS["utility.yaml"][:start] + TEXTS["utility.yaml"][stop:])
    with pytest.raises(PolicyError, match="needs an upper bound on a rate or a capacity"):
        load_policies(SERVICE, folder=tmp_path)

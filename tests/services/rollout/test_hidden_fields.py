"""What a contract hides in the decision log must not be needed to judge decisions by that log."""

from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from services.rollout.policy_set import FILES, parse_policies

FOLDER = Path(__file__).resolve().parents[3] / "policies" / "telemarketing"


def hide(contract: str, name: str) -> str:
    """The contract with one column hashed in the decision log."""
    at = contract.index(f"- name: {name}\n")
    role = contract.index("- {property: mlRole", at)
    return f"{contract[:role]}- {{property: decisionLog, value: hashed}}\n          {contract[role:]}"


def mistakes(name: str) -> list[str]:
    texts = {file: (FOLDER / file).read_text() for file in FILES}
    texts["contract.yaml"] = hide(texts["contract.yaml"], name)
    with pytest.raises(PolicyError) as caught:
        parse_policies("telemarketing", texts, place="policies/telemarketing")
    return [str(issue) for issue in caught.value.issues]


def test_a_field_that_prices_or_groups_must_stay_plain() -> None:
    """The amount that payoffs read, and the field that tells the groups: named at the contract's column."""
    for name in ("balance", "age"):
        found = [issue for issue in mistakes(name) if "contract.yaml" in issue.partition(" ")[0]]
        assert len(found) == 1
        assert f"decisionLog of '{name}' must be plain: utility.yaml reads it" in found[0]


def test_a_hidden_feature_ends_gates_that_work_decisions_out_again() -> None:
    """`where: disagreement` is refused beside a hidden feature, at the gate that says it."""
    (issue,) = mistakes("loan")
    assert issue.startswith("policies/telemarketing/rollout.yaml:")
    assert "disagreement works decisions out again from the log, where contract.yaml hides loan" in issue

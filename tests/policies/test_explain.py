"""`policies.explain`: what the people who approve a policy are told is what the engine does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies.explain import Odds, Section, duration, explain
from policies.rollout_policy import RolloutPolicy, load_rollout

SHIPPED = Path(__file__).parents[2] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")


def _explained(policy: RolloutPolicy, odds: tuple[Odds, ...] = ()) -> dict[str, Section]:
    found = explain(policy, unit="EUR", waits={("utility", "canary-25"): "about 52 s"}, odds=odds)
    return {section.title: section for section in found}


@pytest.fixture(scope="module")
def policy() -> RolloutPolicy:
    return load_rollout(TEXT, "rollout.yaml")


def test_every_gate_and_stage_is_named_with_owner_and_reason(policy: RolloutPolicy) -> None:
    """No live gate, no stage, no owner and no rationale is left out."""
    sections = _explained(policy)
    told = "\n".join(line for section in sections.values() for line in section.lines)
    for stage in policy.stages:
        assert stage.name in told
        for gate in stage.required:
            assert gate.name in told
    for gate in policy.live_gates:
        lines = "\n".join(sections[f"Gate {gate.name}"].lines)
        assert f"Why, says {gate.owner}: {gate.rationale}" in lines


def test_margins_are_told_in_the_utility_unit(policy: RolloutPolicy) -> None:
    """A comparison says what fails, what passes, and that in between it is undecided."""
    claim = _explained(policy)["Gate utility"].lines[0]
    assert "worse by more than 0 EUR" in claim
    assert "not being worse by 0.3 EUR" in claim
    assert "in between it is undecided" in claim


def test_waits_and_odds_stand_with_their_gate(policy: RolloutPolicy) -> None:
    """How long a gate takes and what simulation says of it stand under that gate, the overall odds at the top."""
    odds = (Odds("", "same as stable", 0.01, 0.9), Odds("utility", "at niMargin, -0.3", 0.25, 0.02))
    sections = _explained(policy, odds)
    assert "It must pass at canary-25 (about 52 s) and canary-50." in sections["Gate utility"].lines
    assert (
        "Simulated, at niMargin, -0.3: it rolls back 25 % of rollouts; 2 % are promoted."
        in sections["Gate utility"].lines
    )
    assert (
        sections["telemarketing, version 1"]
        .lines[-1]
        .endswith("90 % of rollouts are promoted, 1 % rolled back on evidence; 9 % end without it.")
    )


def test_a_dry_run_is_told_as_such() -> None:
    """A gate on a dry run is said to change nothing, and is required nowhere."""
    dry = load_rollout(
        re.sub(r"(  - name: slow\n)", r"\1    dryRun: true\n", TEXT).replace(
            "    requiredFrom: 25%\n", "", 1
        ),
        "rollout.yaml",
    )
    lines = _explained(dry)["Gate slow"].lines
    assert "Dry run: it is judged and shown, and changes nothing." in lines
    assert not any("must pass" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "500 ms"), (40, "40 s"), (60, "1 minute"), (5400, "1.5 hours"), (777_600, "9 days")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    """Durations are said in the largest unit that suits."""
    assert duration(seconds) == said

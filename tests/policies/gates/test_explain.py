"""`policies.gates.explain`: what the people who approve a policy are told is what the engine does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from policies.gates.explain import Odds, Section, duration, explain
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout

SHIPPED = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")


def _explained(
    policy: RolloutPolicy, odds: tuple[Odds, ...] = (), assumed: tuple[str, ...] = ()
) -> dict[str, Section]:
    waits = {("utility", "canary-25"): "about 52 s", ("call-rate-gap", "shadow"): "about 3 s"}
    found = explain(policy, unit="EUR", waits=waits, odds=odds, assumed=assumed)
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
    odds = (
        Odds("", "same as stable", 0.01, 0.9, 0.09, 0.0),
        Odds("utility", "at niMargin, -0.3", 0.25, 0.02, 0.6, 0.1),
    )
    sections = _explained(policy, odds)
    assert "It must pass at canary-25 (about 52 s) and canary-50." in sections["Gate utility"].lines
    assert (
        "Simulated, at niMargin, -0.3: it rolls back 25 % of rollouts; 2 % are promoted, 3 % are rolled back by other "
        "gates, 60 % end undecided and are rolled back, 10 % wait for a person."
        in sections["Gate utility"].lines
    )
    assert (
        sections["telemarketing, version 1"]
        .lines[-1]
        .endswith("are promoted, 1 % rolled back on evidence, 9 % end undecided and are rolled back.")
    )


def test_a_gate_without_a_simulation_says_so(policy: RolloutPolicy) -> None:
    """Its planned time stands there instead, and the overall odds name it as taken to pass."""
    odds = (Odds("", "same as stable", 0.0, 1.0, 0.0, 0.0),)
    sections = _explained(policy, odds, ("call-rate-gap",))
    assert "Not simulated; planned to take about 3 s (shadow)." in sections["Gate call-rate-gap"].lines
    assert sections["telemarketing, version 1"].lines[-1].endswith(" Taken to pass: call-rate-gap.")
    assert not any("Not simulated" in line for line in sections["Gate utility"].lines)


def test_an_offline_gate_that_holds_is_not_said_to_refuse() -> None:
    """`onFail: hold` and a dry run are told apart from a refusal; the rows that a gate wants are said."""
    every = "    max: 0\n    estimate: value\n    appliesTo: all\n"
    rules = f"    metric: failed_rules\n    compareTo: bound\n{every}"
    dry = "    metric: rows\n"
    assert f"{rules}    onFail: rollback" in TEXT
    text = TEXT.replace(f"{rules}    onFail: rollback", f"{rules}    minSamples: 900\n    onFail: hold")
    contract = _explained(load_rollout(text.replace(dry, f"{dry}    dryRun: true\n"), "rollout.yaml"))[
        "Before any user sees it"
    ].lines[0]
    assert contract == (
        "Contract: refused unless rows-in-quarantine (share of rows that broke a rule: at most 0.02); held unless "
        "contract-rules (contract rules whose own bound is broken: at most 0, on at least 900 rows); on a dry run, "
        "which changes nothing: enough-rows (rows delivered: at least 5000)."
    )


def test_minimum_units_and_blocks_are_told() -> None:
    """What a gate wants to have seen before it passes, and the length of its blocks where it has some."""
    slow = "  - name: slow\n"
    text = TEXT.replace(slow, f"{slow}    window: 2s\n")
    lines = _explained(load_rollout(text, "rollout.yaml"))["Gate slow"].lines
    assert "It passes only once it has seen 50 units; it may fail sooner." in lines
    assert "Its evidence is judged in blocks of 2 s." in lines


def test_nothing_is_said_to_last_0_ms(policy: RolloutPolicy) -> None:
    """No least time and no maturity are left out, not told as 0."""
    stages = tuple(replace(stage, bake_min_s=0.0) for stage in policy.stages)
    summary = _explained(replace(policy, stages=stages, maturity_s=0.0))["telemarketing, version 1"].lines
    assert any(line.startswith("On live traffic that takes at most 6.2 minutes") for line in summary)
    assert any("A decision counts at once, whatever was decided." in line for line in summary)
    assert not any("0 ms" in line for line in summary)


def test_a_dry_run_is_told_as_such() -> None:
    """A gate on a dry run is said to change nothing, to be required nowhere, and to stop and roll back nothing."""
    dry = load_rollout(
        re.sub(r"(  - name: slow\n)", r"\1    dryRun: true\n", TEXT).replace(
            "    requiredFrom: 25%\n", "", 1
        ),
        "rollout.yaml",
    )
    lines = _explained(dry)["Gate slow"].lines
    assert "Dry run: it is judged and shown, and changes nothing." in lines
    for word in ("must pass", "can only stop", "rolls back", "false rollback"):
        assert not any(word in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "500 ms"), (40, "40 s"), (60, "1 minute"), (5400, "1.5 hours"), (777_600, "9 days")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    """Durations are said in the largest unit that suits."""
    assert duration(seconds) == said

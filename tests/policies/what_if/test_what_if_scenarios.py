"""Promises of the scenarios: a policy's own margins and bounds are tried; effects are read as people write them."""

from pathlib import Path

import pytest

from policies.rollout.rollout_policy import load_rollout
from policies.what_if.result import lasting
from policies.what_if.scenarios import SAME, baseline_of, effects_from, rates_from, scenarios_of
from policies.what_if.simulation import AssumptionError, Settings, simulate

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = YAML.read_text(encoding="utf-8")
POLICY = load_rollout(TEXT, "rollout.yaml")
BASE = baseline_of(POLICY, (-1.0, 29.8), rates={"canary_errors": 0.002})


def test_baseline_is_what_the_gates_expect() -> None:
    """A gate's expectation, else a fifth of the way to its bound; what is said goes before both."""
    plain = baseline_of(POLICY, (-1.0, 29.8))
    assert plain.rates["canary_errors"] == pytest.approx(0.2 * 0.05)
    assert BASE.rates["canary_errors"] == 0.002
    assert BASE.payoffs is not None
    assert (BASE.payoffs.low, BASE.payoffs.high, BASE.payoffs.difference) == (-1.0, 29.8, 0.0)


def test_every_acting_gate_is_tried_at_its_margins() -> None:
    """The A/A run comes first; then each gate at its bound or margin and beyond, all else as in the A/A run."""
    found = {effect.name: effect for effect in scenarios_of(POLICY, BASE)}
    assert next(iter(found)) == SAME
    assert found["errors at its bound, 5%"].rates["canary_errors"].canary == 0.05
    assert found["errors at its bound, 5%"].rates["canary_errors"].stable == 0.002
    assert found["errors far beyond it, 10%"].rates["canary_errors"].canary == 0.1
    assert found["no errors at all"].rates["canary_errors"].canary == 0.0
    twice = found["utility twice the margin, -0.6"]
    assert twice.payoffs is not None
    assert twice.payoffs.difference == -0.6
    assert twice.rates["slow_share"].canary == BASE.rates["slow_share"]


def test_the_policy_that_ships_decides_its_own_scenarios() -> None:
    """With a few runs each: errors far beyond the bound are rolled back in the shadow, a better utility is promoted."""
    found = {effect.name: effect for effect in scenarios_of(POLICY, BASE)}
    broken = simulate(POLICY, found["errors far beyond it, 10%"], Settings(runs=100))
    better = simulate(POLICY, found["utility better by the margin, +0.3"], Settings(runs=100))
    assert (broken.share("rolled_back"), broken.exposed_mean) == (1.0, 0.0)
    assert better.share("promoted") >= 0.95
    assert better.lost is not None
    assert better.lost < 0


def test_effects_as_people_write_them() -> None:
    """One text is one scenario; commas join metrics."""
    one, two = effects_from(["canary_errors=2%", "slow_share=3%, utility=-0.3"], BASE)
    assert (one.name, one.rates["canary_errors"].canary) == ("canary_errors=2%", 0.02)
    assert two.rates["slow_share"].canary == pytest.approx(0.03)
    assert two.payoffs is not None
    assert two.payoffs.difference == -0.3
    assert rates_from(["canary_errors=0.5%"]) == {"canary_errors": 0.005}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("canary_errors=0.02", "'canary_errors=0.02': must be a percentage with its sign"),
        ("canary_errors", "'canary_errors': must be written METRIC=VALUE"),
        (
            "canary_error=2%",
            "no live gate of this policy judges 'canary_error'; shares it judges: canary_errors",
        ),
        (
            "nope=3",
            "no live gate of this policy judges 'nope'; shares it judges: canary_errors, slow_share; and it "
            "compares utility",
        ),
        (
            "utility=-1000",
            "'utility' must be a difference within 30.8 either way, the width of the payoff range [-1, 29.8] in "
            "utility.yaml: -1000",
        ),
        ("utility=nan", "'utility' must be a difference within 30.8 either way"),
        ("utility=much", "'utility=much': could not convert string to float"),
    ],
)
def test_effects_that_say_nothing_are_refused(text: str, says: str) -> None:
    """An effect that cannot be read names itself and what would do."""
    with pytest.raises(AssumptionError) as refused:
        effects_from([text], BASE)
    assert says in str(refused.value)


def test_times_are_short() -> None:
    """Seconds up to three minutes, then minutes, hours and days."""
    assert [lasting(x) for x in (2.5, 129, 1320, 34_200, 1_036_800)] == [
        "2.5 s",
        "129 s",
        "22 min",
        "9.5 h",
        "12.0 d",
    ]

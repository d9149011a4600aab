"""The operating point: the best action per row, a price per action, and the threshold of two actions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policies.operating.abstention import AbstentionBand, OutcomeBand
from policies.operating.operating_point import OperatingPoint, threshold_of
from policies.utility.utility import Floats, UtilityError, best_action

BAYES = OperatingPoint(shift=(0.0, 0.0))


def _chances(p: Floats) -> Floats:
    return np.stack([1 - p, p], axis=1)


@st.composite
def rows(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Payoffs (6, 2, 2) where action 1 gains no less under outcome 1; probabilities of outcome 1 (6,).

    In eighths: a gain too small to add to its payoff would come back as none.
    """
    eighths = st.integers(-400, 400).map(lambda n: n / 8)
    payoffs = draw(arrays(np.float64, (6, 2, 2), elements=eighths))
    gain = np.sort(payoffs[:, 1] - payoffs[:, 0], axis=1)
    payoffs[:, 1] = payoffs[:, 0] + gain
    return payoffs, draw(arrays(np.float64, 6, elements=st.floats(0, 1)))


@settings(max_examples=50, deadline=None)
@given(rows(), st.floats(-5, 5))
def test_the_threshold_agrees_with_the_best_action(problem: tuple[Floats, Floats], price: float) -> None:
    """Away from rounding, action 1 is chosen iff p exceeds the row's threshold, shifted or not."""
    payoffs, p = problem
    for point in (BAYES, OperatingPoint(shift=(0.0, -price))):
        threshold = point.threshold(payoffs)
        utilities = np.einsum("nao,no->na", payoffs, _chances(p)) + np.array(point.shift)
        clear = np.abs(utilities[:, 1] - utilities[:, 0]) > 1e-6
        np.testing.assert_array_equal((p > threshold)[clear], point.choose(payoffs, _chances(p))[clear] == 1)


def test_no_shift_is_the_bayes_rule() -> None:
    """With no shift, choose is best_action, for three actions too."""
    rng = np.random.default_rng(7)
    payoffs, chances = rng.normal(size=(200, 3, 2)), _chances(rng.uniform(size=200))
    point = OperatingPoint(shift=(0.0, 0.0, 0.0))
    np.testing.assert_array_equal(point.choose(payoffs, chances), best_action(payoffs, chances))


def test_a_price_on_an_action_makes_it_rarer() -> None:
    """The rate of action 1 falls, or stays, as its price rises."""
    rng = np.random.default_rng(8)
    payoffs, chances = rng.normal(size=(500, 2, 2)), _chances(rng.uniform(size=500))
    rates = [OperatingPoint(shift=(0.0, -price)).choose(payoffs, chances).mean() for price in (-1, 0, 0.5, 2)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


def test_thresholds_of_the_telemarketing_payoffs() -> None:
    """A call at 1 EUR for a gain g: call iff p > 1 / (g + 1); never where a subscription earns nothing."""
    payoffs = np.zeros((3, 2, 2))
    payoffs[:, 1, 0] = -1
    payoffs[:, 1, 1] = [-1.0, 4.0, 0.0]
    assert threshold_of(payoffs).tolist() == [np.inf, 0.2, np.inf]
    payoffs[:, 1, :] = 1.0
    assert threshold_of(payoffs).tolist() == [-np.inf] * 3
    assert BAYES.choose(payoffs, _chances(np.zeros(3))).tolist() == [1, 1, 1]


def test_a_backwards_row_has_no_such_threshold() -> None:
    """Where action 1 wants outcome 1 LESS probable, the error names the row; other shapes are refused."""
    payoffs = np.zeros((2, 2, 2))
    payoffs[1, 1] = [1.0, -1.0]
    with pytest.raises(UtilityError, match="row 1"):
        threshold_of(payoffs)
    with pytest.raises(UtilityError, match=r"\(n, 2, 2\): \(1, 3, 2\)"):
        threshold_of(np.zeros((1, 3, 2)))


def test_json_round_trip() -> None:
    """A release's operating_point.json gives the same rule back."""
    point = OperatingPoint(shift=(0.0, -0.125, 3.0), default_action=2)
    assert OperatingPoint.from_json(json.loads(json.dumps(point.to_json()))) == point


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "constant", "shift": [0.0, 0.0], "default_action": 0},
        {"kind": "per_row_bayes", "shift": [0.0, float("nan")], "default_action": 0},
        {"kind": "per_row_bayes", "shift": [0.0, "1"], "default_action": 0},
        {"kind": "per_row_bayes", "shift": [0.0], "default_action": 0},
        {"kind": "per_row_bayes", "shift": [0.0, 0.0], "default_action": 2},
        {"kind": "per_row_bayes", "shift": [0.0, 0.0], "default_action": True},
        {"kind": "per_row_bayes", "shift": [0.0, 0.0]},
        {"kind": "per_row_bayes", "shift": [0.0, 0.0], "default_action": 0, "threshold": 0.5},
    ],
)
def test_a_broken_operating_point_is_refused(broken: dict[str, object]) -> None:
    """Unknown keys, another kind, NaN or a wrong index never become a rule."""
    with pytest.raises(UtilityError):
        OperatingPoint.from_json(broken)


def test_another_number_of_actions_is_refused() -> None:
    """A shift for two actions does not price three."""
    with pytest.raises(UtilityError, match=r"shape \(n, 2, O\): \(1, 3, 2\)"):
        BAYES.choose(np.zeros((1, 3, 2)), np.array([[0.5, 0.5]]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sets(st.integers(1, 3)), st.booleans())
def test_a_switched_off_action_is_as_if_the_spec_did_not_have_it(
    seed: int, off: set[int], has_band: bool
) -> None:
    """Choosing among the allowed actions is the choice, and the lead, of a point that has these actions alone."""
    draw = np.random.default_rng(seed)
    payoffs, chances = draw.normal(size=(50, 4, 2)), _chances(draw.uniform(size=50))
    kept = [a for a in range(4) if a not in off]
    shift = draw.normal(size=4)
    outcome = OutcomeBand((0.0, 0.3, 1.0), (0.0, 0.2, 0.8), (0.2, 0.6, 1.0))

    def point(actions: list[int]) -> OperatingPoint:
        band = AbstentionBand(actions.index(3), 0.2, (outcome,)) if has_band and 3 in actions else None
        return OperatingPoint(shift=tuple(shift[actions]), abstention=band)

    allowed = np.array([a in kept for a in range(4)])
    whole = point([0, 1, 2, 3])
    actions, lead = whole.choose_priced(whole.priced(payoffs), chances, allowed=allowed)
    if len(kept) == 1:
        assert (actions == 0).all()
        assert np.isinf(lead).all()
        return
    few = point(kept)
    expected, expected_lead = few.choose_priced(few.priced(payoffs[:, kept]), chances)
    np.testing.assert_array_equal(actions, np.array(kept)[expected])
    np.testing.assert_array_equal(lead, expected_lead)


def test_the_default_action_cannot_be_switched_off() -> None:
    """Without the default there may be nothing left to do, so the engine refuses."""
    with pytest.raises(UtilityError, match="must hold the default action 0"):
        BAYES.choose_priced(np.zeros((1, 2, 2)), np.array([[0.5, 0.5]]), allowed=np.array([False, True]))

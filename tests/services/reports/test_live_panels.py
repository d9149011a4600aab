"""What a canary's report says of utility: the full payoffs, and what comparing where the releases differ saves."""

import numpy as np
import pandas as pd
import pytest

from services.reports.live_panels import live_panels
from services.reports.panels import Table


def arm(payoffs: list[float], agrees: list[bool] | None) -> pd.DataFrame:
    frame = pd.DataFrame({"score": 0.5, "action": "call", "took_ms": 1.0, "utility": payoffs})
    return frame if agrees is None else frame.assign(agrees=agrees)


def tables(candidate: pd.DataFrame, stable: pd.DataFrame) -> dict[str, Table]:
    panels = live_panels(candidate, stable, unit="EUR")
    return {panel.title: panel for panel in panels if isinstance(panel, Table)}


CANDIDATE = ([9.0, -1.0, 3.0, -1.0, np.nan], [True, True, False, True, True])
STABLE = ([-1.0, 9.0, 0.0, -1.0, -1.0], [True, True, False, True, True])


def test_both_differences_stand_side_by_side() -> None:
    """The difference of all payoffs, and of those where the releases differ; immature units are in neither."""
    shown = tables(arm(*CANDIDATE), arm(*STABLE))
    panel = shown["Utility where the releases differ"]
    full = np.var([9, -1, 3, -1], ddof=1) / 4 + np.var([-1, 9, 0, -1, -1], ddof=1) / 5
    masked = np.var([0, 0, 3, 0], ddof=1) / 4
    assert panel.rows == (
        ("all units", "9", f"+1.3000 ± {1.959964 * full**0.5:.4f}"),
        ("where the releases differ", "9", f"+0.7500 ± {1.959964 * masked**0.5:.4f}"),
    )
    assert panel.value == pytest.approx(0.2)
    assert f"{full / masked:.1f} times as many units" in panel.note
    assert "Candidate minus stable: +1.3000 EUR" in shown["Candidate against stable"].note


def test_without_recomputed_actions_only_the_full_payoffs_are_shown() -> None:
    """No such column, no such panel; nor before two units of each arm are mature."""
    title = "Utility where the releases differ"
    assert title not in tables(arm(CANDIDATE[0], None), arm(STABLE[0], None))
    young = [np.nan] * 4 + [1.0]
    assert title not in tables(arm(young, CANDIDATE[1]), arm(*STABLE))

"""The metrics that a gate may name: their kind, where their evidence can come from, and what is better.

The kind and `compareTo` determine the statistical test (gates.md, "Which test for which gate"). A metric that
is not listed here does not exist; a new one is added here and in the service that measures it.
Must never import: anything but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["proportion", "utility", "gap", "value"]


@dataclass(frozen=True)
class Metric:
    """name; kind; sources: the stage names (offline) or stage kinds (live) that can measure it."""

    name: str
    kind: MetricKind
    sources: tuple[str, ...]
    champion: bool
    """Whether stable can be measured beside it, so that `compareTo: champion` makes sense."""
    says: str

    @property
    def is_live(self) -> bool:
        """Whether it is measured on live traffic, poll by poll."""
        return self.kind != "value"


_CANARY, _BOUNDED = ("canary",), ("shadow", "canary", "probation")
_ALL = (
    Metric("canary_errors", "proportion", _BOUNDED, True, "share of requests that the release failed"),
    Metric(
        "slow_share", "proportion", _BOUNDED, True, "share of requests slower than budgetMs, as users felt it"
    ),
    Metric("utility", "utility", _CANARY, True, "realised utility per unit, in the utility spec's unit"),
    Metric("action_rate", "proportion", ("shadow",), False, "share not given the default action"),
    Metric("disagreement", "proportion", ("shadow",), False, "share decided unlike the champion"),
    Metric("call_rate_gap", "gap", ("shadow",), False, "difference of the action rates of two groups"),
    Metric("quarantined_share", "value", ("contract",), False, "share of rows that broke a rule"),
    Metric("failed_rules", "value", ("contract",), False, "contract rules whose own bound is broken"),
    Metric("rows", "value", ("contract",), False, "rows delivered"),
    Metric("validation_utility", "value", ("training",), False, "utility per decision on validation rows"),
    Metric("calibration_error", "value", ("training",), False, "expected calibration error"),
    Metric("gain_over_trivial", "value", ("alignment",), False, "per decision, over the best trivial policy"),
    Metric(
        "gain_over_champion", "value", ("alignment",), False, "per decision, over the champion, same rows"
    ),
    Metric("alignment_gap", "value", ("alignment",), False, "lost per 1,000 decisions to the best point"),
    Metric("group_call_rate_gap", "value", ("alignment",), False, "difference of the groups' action rates"),
    Metric("customer_utility", "value", ("alignment",), False, "the customer's utility per decision"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}

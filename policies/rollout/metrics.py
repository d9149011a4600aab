"""The metrics that a gate may name: their kind, where their evidence can come from, and what is better.

The kind and `compareTo` determine the statistical test (gates.md, "Which test for which gate"). A metric that
is not listed here does not exist; a new one is added here and in the service that measures it.
Must never import: anything but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["proportion", "utility", "ratio", "gap", "value"]
"""proportion: events among units; utility: payoffs per unit; ratio: a sum over another sum, both per unit; gap: the
difference of two groups' rates; value: one offline measurement."""

Worse = Literal["more", "less", "either"]


@dataclass(frozen=True)
class Metric:
    """name; kind; sources: the stage names (offline) or stage kinds (live) that can measure it.

    worse: more, less or either: on which side a bound makes sense. champion: whether stable can be measured beside it,
    in canary stages, so that `compareTo: champion` makes sense; bound: whether `compareTo: bound` does. low, high: the
    ends of what it can be, inclusive.
    """

    name: str
    kind: MetricKind
    sources: tuple[str, ...]
    says: str
    worse: Worse
    champion: bool = False
    bound: bool = True
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_live(self) -> bool:
        """Whether it is measured on live traffic, poll by poll."""
        return self.kind != "value"

    @property
    def needs_outcomes(self) -> bool:
        """Whether it rests on outcomes, which come later than the decisions."""
        return self.kind in ("utility", "ratio")


def _share(name: str, sources: tuple[str, ...], says: str, worse: Worse, *, champion: bool = False) -> Metric:
    return Metric(name, "proportion", sources, says, worse, champion, low=0.0, high=1.0)


def _payoff(name: str, kind: MetricKind, says: str) -> Metric:
    return Metric(name, kind, ("canary",), says, "less", champion=True, bound=False)


def _value(
    name: str, source: str, says: str, worse: Worse, low: float = -math.inf, high: float = math.inf
) -> Metric:
    return Metric(name, "value", (source,), says, worse, low=low, high=high)


_DECIDED, _SERVED = ("shadow", "canary"), ("shadow", "canary", "probation")
_ALL = (
    _share("canary_errors", _SERVED, "share of requests that the release failed", "more", champion=True),
    _share(
        "slow_share",
        _SERVED,
        "share of requests slower than `budget`, as users felt it",
        "more",
        champion=True,
    ),
    _payoff("utility", "utility", "realised utility per unit, in the utility spec's unit"),
    _payoff("utility_per_action", "ratio", "realised utility per unit not given the default action"),
    _share("action_rate", _DECIDED, "share not given the default action", "either", champion=True),
    _share("disagreement", ("shadow",), "share decided unlike the champion", "either"),
    Metric(
        "call_rate_gap",
        "gap",
        _DECIDED,
        "difference of two groups' action rates",
        "more",
        True,
        low=0,
        high=1,
    ),
    _value("quarantined_share", "contract", "share of rows that broke a rule", "more", 0, 1),
    _value("failed_rules", "contract", "contract rules whose own bound is broken", "more", 0),
    _value("rows", "contract", "rows delivered", "either", 0),
    _value("validation_utility", "training", "utility per decision on validation rows", "less"),
    _value("calibration_error", "training", "expected calibration error", "more", 0, 1),
    _value("gain_over_trivial", "alignment", "per decision, over the best trivial policy", "less"),
    _value("gain_over_champion", "alignment", "per decision, over the champion, same rows", "less"),
    _value("alignment_gap", "alignment", "lost per 1,000 decisions to the best point", "more", 0),
    _value("group_call_rate_gap", "alignment", "difference of the groups' action rates", "more", 0, 1),
    _value("failed_scenarios", "alignment", "scenarios of scenarios.yaml whose bound is broken", "more", 0),
    _value(
        "constraints_broken", "alignment", "constraints the operating point breaks on rows seen", "more", 0
    ),
    _value("customer_utility", "alignment", "the customer's utility per decision", "less"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


def measured_beside(name: str) -> tuple[str, ...]:
    """The metrics that the stages which measure `name` measure as well, itself among them."""
    sources = set(METRICS[name].sources)
    return tuple(metric.name for metric in METRICS.values() if sources & set(metric.sources))

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


@dataclass(frozen=True)
class Metric:
    """name; kind; sources: the stage names (offline) or stage kinds (live) that can measure it.

    champion: whether stable can be measured beside it, in canary stages, so that `compareTo: champion` makes sense.
    bound: whether `compareTo: bound` does. low, high: the ends of what it can be, inclusive.
    """

    name: str
    kind: MetricKind
    sources: tuple[str, ...]
    says: str
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


def _share(name: str, sources: tuple[str, ...], says: str, *, champion: bool = False) -> Metric:
    return Metric(name, "proportion", sources, says, champion, low=0.0, high=1.0)


def _value(name: str, source: str, says: str, low: float = -math.inf, high: float = math.inf) -> Metric:
    return Metric(name, "value", (source,), says, low=low, high=high)


_CANARY, _BOUNDED = ("canary",), ("shadow", "canary", "probation")
_ALL = (
    _share("canary_errors", _BOUNDED, "share of requests that the release failed", champion=True),
    _share("slow_share", _BOUNDED, "share of requests slower than `budget`, as users felt it", champion=True),
    Metric(
        "utility", "utility", _CANARY, "realised utility per unit, in the utility spec's unit", True, False
    ),
    Metric("utility_per_action", "ratio", _CANARY, "realised utility per unit acted on", True, False),
    _share("action_rate", ("shadow", "canary"), "share not given the default action", champion=True),
    _share("disagreement", ("shadow",), "share decided unlike the champion"),
    Metric(
        "call_rate_gap", "gap", ("shadow",), "difference of two groups' action rates", True, low=0, high=1
    ),
    _value("quarantined_share", "contract", "share of rows that broke a rule", 0, 1),
    _value("failed_rules", "contract", "contract rules whose own bound is broken", 0),
    _value("rows", "contract", "rows delivered", 0),
    _value("validation_utility", "training", "utility per decision on validation rows"),
    _value("calibration_error", "training", "expected calibration error", 0, 1),
    _value("gain_over_trivial", "alignment", "per decision, over the best trivial policy"),
    _value("gain_over_champion", "alignment", "per decision, over the champion, same rows"),
    _value("alignment_gap", "alignment", "lost per 1,000 decisions to the best point", 0),
    _value("group_call_rate_gap", "alignment", "difference of the groups' action rates", 0, 1),
    _value("customer_utility", "alignment", "the customer's utility per decision"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}

"""What a sensitivity study found, frozen: numbers for tables, pictures, gates and the ledger.

Utilities and losses are per decision in the spec's unit. A loss is what deciding by the stated numbers costs where the
varied ones are true, by the model's probabilities (never below 0 under the plain Bayes rule); the realised loss is the
same on the rows' outcomes, and below 0 where the stated numbers happen to make up for a miscalibrated model.
Must never import: anything but numpy and policies; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from policies.utility.varied_payoffs import Parameter


@dataclass(frozen=True)
class Point:
    """What becomes of the decisions if a parameter has this value.

    flipped: the share that would be decided otherwise; threshold: the median of the rows', None where none has one;
    utility: realised, of the stated decisions.
    """

    value: float
    flipped: float
    threshold: float | None
    utility: float
    loss: float
    realised_loss: float


@dataclass(frozen=True)
class Turn:
    """The value of a parameter nearest to the stated one at which the order with a rival turns; None: never."""

    rival: str
    value: float | None


@dataclass(frozen=True)
class Swing:
    """One parameter over its range: both ends, a few per cent around what is stated, and where rankings turn.

    near: flipped share at the stated value less and plus the step; nearly: rivals with which the order turns there.
    """

    parameter: Parameter
    low: Point
    high: Point
    turns: tuple[Turn, ...]
    step: float
    near_flipped: float
    near_turns: tuple[str, ...]

    @property
    def worst_loss(self) -> float:
        """The greater loss of the two ends."""
        return max(self.low.loss, self.high.loss)

    @property
    def worst_flipped(self) -> float:
        """The greater share of flipped decisions of the two ends."""
        return max(self.low.flipped, self.high.flipped)


@dataclass(frozen=True)
class Joint:
    """All parameters at once: median, 95 % and greatest of flipped share and loss over the points of a hypercube.

    turned: by rival, the share of points at which the order with it turns.
    """

    points: int
    flipped: tuple[float, float, float]
    loss: tuple[float, float, float]
    turned: Mapping[str, float]


@dataclass(frozen=True)
class Sensitivity:
    """The whole study on n rows; `swings` with the greatest effect first; `leads` by rival, at the stated numbers."""

    n: int
    unit: str
    utility: float
    threshold: float | None
    step_share: float
    most_flipped: float
    swings: tuple[Swing, ...]
    joint: Joint
    leads: Mapping[str, float] = field(default_factory=dict)

    @property
    def brittle(self) -> tuple[Swing, ...]:
        """The parameters of which a few per cent turn a ranking, or flip more decisions than `most_flipped`."""
        return tuple(one for one in self.swings if one.near_turns or one.near_flipped > self.most_flipped)

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe dict."""
        return {
            **{name: getattr(self, name) for name in ("n", "unit", "utility", "threshold", "step_share")},
            "most_flipped": self.most_flipped,
            "leads": dict(self.leads),
            "swings": [{"name": one.parameter.name, **asdict(one)} for one in self.swings],
            "joint": {**asdict(self.joint), "turned": dict(self.joint.turned)},
            "brittle": [one.parameter.name for one in self.brittle],
        }

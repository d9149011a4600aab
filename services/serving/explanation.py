"""Says why a row was decided as it was: how far it is from another action, and which features moved its probability.

Two readers. The operator wants to know how close it was: the lead in the unit of the utility, and the probability's
distance to the row's own threshold. The auditor wants what was learned apart from what somebody wrote down: so the
features explain the calibrated log-odds of an outcome (there contributions add up, in the probability they do not),
and the row's price stands by itself, in the threshold and the expected utilities. A field may thus matter twice:
`balance` moves the log-odds and, by the utility spec, the threshold. Sensitive fields are never named, whatever the
contract lets training do with them: what they add is within `others`. Must never import bentoml or torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.serving.attribution import Attribution, Model
from services.serving.scorer import Decisions, Scorer, ScorerError
from services.training.preprocessing import Encoded

# The traffic layer gives a try of the canary one second, and counts more as the canary's failure: explaining so many
# rows must stay well below. The same for every release, or a rollout would change what callers may ask.
MAX_EXPLAINED_ROWS = 50
MOST_FEATURES = 10
BASELINE = "numbers at the mean of the fitting rows, categories unknown"


@dataclass(frozen=True)
class FeaturePart:
    """What one feature adds to the log-odds, in nats; `value` as it was sent, None where it was not."""

    name: str
    value: object
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """One decision explained.

    `outcome` is the one whose log-odds are explained: the second of two, the most probable of more. `lead` >= 0 in
    `unit`: the chosen action before the next best that is not switched off, under the operating point's prices; None
    where there is none. `threshold` is the probability at which the action changes and `distance` the probability less
    it; None where there is no such probability. `features` have the greatest |contribution| first, at most 10; `others`
    is the sum of the rest, so that baseline + features + others = log-odds. `predicted`: what stood for fields that
    nobody knows yet when deciding, in their own units. `is_probability`: False for a network trained to decide, whose
    log-odds are those of a score.
    """

    outcome: str
    unit: str
    lead: float | None
    threshold: float | None
    distance: float | None
    attribution: Attribution
    features: tuple[FeaturePart, ...]
    others: float
    predicted: Mapping[str, float]
    is_probability: bool = True

    def to_json(self) -> dict[str, object]:
        """As the answer of /decide holds it."""
        what = "log-odds" if self.is_probability else "decision score, no probability,"
        return {
            "method": self.attribution.method,
            "explains": f"{what} of '{self.outcome}'",
            "baseline": {"row": BASELINE, "log_odds": self.attribution.at_baseline},
            "log_odds": self.attribution.at_row,
            "lead": self.lead,
            "unit": self.unit,
            "threshold": self.threshold,
            "distance": self.distance,
            "features": [vars(one) for one in self.features],
            "others": self.others,
            **({"predicted": dict(self.predicted)} if self.predicted else {}),
        }


class Explainer:
    """Explains the decisions of one release; `unnamed` are the fields that must not appear."""

    def __init__(self, scorer: Scorer, *, unnamed: Collection[str]) -> None:
        self._scorer = scorer
        self._unnamed = frozenset(unnamed)
        self._model = Model(scorer.preprocessing, scorer.architecture, scorer.weights, scorer.calibration)

    def explain(
        self, rows: Sequence[Any], columns: Mapping[str, NDArray[Any]], decisions: Decisions
    ) -> Iterator[Explanation]:
        """One explanation after the other, of checked `rows` (n) that are also given as `columns` (n,).

        Raises: ScorerError where a contribution is not finite.
        """
        encoded = self._scorer.preprocessing.transform(columns)
        for i, row in enumerate(rows):
            probabilities = decisions.probabilities[i]
            outcome = 1 if len(probabilities) == 2 else int(probabilities.argmax())
            one = Encoded(encoded.numeric[i : i + 1], encoded.categories[i : i + 1])
            attribution = self._model.attribute(one, outcome)
            features = self._features(row, attribution)
            threshold = self._threshold(decisions, i)
            total = attribution.at_row - attribution.at_baseline
            yield Explanation(
                outcome=self._scorer.utility.outcomes[outcome],
                unit=self._scorer.utility.unit,
                lead=float(decisions.lead[i]) if np.isfinite(decisions.lead[i]) else None,
                threshold=threshold,
                distance=None if threshold is None else float(decisions.scores[i]) - threshold,
                attribution=attribution,
                features=features,
                others=total - sum(part.contribution for part in features),
                predicted={
                    name: float(values[i])
                    for name, values in decisions.predicted.items()
                    if name not in self._unnamed
                },
                is_probability=self._scorer.calibration.kind != "none",
            )

    def _features(self, row: Mapping[str, object], attribution: Attribution) -> tuple[FeaturePart, ...]:
        contributions = attribution.contributions
        if not np.isfinite(contributions).all():
            raise ScorerError("the contributions of the features must be finite")
        names = self._scorer.preprocessing.feature_names
        order = np.argsort(-np.abs(contributions), kind="stable").tolist()
        named = [i for i in order if names[i] not in self._unnamed]
        return tuple(
            FeaturePart(names[i], row.get(names[i]), float(contributions[i])) for i in named[:MOST_FEATURES]
        )

    def _threshold(self, decisions: Decisions, i: int) -> float | None:
        # An abstention band changes the action elsewhere, too: there is no one probability to name then.
        if decisions.thresholds is None or self._scorer.operating_point.abstention is not None:
            return None
        threshold = float(decisions.thresholds[i])
        return threshold if np.isfinite(threshold) else None

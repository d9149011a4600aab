"""What a release makes of a logged row today: the same decision, or not, the prices behind it, and its explanation.

The files of the release and the row are all that is needed, so it says what the decision rested on years later. What
the contract keeps out of the log (hashed, dropped) cannot be recomputed by anybody: then it says that.
Must never import torch or bentoml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.language.yaml_source import PolicyError
from policies.utility.utility import UtilityError, UtilitySpec, expected_utility
from services.data.contract import DataContract, load_contract
from services.serving.explanation import Explainer, Explanation
from services.serving.release import Release, ReleaseError
from services.serving.row_check import RowCheck
from services.serving.scorer import Decisions, Scorer, ScorerError
from services.store.decisions import DecisionRow
from services.telemetry.disagreement import TIE, switched_off
from services.training.errors import TrainingError

SENSITIVE = "(sensitive: not shown)"
_SAME_PROBABILITY = 1e-5
_NOT_RECOMPUTED = (ReleaseError, PolicyError, UtilityError, ScorerError, TrainingError, OSError)


class NotRecomputed(RuntimeError):
    """The decision cannot be worked out again; the text says why."""


@dataclass(frozen=True)
class Recomputed:
    """A logged row, decided again. `priced` (A,): expected utilities under the operating point's prices, in the unit;
    `is_close`: within rounding of another action; `prices`: the operating point in words, one line
    each, and `proof`: how the bounds that it serves were kept."""

    action: str
    agrees: bool
    is_close: bool
    priced: tuple[float, ...]
    threshold: float | None
    explanation: Explanation
    prices: tuple[str, ...]
    proof: tuple[str, ...]


class ReleaseReader:
    """One release, read as serving reads it. Raises NotRecomputed."""

    def __init__(self, release: Release) -> None:
        try:
            file = release.folder / "contract.yaml"
            self.contract: DataContract = load_contract(file.read_text(encoding="utf-8"), str(file))
            self._scorer = Scorer.load(release)
        except _NOT_RECOMPUTED as error:
            raise NotRecomputed(f"release {release.id} cannot be read: {error}") from error
        self._sensitive = {column.name for column in self.contract.columns if column.sensitive}
        self._check = RowCheck(self.contract.columns, payoff_fields=self._scorer.needed_fields)

    @property
    def utility(self) -> UtilitySpec:
        return self._scorer.utility

    def shown_row(self, row: Mapping[str, object]) -> dict[str, object]:
        """The row as a trace may show it: sensitive values are said to be there, and not shown."""
        return {name: SENSITIVE if name in self._sensitive else value for name, value in row.items()}

    def decide_again(self, logged: DecisionRow) -> Recomputed:
        """The decision, worked out from the logged row. Raises NotRecomputed."""
        row = orjson.loads(logged.row)
        if hidden := self.contract.hidden_in_log(self._scorer.needed_fields):
            raise NotRecomputed(f"the contract keeps {', '.join(hidden)} out of the log, hashed or dropped")
        if not self._check.takes(row):
            raise NotRecomputed("the logged row is not one that this release takes")
        try:
            return self._decide(logged, row)
        except _NOT_RECOMPUTED as error:
            raise NotRecomputed(f"the row cannot be decided: {error}") from error

    def _decide(self, logged: DecisionRow, row: Mapping[str, Any]) -> Recomputed:
        columns = self._check.to_columns([row])
        names, off = self.utility.actions, switched_off(logged.gated)
        allowed = np.array([name not in off for name in names]) if off else None
        decided = self._scorer.decide(columns, allowed=allowed)
        explainer = Explainer(self._scorer, unnamed=self._sensitive)
        (explanation,) = explainer.explain([row], columns, decided)
        action = names[int(decided.actions[0])]
        before = np.array(orjson.loads(logged.probabilities), dtype=np.float64)
        low, high = self.utility.range
        return Recomputed(
            action=action,
            agrees=action == logged.action
            and bool(np.abs(decided.probabilities[0] - before).max() < _SAME_PROBABILITY),
            is_close=bool(decided.lead[0] <= TIE * (high - low)),
            priced=self._priced(columns, decided),
            threshold=explanation.threshold,
            explanation=explanation,
            prices=self._prices(),
            proof=()
            if self._scorer.operating_point.proof is None
            else self._scorer.operating_point.proof.sentences(),
        )

    def _priced(self, columns: Mapping[str, NDArray[Any]], decided: Decisions) -> tuple[float, ...]:
        seen = self._scorer.decided_on(columns)
        point = self._scorer.operating_point
        priced = point.priced(self.utility.payoffs(seen), utility=self.utility, columns=seen)
        return tuple(expected_utility(priced, decided.probabilities)[0].tolist())

    def _prices(self) -> tuple[str, ...]:
        """What the operating point adds to the payoffs, in words; nothing for the plain rule."""
        point, utility = self._scorer.operating_point, self.utility
        lines = [
            f"{action} is priced {shift:+.4g} {utility.unit} in every row"
            for action, shift in zip(utility.actions, point.shift, strict=True)
            if shift
        ]
        for action, prices in zip(utility.actions, point.prices, strict=False):
            lines += [
                f"{action} where the outcome is {outcome} is priced {price:+.4g} {utility.unit}"
                for outcome, price in zip(utility.outcomes, prices, strict=True)
                if price
            ]
        lines += [
            f"the payoffs of {name} count {price:+.4g} more" for name, price in point.stakeholder_prices
        ]
        for one in point.group_prices:
            group = one.value if one.up_to is None else f"up to {one.up_to:g}"
            lines.append(f"the groups of {one.field} ({group}, and the others) are priced apart")
        if (band := point.abstention) is not None:
            action, stake = utility.actions[band.action], f"{band.least_stake:.4g} {utility.unit}"
            lines.append(f"{action} where more than {stake} is at stake in doubt")
        return tuple(lines or ["no price: the action of highest expected utility"])

"""Recomputes what both releases of a rollout do on a row, to compare utility only where they differ.

Rule 1: whether a unit counts rests on its row, and on which actions were switched off for everyone when it was decided,
never on what was served: same row and switches, same answer, in both arms.
Rule 2: what cannot be told apart from a difference is one: a row that a release cannot score, or where its choice is
so close to a tie that rounding decides it, is compared in full.
Rule 3: an answer that is not what the release's own files give for its row is a skew of serving. Then nothing is
known of what the arms do, and utility has no evidence any more (services/telemetry/matured.py).
Answers are held against the release that gave them, so a unit that stable answered for the canary is no skew. The
faults of a rehearsal change no action: they fail (no decision is logged) or delay.
Source: gates.md, semantics 9 and 11. Must never import torch or bentoml: it runs beside the conductor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.language.yaml_source import PolicyError
from policies.utility.utility import UtilityError
from services.data.contract import load_contract
from services.serving.release import Release, ReleaseError, find_release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer, ScorerError
from services.store.evidence import DecidedUnit
from services.training.errors import TrainingError

TIE = 1e-5
"""Share of the payoff range by which the best action must lead. Float32 logits differ by some 1e-6 of themselves
between one row at a time, as served, and many at once, as here."""
_NAMED = 3

Row = Mapping[str, object]


class DisagreementError(RuntimeError):
    """What both releases would do cannot be told; the text says why."""


@dataclass(frozen=True)
class Recomputed:
    """One release's actions on n rows: `actions` (n,) names, None where the row cannot be scored; `is_sure` (n,):
    scored, and the best action leads by more than rounding."""

    actions: NDArray[np.object_]
    is_sure: NDArray[np.bool_]


class Recomputation:
    """One release, loaded from its folder as serving loads it. Raises ReleaseError, PolicyError."""

    def __init__(self, release: Release) -> None:
        file = release.folder / "contract.yaml"
        contract = load_contract(file.read_text(encoding="utf-8"), str(file))
        self._scorer = Scorer.load(release)
        if hidden := contract.hidden_in_log(self._scorer.needed_fields):
            raise DisagreementError(
                f"what {release.id} would do cannot be recomputed: its contract hides {', '.join(hidden)} in the log"
            )
        self._check = RowCheck(contract.columns, payoff_fields=self._scorer.needed_fields)
        self._names = np.array(self._scorer.utility.actions, dtype=object)
        low, high = self._scorer.utility.range
        self._tie = TIE * (high - low)

    def decide(self, rows: Sequence[Row], *, off: Sequence[tuple[str, ...]] | None = None) -> Recomputed:
        """The release's action on each row; off: the actions that were switched off when it was decided."""
        found = Recomputed(np.full(len(rows), None, dtype=object), np.zeros(len(rows), dtype=bool))
        groups: dict[tuple[str, ...], list[int]] = {}
        for at, row in enumerate(rows):
            if self._check.takes(row):
                groups.setdefault(() if off is None else off[at], []).append(at)
        for names, kept in groups.items():
            self._fill(found, rows, kept, None if not names else ~np.isin(self._names, names))
        return found

    def _fill(
        self, found: Recomputed, rows: Sequence[Row], kept: list[int], allowed: NDArray[np.bool_] | None
    ) -> None:
        """Score the rows at `kept`; one that makes scoring fail is searched for by halves, and left out."""
        if not kept:
            return
        try:
            columns = self._check.to_columns([rows[at] for at in kept])
            decided = self._scorer.decide(columns, allowed=allowed)
        except (ScorerError, TrainingError, UtilityError):
            if len(kept) > 1:
                half = len(kept) // 2
                self._fill(found, rows, kept[:half], allowed)
                self._fill(found, rows, kept[half:], allowed)
            return
        found.actions[kept] = self._names[decided.actions]
        found.is_sure[kept] = decided.lead > self._tie


@dataclass(frozen=True)
class Compared:
    """`agrees` (n,): both releases surely take the same action; `unscored`: rows that one of them cannot score;
    `skew`: what was served unlike the release's own files say, in words, or empty."""

    agrees: NDArray[np.bool_]
    unscored: int
    skew: str


class Disagreement:
    """The two releases of a rollout; their folders are read at the first comparison, once."""

    def __init__(self, releases: Path, *, champion: str | None, candidate: str) -> None:
        self._releases = releases
        self._champion = champion
        self._candidate = candidate

    def compare(self, units: Sequence[DecidedUnit]) -> Compared:
        """Both releases' actions on the units' rows. Raises DisagreementError where a release cannot be loaded."""
        rows: list[dict[str, Any]] = [orjson.loads(unit.row) for unit in units]
        off = [switched_off(unit.gated) for unit in units]
        by_release = {name: one.decide(rows, off=off) for name, one in self._loaded.items()}
        one, other = by_release.values()
        agrees = one.is_sure & other.is_sure & (one.actions == other.actions)
        unscored = int(((one.actions == None) | (other.actions == None)).sum())  # noqa: E711 — by element
        return Compared(agrees, unscored, _skew(units, by_release))

    @cached_property
    def _loaded(self) -> dict[str, Recomputation]:
        if self._champion is None:
            raise DisagreementError("the rollout names no champion whose actions could be recomputed")
        if self._champion == self._candidate:
            raise DisagreementError(f"champion and candidate are one release, {self._candidate}")
        return {name: self._load(name) for name in (self._champion, self._candidate)}

    def _load(self, release: str) -> Recomputation:
        try:
            return Recomputation(find_release(self._releases, release))
        except (ReleaseError, PolicyError, OSError) as error:
            raise DisagreementError(f"release {release} cannot be loaded to recompute: {error}") from error


def switched_off(gated: str | None) -> tuple[str, ...]:
    """The actions that were off when a row was decided, from the `gated` of its record."""
    return () if gated is None else tuple(orjson.loads(gated)["off"])


def _skew(units: Sequence[DecidedUnit], by_release: Mapping[str, Recomputed]) -> str:
    """Answers unlike the release's own, and answers of a third release. Within rounding of a tie nothing is said."""
    wrong = []
    for at, unit in enumerate(units):
        found = by_release.get(unit.release)
        if found is None:
            wrong.append(f"{unit.decision_id} (answered by {unit.release}, neither release of this rollout)")
        elif found.actions[at] is None:
            wrong.append(f"{unit.decision_id} ({unit.release} answered a row that its files refuse)")
        elif found.is_sure[at] and found.actions[at] != unit.action:
            said = f"served '{unit.action}', its files give '{found.actions[at]}'"
            wrong.append(f"{unit.decision_id} ({unit.release} {said})")
    if not wrong:
        return ""
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return (
        f"{len(wrong)} of {len(units)} answers are not the release's own: {', '.join(wrong[:_NAMED])}{more}"
    )

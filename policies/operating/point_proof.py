"""What was proved of an operating point: per constraint what was required, with which margin, and what rows showed.

It travels in the release beside the rule, for people and auditors; no action depends on it.
Must never import: anything but the standard library; no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Kept:
    """One constraint at the point found.

    `value` was measured on `rows` validation rows; `limit` is its confidence limit on the side of the bound, at
    `confidence` by `method`. `verdict`: kept where the limit keeps the bound, unsure where only the value does. `price`
    is the multiplier in the spec's unit (0: the constraint does not bind). `test_value` was measured on `test_rows`
    later rows, None before. `note` says why a constraint could not be steered to.
    """

    constraint: str
    required: str
    method: str
    confidence: float
    price: float
    value: float | None
    limit: float | None
    rows: int
    verdict: Literal["kept", "unsure", "broken"]
    test_value: float | None = None
    test_rows: int = 0
    is_kept_on_test: bool | None = None
    note: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the bound is kept with its margin, not only by the value."""
        return self.verdict == "kept"

    def sentence(self) -> str:
        """`calls_made: <= 0.6 with 98% confidence: 0.41 on 9,042 validation rows, at most 0.42 (kept) …`."""
        if self.value is None or self.limit is None:
            return f"{self.constraint}: {self.required}: no data, so not kept"
        word = {"kept": "kept", "unsure": "kept, but not surely", "broken": "NOT KEPT"}[self.verdict]
        text = (
            f"{self.constraint}: {self.required} with {self.confidence:.3%} confidence: {self.value:.4g} on "
            f"{self.rows:,} validation rows, limit {self.limit:.4g}: {word}"
        )
        if self.test_value is not None:
            text += f"; {self.test_value:.4g} on {self.test_rows:,} test rows"
        return text + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class PointProof:
    """All constraints at the point found. `conflict` names those that cannot be kept together on these rows; then the
    point is the closest reachable one: every bound that can be steered to, eased by the same `easing` (a share, or
    that share of the payoffs' range), and no less would do. `abstains` is the share of validation rows given the
    abstention's action for want of evidence."""

    kept: tuple[Kept, ...]
    conflict: tuple[str, ...] = ()
    easing: float = 0.0
    abstains: float = 0.0

    @property
    def is_met(self) -> bool:
        """Whether every constraint is kept on validation rows, with its margin."""
        return all(one.is_kept for one in self.kept)

    @property
    def broken(self) -> tuple[str, ...]:
        """Constraints whose value breaks the bound, or is not there, on validation rows or on the later ones.

        One that is kept without its margin is not among them.
        """
        return tuple(
            one.constraint for one in self.kept if one.verdict == "broken" or one.is_kept_on_test is False
        )

    def sentences(self) -> tuple[str, ...]:
        """One per constraint; where not all can be kept, first which, and how close the point comes."""
        found = [one.sentence() for one in self.kept]
        if self.conflict:
            names = " and ".join(f"'{name}'" for name in self.conflict)
            together = "together " if len(self.conflict) > 1 else ""
            found.insert(
                0,
                f"{names} cannot be kept {together}on these rows; the closest reachable point eases every bound by "
                f"{self.easing:.4g}",
            )
        return tuple(found)

    def with_test(self, values: Mapping[str, tuple[float | None, bool, int]]) -> PointProof:
        """The same with what later rows showed: by constraint the value, whether it keeps the bound, and the rows."""
        return replace(
            self,
            kept=tuple(
                one
                if one.constraint not in values
                else replace(
                    one,
                    test_value=values[one.constraint][0],
                    is_kept_on_test=values[one.constraint][1],
                    test_rows=values[one.constraint][2],
                )
                for one in self.kept
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict, JSON-safe."""
        return {**asdict(self), "kept": [asdict(one) for one in self.kept], "conflict": list(self.conflict)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PointProof:
        """The inverse of to_json; raises TypeError or KeyError for anything else."""
        return cls(
            kept=tuple(Kept(**one) for one in value["kept"]),
            conflict=tuple(value["conflict"]),
            easing=value["easing"],
            abstains=value["abstains"],
        )

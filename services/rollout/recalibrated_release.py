"""What came of a recalibration, in words and numbers: the new release, what it rests on, what it earns on later rows.

Must never import Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.reports.panels import Table
from services.rollout.outcome_rows import OutcomeRows
from services.serving.release import Release
from services.training.calibration import LEAST_SLOPE
from services.training.recalibrate import Recalibration


@dataclass(frozen=True)
class Judged:
    """On the later rows: what parent and new release earn a decision, and how often they act.

    `seen_gain`: the part of the gain that rests on seen outcomes; `unseen_acts`: rows without a seen outcome on which
    the new release would act and the parent would not.
    """

    rows: int
    seen: int
    before: float
    after: float
    seen_gain: float
    acts_before: float
    acts_after: float
    unseen_acts: int


@dataclass(frozen=True)
class RecalibratedRelease:
    """The new release, what it was made of, and what it earns on later rows."""

    release: Release
    parent: str
    fitted: Recalibration
    rows: OutcomeRows
    fitted_rows: int
    judged: Judged
    unit: str
    outcomes: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """For people, one fact a line."""
        seen, judged = int(self.rows.is_seen.sum()), self.judged
        lines = [
            f"{len(self.rows):,} rows ({self.rows.source}), {seen:,} of them with a known outcome; "
            f"the outcomes of the other {len(self.rows) - seen:,} were not seen",
            *(f"left out: {count:,} {why}" for why, count in self.rows.left_out.items() if count),
            f"{self.fitted.method} on the earlier {self.fitted_rows:,}{_losses(self.fitted)}",
            *self._rates(),
            f"on the later {judged.rows:,} ({judged.seen:,} outcomes seen): {judged.before:+.4f} → {judged.after:+.4f} "
            f"{self.unit} a decision; acts on {judged.acts_before:.1%} → {judged.acts_after:.1%}",
        ]
        if self.fitted.calibration.slope <= LEAST_SLOPE:
            lines.append(
                "the scores no longer tell the outcomes of these rows apart: what is left is the base rate and "
                "each row's payoffs. Retrain"
            )
        if self.rows.later_than is None:
            lines.append(
                f"{self.parent} does not say up to when it was made of rows: that these are later, nobody has checked"
            )
        if judged.seen < judged.rows:
            lines.append(
                f"of that gain {judged.seen_gain:+.4f} was seen; it newly acts on {judged.unseen_acts:,} rows whose "
                "outcome nobody saw: there it, and every bound that needs outcomes, is the model's word, until the "
                "canary tries it. Assumed: what was done rested on the row and the release alone"
            )
        return tuple(lines)

    def _rates(self) -> tuple[str, ...]:
        """The base rates that were estimated without outcomes."""
        errors = self.fitted.rate_errors
        if errors is None:
            return ()
        each = zip(self.outcomes, self.fitted.base_rates, errors, strict=True)
        found = ", ".join(f"{name} {rate:.1%} ± {1.96 * error:.1%}" for name, rate, error in each)
        return (f"without outcomes: {found} (95 %), if the rows of each outcome look as they did",)

    def to_json(self) -> dict[str, object]:
        """All of it, JSON-safe."""
        return {
            "release": self.release.id,
            "parent": self.parent,
            "method": self.fitted.method,
            "calibration": self.fitted.calibration.to_json(),
            "source": self.rows.source,
            "rows": len(self.rows),
            "seen": int(self.rows.is_seen.sum()),
            "left_out": dict(self.rows.left_out),
            "later_than": self.rows.later_than,
            "fitted": {
                "rows": self.fitted_rows,
                "outcomes": list(self.fitted.seen),
                "log_loss_before": self.fitted.loss_before,
                "log_loss_after": self.fitted.loss_after,
                "base_rates": list(self.fitted.base_rates),
                "rate_errors": None if self.fitted.rate_errors is None else list(self.fitted.rate_errors),
            },
            "judged": {**vars(self.judged)},
        }


def seen_panel(earlier: OutcomeRows, later: OutcomeRows) -> Table:
    """How much of what the report says rests on outcomes that somebody saw."""
    parts = (("earlier: fitted, operating point found", earlier), ("later: what follows here", later))
    rows = tuple(
        (name, f"{len(part):,}", f"{int(part.is_seen.sum()):,}", f"{int((~part.is_seen).sum()):,}")
        for name, part in parts
    )
    drawn = float((~later.is_seen).mean())
    return Table(
        title="Rows, and how many of their outcomes were seen",
        header=("rows in the order of time", "rows", "outcome seen", "outcome drawn"),
        rows=rows,
        value=drawn,
        note="Where nobody saw the outcome it is drawn from a map fitted on the part's own rows: the model's word, "
        "which the intervals below take for seen. The canary tries it."
        if drawn
        else "Every outcome was seen.",
    )


def _losses(fitted: Recalibration) -> str:
    if fitted.loss_before is None or fitted.loss_after is None:
        return ", none of which has an outcome"
    return f": log loss {fitted.loss_before:.4f} → {fitted.loss_after:.4f} nats"

"""What a column and a quality rule of a data contract are.

Serving validates requests with these, so they must stay quick to import: standard library only.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "category", "text", "boolean", "timestamp"]
Role = Literal["feature", "payoff", "label", "entity", "event_time", "audit", "excluded"]
Metric = Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount", "sql"]
Severity = Literal["error", "warning", "info"]
InLog = Literal["plain", "hashed", "dropped"]
Unit = Literal["rows", "percent"]


@dataclass(frozen=True)
class Column:
    """One declared column.

    `minimum` and `maximum` are inclusive (epoch seconds UTC for a timestamp). `categories` is set exactly
    when `kind` is "category". `available_at_s`: seconds after the decision at which the value is known (0
    or less: known when deciding). `sensitive`: a protected attribute; it is a feature only if "training" is
    in `allowed_uses`. `pattern`: a regular expression that the whole text must match. `in_log`: how its values stand
    in the decision log; what is not plain can be recomputed from the log by nobody.
    """

    name: str
    kind: Kind
    required: bool
    role: Role
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    available_at_s: float = 0.0
    sensitive: bool = False
    allowed_uses: tuple[str, ...] = ()
    unique: bool = False
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    description: str = ""
    in_log: InLog = "plain"


@dataclass(frozen=True)
class Bound:
    """What a measured number must satisfy; `operator` is the ODCS key, e.g. "mustBeLessThan"."""

    operator: str
    values: tuple[float, ...]

    def holds(self, value: float) -> bool:
        """Whether `value` satisfies the bound. NaN satisfies nothing. `mustBeBetween` is inclusive."""
        if value != value:
            return False
        low, high = self.values[0], self.values[-1]
        return {
            "mustBe": value == low,
            "mustNotBe": value != low,
            "mustBeGreaterThan": value > low,
            "mustBeGreaterOrEqualTo": value >= low,
            "mustBeLessThan": value < low,
            "mustBeLessOrEqualTo": value <= low,
            "mustBeBetween": low <= value <= high,
            "mustNotBeBetween": not low <= value <= high,
        }[self.operator]

    def __str__(self) -> str:
        """E.g. `mustBeLessThan 0.5`."""
        return f"{self.operator} {' and '.join(f'{value:g}' for value in self.values)}"


@dataclass(frozen=True)
class QualityRule:
    """One ODCS quality rule: a count over `columns`, or the one number that `query` returns, and its bound.

    `nullValues`, `invalidValues` and `duplicateValues` of one column also quarantine the rows they count;
    everything else judges the delivery as a whole.
    """

    name: str
    metric: Metric
    columns: tuple[str, ...]
    bound: Bound
    unit: Unit = "rows"
    severity: Severity = "error"
    valid_values: tuple[str, ...] = ()
    pattern: str | None = None
    missing_values: tuple[str | None, ...] = ()
    query: str | None = None
    description: str = ""
    of_table: bool = False

    @property
    def quarantines(self) -> bool:
        """Whether the rows that the rule counts are set aside."""
        return not self.of_table and self.metric in ("nullValues", "invalidValues", "duplicateValues")

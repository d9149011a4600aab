"""The data contract as Trimtab uses it: columns with type, bounds, role and availability, and the quality rules.

Decides which column may reach the model (role `feature`), which only the audit step, and which nobody; refuses
leakage and unlawful use when the file is read. Source: Open Data Contract Standard v3.1 (Bitol), with the ML fields
in its `customProperties`. Serving imports this module for request validation, so it must stay quick to import:
it must never import polars, duckdb, pandas or torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "category", "text", "boolean", "timestamp"]
Role = Literal["feature", "label", "entity", "event_time", "audit", "excluded"]
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Column:
    """One declared column.

    `minimum` and `maximum` are inclusive (epoch seconds UTC for a timestamp). `categories` is set exactly when `kind`
    is "category". `available_at_s`: seconds after the decision at which the value is known (0 or less: known when
    deciding). `sensitive`: a protected attribute; it is a feature only if "training" is in `allowed_uses`.
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


@dataclass(frozen=True)
class Bound:
    """What a measured count (or per cent) must satisfy: `operator` is the ODCS key, e.g. "mustBeLessThan"."""

    operator: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class QualityRule:
    """One ODCS quality rule: a count over `columns` (or one number from `query`) and the bound it must satisfy.

    A rule about a column's values also quarantines the rows it counts; `rowCount` and `sql` judge the whole delivery.
    """

    name: str
    metric: Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount", "sql"]
    columns: tuple[str, ...]
    bound: Bound
    unit: Literal["rows", "percent"] = "rows"
    severity: Severity = "error"
    valid_values: tuple[str, ...] = ()
    pattern: str | None = None
    missing_values: tuple[str | None, ...] = ()
    query: str | None = None
    description: str = ""


@dataclass(frozen=True)
class DataContract:
    """A checked contract. Columns stand in the file's order; `feature_names` is the model's input order."""

    id: str
    name: str
    version: str
    table: str
    columns: tuple[Column, ...]
    label: str
    label_outcomes: Mapping[str, str]
    entity_key: str
    event_time: str
    label_delay_s: float
    rules: tuple[QualityRule, ...]
    digest: str

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns that may be the model's input: known at the decision, allowed for training."""
        return self.names("feature")

    @property
    def audit_names(self) -> tuple[str, ...]:
        """Columns that only the audit step (group gaps) may see."""
        return self.names("audit")

    def names(self, role: Role) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role == role)

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError naming what exists."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"no column {name!r} in the contract; there are {[c.name for c in self.columns]}")


def load_contract(text: str, source: str) -> DataContract:
    """Read and check a contract. Raises policies.yaml_source.PolicyError with every error as file:line:column."""
    raise NotImplementedError

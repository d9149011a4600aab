"""Reads the columns of a contract, and refuses what would leak or be unlawful.

Decides: a feature must be known when deciding (availableAt 0s or less), what payoffs alone read only afterwards, and a
sensitive attribute may be either only if `training` is among its allowed uses. Must never import: polars, duckdb.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, get_args

from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path
from services.data.columns import Column, InLog, Kind, Role
from services.data.custom_properties import ROLES, USES, CustomProperties

_KINDS: Mapping[str, Kind] = {
    "string": "text",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "timestamp": "timestamp",
    "date": "timestamp",
}
_OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "text": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"),
    "timestamp": ("minimum", "maximum", "format", "timezone", "defaultTimezone"),
    "boolean": (),
}


@dataclass
class ReadColumns:
    """The columns, and what the label's column says about outcomes and their delay (seconds)."""

    columns: tuple[Column, ...] = ()
    label: str = ""
    label_delay_s: float = 0.0
    label_outcomes: Mapping[str, str] = field(default_factory=dict)


def read_columns(document: Document, *, entity_key: str, event_time: str, issues: list[Issue]) -> ReadColumns:
    """Every declared column; what is wrong with them is added to `issues`."""
    found, columns, seen = ReadColumns(), [], set[str]()
    entries = document.data.get("schema") or [{}]
    for index, entry in enumerate(entries[0].get("properties", ())):
        path: Path = ("schema", 0, "properties", index)
        reader = _ColumnReader(document, path, entry, issues)
        column = reader.column(special={entity_key: "entity", event_time: "event_time"})
        if column.name in seen:
            issues.append(document.issue((*path, "name"), f"column '{column.name}' is declared twice"))
        seen.add(column.name)
        if column.role == "label":
            if found.label:
                issues.append(
                    document.issue((*path, "name"), f"is a second label; '{found.label}' is the first")
                )
            found.label, found.label_delay_s = column.name, column.available_at_s
            found.label_outcomes = reader.label_outcomes(column)
        columns.append(column)
    found.columns = tuple(columns)
    for role, what in (("label", "what the model learns"), ("feature", "what the model sees")):
        if not any(column.role == role for column in columns):
            message = f"must have a column with mlRole {role} ({what})"
            issues.append(document.issue(("schema", 0, "properties"), message, of_key=True))
    return found


@dataclass(frozen=True)
class _ColumnReader:
    document: Document
    path: Path
    entry: Mapping[str, Any]
    issues: list[Issue]

    def column(self, *, special: Mapping[str, Role]) -> Column:
        name = self.entry["name"]
        custom = self._custom()
        role = self._role(custom, special.get(name))
        kind, categories = self._kind()
        minimum, maximum = self._range(kind)
        options = self._options(kind)
        column = Column(
            name=name,
            kind=kind,
            required=self.entry.get("required", False),
            role=role,
            minimum=minimum,
            maximum=maximum,
            categories=categories,
            sensitive=custom.flag("sensitiveAttribute"),
            allowed_uses=custom.texts("allowedUses", USES),
            unique=self.entry.get("unique", False) or self.entry.get("primaryKey", False),
            pattern=self._pattern(options),
            min_length=options.get("minLength"),
            max_length=options.get("maxLength"),
            description=self.entry.get("description", ""),
            in_log=self._in_log(custom),
        )
        self._check_kind(column)
        self._check_use(column, custom)
        return replace(column, available_at_s=self._availability(column, custom))

    def label_outcomes(self, column: Column) -> Mapping[str, str]:
        """Each value of the label, to an outcome's name; every value once."""
        custom = self._custom(quiet=True)
        value, path = custom.values.get("labelOutcomes"), custom.paths.get("labelOutcomes", self.path)
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            self._issue(path, "labelOutcomes must map each value of the label to an outcome's name")
            return {}
        known = column.categories or ()
        for key in value:
            if key not in known:
                hint = did_you_mean(key, known)
                message = f"'{key}' is no value of the label{hint} (values: {', '.join(known)})"
                self.issues.append(self.document.issue((*path, key), message, of_key=True))
        missing = [key for key in known if key not in value]
        if missing:
            self._issue(path, f"labelOutcomes must name an outcome for {', '.join(missing)}")
        return dict(value)

    def _in_log(self, custom: CustomProperties) -> InLog:
        """How the values stand in the decision log; what is not understood is left out of it."""
        if not custom.has("decisionLog"):
            return "plain"
        said = custom.text("decisionLog", get_args(InLog))
        return next((way for way in get_args(InLog) if way == said), "dropped")

    def _custom(self, *, quiet: bool = False) -> CustomProperties:
        entries = self.entry.get("customProperties")
        return CustomProperties.read(self.document, self.path, entries, issues=[] if quiet else self.issues)

    def _issue(self, path: Path, message: str) -> None:
        self.issues.append(self.document.issue(path, message))

    def _role(self, custom: CustomProperties, special: Role | None) -> Role:
        if special is not None:
            custom.forbid("mlRole", f"this column is the table's {special.replace('_', ' ')}")
            return special
        custom.require("mlRole", f"say one of {', '.join(ROLES)}")
        role = custom.text("mlRole", ROLES)
        return next((r for r in get_args(Role) if r == role), "excluded")

    def _kind(self) -> tuple[Kind, tuple[str, ...] | None]:
        logical = self.entry.get("logicalType")
        kind = _KINDS.get(str(logical))
        if kind is None:
            known = ", ".join(_KINDS)
            self._issue((*self.path, "logicalType"), f"must be one of {known}: {logical} (a row is flat)")
            return "text", None
        categories = self._categories()
        if categories is not None and kind != "text":
            message = (
                f"has a list of values, which needs logicalType string: {logical} (use minimum, maximum)"
            )
            self._issue((*self.path, "logicalType"), message)
        return ("category", categories) if categories is not None else (kind, None)

    def _categories(self) -> tuple[str, ...] | None:
        """The values of `enum` (v3.2) or of the first invalidValues rule with validValues (v3.1)."""
        if "enum" in self.entry:
            values: Any = [e["value"] for e in self.entry["enum"]]
            path: Path = (*self.path, "enum")
        else:
            for index, rule in enumerate(self.entry.get("quality", ())):
                arguments = rule.get("arguments")
                if rule.get("metric") == "invalidValues" and isinstance(arguments, dict):
                    values = arguments.get("validValues")
                    path = (*self.path, "quality", index, "arguments", "validValues")
                    if values is not None:
                        break
            else:
                return None
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values) or not values:
            self._issue(path, f"must be a list of texts (quote them): {values!r}")
            return None
        if len(set(values)) != len(values):
            self._issue(path, "must not hold a value twice")
        return tuple(values)

    def _options(self, kind: Kind) -> Mapping[str, Any]:
        """logicalTypeOptions; one that is not enforced is refused, so that nobody relies on it."""
        options: Mapping[str, Any] = self.entry.get("logicalTypeOptions", {})
        enforced = _OPTIONS["text" if kind == "category" else kind]
        for key in options:
            if key not in enforced:
                message = f"is not enforced by Trimtab for this type (known: {', '.join(enforced) or 'none'})"
                path = (*self.path, "logicalTypeOptions", key)
                self.issues.append(self.document.issue(path, f"'{key}' {message}", of_key=True))
        return options

    def _range(self, kind: Kind) -> tuple[float | None, float | None]:
        options = self.entry.get("logicalTypeOptions", {})
        low, high = self._bound(kind, "minimum"), self._bound(kind, "maximum")
        if kind in ("number", "integer"):
            above, below = options.get("exclusiveMinimum"), options.get("exclusiveMaximum")
            if above is not None:
                low = max(low if low is not None else -math.inf, _next_above(above, kind))
            if below is not None:
                high = min(high if high is not None else math.inf, -_next_above(-below, kind))
        if low is not None and high is not None and low > high:
            message = f"leaves no value: minimum {low:g} is above maximum {high:g}"
            self._issue((*self.path, "logicalTypeOptions"), message)
        return low, high

    def _bound(self, kind: Kind, key: str) -> float | None:
        value = self.entry.get("logicalTypeOptions", {}).get(key)
        if value is None or kind != "timestamp":
            return float(value) if isinstance(value, int | float) else None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self._issue(
                (*self.path, "logicalTypeOptions", key), f"must be an ISO 8601 date or time: {value!r}"
            )
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def _pattern(self, options: Mapping[str, Any]) -> str | None:
        pattern = options.get("pattern")
        if isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                path = (*self.path, "logicalTypeOptions", "pattern")
                self._issue(path, f"must be a regular expression: {error}")
        return pattern

    def _check_kind(self, column: Column) -> None:
        path = (*self.path, "logicalType")
        if column.role == "feature" and column.kind in ("text", "timestamp"):
            message = (
                "cannot be a feature: list its values with an invalidValues rule, or derive a number from it"
            )
            self._issue(path, f"{self.entry.get('logicalType')} {message}")
        if column.role == "payoff" and column.kind not in ("number", "integer", "boolean"):
            self._issue(path, f"of what payoffs read must be a number: {self.entry.get('logicalType')}")
        if column.role == "label" and column.kind != "category":
            self._issue(
                path, "of the label needs a list of its values: a quality rule invalidValues with validValues"
            )
        if column.role == "event_time" and column.kind != "timestamp":
            self._issue(path, f"of the event time must be timestamp or date: {self.entry.get('logicalType')}")

    def _check_use(self, column: Column, custom: CustomProperties) -> None:
        if column.sensitive:
            custom.require(
                "allowedUses", f"a sensitive attribute says what it may be used for: {', '.join(USES)}"
            )
        is_learned = column.role in ("feature", "payoff")
        if is_learned and "training" not in column.allowed_uses and custom.has("allowedUses"):
            which = "a sensitive attribute" if column.sensitive else "this column"
            uses = ", ".join(column.allowed_uses) or "nothing"
            message = f"must not be {column.role}: {which} is allowed for {uses} only"
            custom.refuse(
                "mlRole", f"of '{column.name}' {message}; use mlRole audit, or add training to allowedUses"
            )

    def _availability(self, column: Column, custom: CustomProperties) -> float:
        """Seconds after the decision at which the value is known."""
        if column.role == "label":
            custom.forbid("availableAt", "a label says labelDelay")
            custom.require("labelDelay", "after how long is the outcome surely known?")
            custom.require("labelOutcomes", "which outcome of utility.yaml is each value?")
            delay_s = custom.seconds("labelDelay") or 0.0
            if delay_s < 0:
                custom.refuse("labelDelay", f"must be >= 0s: {custom.values['labelDelay']}")
            return delay_s
        for name in ("labelDelay", "labelOutcomes"):
            custom.forbid(name, "only the label has it")
        if column.role in ("feature", "payoff"):
            custom.require("availableAt", "is the value known when deciding (0s)?")
        available_at_s = custom.seconds("availableAt") or 0.0
        if column.role == "payoff" and available_at_s <= 0 and custom.has("availableAt"):
            custom.refuse(
                "mlRole",
                f"of '{column.name}' must not be payoff: its value is known when deciding (availableAt "
                f"{custom.values['availableAt']}); use mlRole feature or audit, which payoffs read as it is",
            )
        if column.role == "feature" and available_at_s > 0:
            when = custom.values["availableAt"]
            custom.refuse(
                "mlRole",
                f"of '{column.name}' must not be feature: its value is known only {when} after the decision "
                f"(availableAt), so a model trained on it would lean on what it cannot know when it decides "
                f"(leakage); use mlRole excluded, or payoff where utility.yaml prices it",
            )
        return available_at_s


def _next_above(value: float, kind: Kind) -> float:
    """The smallest allowed value that is greater than `value`."""
    return math.floor(value) + 1.0 if kind == "integer" else math.nextafter(value, math.inf)

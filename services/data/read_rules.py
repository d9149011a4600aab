"""Reads the quality rules of a contract: ODCS library metrics and SQL, each with its bound.

A rule that would not be run is refused rather than passed over in silence (`type: text` is documentation
and may stand). Must never import: polars, duckdb.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path
from services.data.columns import Bound, Column, Metric, QualityRule, Severity, Unit

_OPERATORS = (
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
)
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "missingValues": ("missingValues",),
    "invalidValues": ("validValues", "pattern"),
    "duplicateValues": ("properties",),
}
_UNENFORCED = ("schedule", "scheduler", "method")
_PLACEHOLDER = re.compile(r"\$\{(\w*)\}")
_TABLE_PLACEHOLDERS = ("object", "table")
_COLUMN_PLACEHOLDERS = ("property", "column")


def read_rules(
    document: Document, columns: tuple[Column, ...], *, issues: list[Issue]
) -> tuple[QualityRule, ...]:
    """Every rule of the columns, then of the table; what is wrong with them is added to `issues`."""
    tables = document.data.get("schema") or [{}]
    rules: list[QualityRule] = []
    names = tuple(column.name for column in columns)
    owners: list[tuple[Path, Any, str | None]] = [
        (("schema", 0, "properties", i), entry, entry["name"])
        for i, entry in enumerate(tables[0].get("properties", ()))
    ]
    for owner, entry, column in [*owners, (("schema", 0), tables[0], None)]:
        for index, rule in enumerate(entry.get("quality", ())):
            if rule.get("type", "library") == "text":
                continue
            reader = _RuleReader(document, (*owner, "quality", index), rule, column, names, issues)
            found = reader.rule()
            if found is None:
                continue
            if any(found.name == other.name for other in rules):
                reader.issue("name", f"rule '{found.name}' is declared twice; names tell rules apart")
            rules.append(found)
    return tuple(rules)


@dataclass(frozen=True)
class _RuleReader:
    document: Document
    path: Path
    entry: Mapping[str, Any]
    column: str | None
    names: tuple[str, ...]
    issues: list[Issue]

    def issue(self, key: str, message: str) -> None:
        self.issues.append(self.document.issue((*self.path, key), message))

    def rule(self) -> QualityRule | None:
        metric = self._metric()
        for key in _UNENFORCED:
            if key in self.entry:
                self.issue(key, "is not enforced by Trimtab: rules run whenever data comes in")
        bound = self._bound()
        unit = self._choice("unit", get_args(Unit), "rows")
        severity = self._choice("severity", get_args(Severity), "error")
        if metric is None or bound is None:
            return None
        arguments = self._arguments(metric)
        where = self.column or "table"
        return QualityRule(
            name=str(self.entry.get("name", f"{where}.{metric}")),
            metric=metric,
            columns=self._columns(metric, arguments),
            bound=bound,
            unit=next(u for u in get_args(Unit) if u == unit),
            severity=next(s for s in get_args(Severity) if s == severity),
            valid_values=tuple(v for v in _listed(arguments, "validValues") if isinstance(v, str)),
            pattern=self._pattern(arguments),
            missing_values=tuple(None if v is None else str(v) for v in _listed(arguments, "missingValues")),
            query=self._query() if metric == "sql" else None,
            description=str(self.entry.get("description", "")),
            of_table=self.column is None,
        )

    def _metric(self) -> Metric | None:
        kind, metric = self.entry.get("type", "library"), self.entry.get("metric")
        if kind == "custom":
            self.issue("type", "custom is not run by Trimtab: use library or sql (or text, for people)")
            return None
        if kind == "sql":
            for key in ("metric", "arguments"):
                if key in self.entry:
                    self.issue(key, "has no place in a rule of type sql")
            return "sql"
        if metric is None:
            self.issue("metric", "is missing: say a metric, or `type: sql` with a query")
            return None
        if "query" in self.entry:
            self.issue("query", "needs `type: sql`")
        if self.column is None and metric not in ("rowCount", "duplicateValues"):
            self.issue("metric", f"{metric} is about one column: move the rule there")
            return None
        if self.column is not None and metric == "rowCount":
            self.issue("metric", "rowCount is about the table: move the rule there")
            return None
        return next(m for m in get_args(Metric) if m == metric)

    def _bound(self) -> Bound | None:
        given = [key for key in _OPERATORS if key in self.entry]
        if len(given) != 1:
            self.issue("", f"must have exactly one of {', '.join(_OPERATORS)}")
            return None
        value = self.entry[given[0]]
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            self.issue(given[0], f"must be a number: {value!r}")
            return None
        if len(values) == 2 and values[0] > values[1]:
            self.issue(given[0], f"must have the smaller number first: {value}")
        return Bound(given[0], tuple(float(v) for v in values))

    def _choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = str(self.entry.get(key, default))
        if value not in allowed:
            self.issue(key, f"must be one of {', '.join(allowed)}: {value}{did_you_mean(value, allowed)}")
            return default
        return value

    def _arguments(self, metric: Metric) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = self.entry.get("arguments", {})
        known = _ARGUMENTS.get(metric, ())
        if metric == "duplicateValues" and self.column is not None:
            known = ()
        for key in arguments:
            if key not in known:
                hint = f"{did_you_mean(key, known)} (known: {', '.join(known) or 'none'})"
                path = (*self.path, "arguments", key)
                self.issues.append(self.document.issue(path, f"unknown argument '{key}'{hint}", of_key=True))
        if metric == "missingValues" and "missingValues" not in arguments:
            self.issue("arguments", "must list missingValues: which values mean that nothing is known?")
        if metric == "invalidValues" and not {"validValues", "pattern"} & arguments.keys():
            self.issue("arguments", "must say validValues or pattern")
        for key in set(known) - {"pattern"}:
            if key in arguments and not isinstance(arguments[key], list):
                self.issues.append(self.document.issue((*self.path, "arguments", key), "must be a list"))
        return arguments

    def _columns(self, metric: Metric, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        if self.column is not None:
            return (self.column,)
        if metric != "duplicateValues":
            return ()
        columns = tuple(str(name) for name in _listed(arguments, "properties"))
        if not columns:
            self.issue("arguments", "must list properties: which columns together are to be unique?")
        for index, name in enumerate(columns):
            if name not in self.names:
                path = (*self.path, "arguments", "properties", index)
                message = f"must name a declared column: '{name}'{did_you_mean(name, self.names)}"
                self.issues.append(self.document.issue(path, message))
        return columns

    def _pattern(self, arguments: Mapping[str, Any]) -> str | None:
        pattern = arguments.get("pattern")
        if pattern is None:
            return None
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            path = (*self.path, "arguments", "pattern")
            self.issues.append(self.document.issue(path, f"must be a regular expression: {error}"))
        return str(pattern)

    def _query(self) -> str:
        """The query, its ${object} (or ${table}) and ${property} (or ${column}) not filled in yet."""
        query = str(self.entry.get("query", ""))
        known = (*_TABLE_PLACEHOLDERS, *(_COLUMN_PLACEHOLDERS if self.column else ()))
        for name in _PLACEHOLDER.findall(query):
            if name not in known:
                self.issue(
                    "query",
                    f"holds an unknown ${{{name}}}{did_you_mean(name, known)} (known: {', '.join(known)})",
                )
        return query


def fill_placeholders(query: str, *, table: str, column: str | None) -> str:
    """The query with the names in place of `${object}` and `${property}`, quoted for SQL."""
    names = {name: table for name in _TABLE_PLACEHOLDERS}
    names |= {name: column for name in _COLUMN_PLACEHOLDERS if column is not None}
    return _PLACEHOLDER.sub(lambda match: '"' + names[match[1]].replace('"', '""') + '"', query)


def _listed(arguments: Mapping[str, Any], key: str) -> list[Any]:
    value = arguments.get(key)
    return value if isinstance(value, list) else []

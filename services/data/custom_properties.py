"""The machine-learning fields of a contract, carried in ODCS `customProperties`: names, places, values.

A misspelled name would silently drop a protection, so an unknown one is an error. Must never import:
polars, duckdb.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from policies.language.yaml_mistakes import did_you_mean
from policies.language.yaml_source import Document, Issue, Path

TABLE_NAMES = ("entityKey", "eventTime")
COLUMN_NAMES = (
    "mlRole",
    "availableAt",
    "sensitiveAttribute",
    "allowedUses",
    "labelDelay",
    "labelOutcomes",
    "decisionLog",
)
ROLES = ("feature", "payoff", "label", "audit", "excluded")
USES = ("training", "audit", "monitoring")

_DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass
class CustomProperties:
    """The custom properties of one table or column; wrong values are added to `issues` and read as absent."""

    document: Document
    owner: Path
    issues: list[Issue] = field(repr=False)
    paths: dict[str, Path] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls, document: Document, owner: Path, entries: Any, *, issues: list[Issue]
    ) -> "CustomProperties":
        """Those of the `customProperties` list of `owner` (names are checked by `name_issues`)."""
        found = cls(document, owner, issues)
        for index, entry in enumerate(entries or ()):
            name, path = str(entry.get("property", "")), (*owner, "customProperties", index)
            if name in found.values:
                issues.append(document.issue((*path, "property"), f"custom property '{name}' is given twice"))
            found.values[name], found.paths[name] = entry.get("value"), (*path, "value")
        return found

    def has(self, name: str) -> bool:
        return name in self.values

    def refuse(self, name: str, message: str) -> None:
        """Add an issue at the value of `name`, or at the owner where it is absent."""
        self.issues.append(self.document.issue(self.paths.get(name, self.owner), f"{name} {message}"))

    def require(self, name: str, why: str) -> None:
        if not self.has(name):
            self.refuse(name, f"is missing: {why}")

    def forbid(self, name: str, why: str) -> None:
        if self.has(name):
            self.refuse(name, f"must not stand here: {why}")

    def text(self, name: str, allowed: tuple[str, ...] | None = None) -> str | None:
        value = self.values.get(name)
        if not self.has(name):
            return None
        if not isinstance(value, str) or (allowed and value not in allowed):
            expected = f"one of {', '.join(allowed)}" if allowed else "text"
            self.refuse(name, f"must be {expected}: {value!r}{did_you_mean(str(value), allowed or ())}")
            return None
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            self.refuse(name, f"must be true or false: {value!r}")
            return True  # what may be sensitive is treated as sensitive
        return value

    def texts(self, name: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            self.refuse(name, f"must be a list of {', '.join(allowed)}: {value!r}")
            return ()
        for item in value:
            if item not in allowed:
                hint = did_you_mean(str(item), allowed)
                self.refuse(name, f"must hold only {', '.join(allowed)}: {item!r}{hint}")
        return tuple(str(item) for item in value)

    def seconds(self, name: str) -> float | None:
        """A duration such as `0s`, `10min`, `2h`, `-1d`, in seconds."""
        value = self.values.get(name)
        if not self.has(name):
            return None
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.refuse(name, f"must be a duration like 0s, 10min, 2h or 1d: {value!r}")
            return None
        return float(match[1]) * _SECONDS[match[2]]


def name_issues(document: Document) -> list[Issue]:
    """An issue for each custom property whose name Trimtab does not know, or that stands in the wrong place.

    Names of another vendor (ODCS v3.2 `vendor:`) are that vendor's business.
    """
    issues = []
    for owner, index, entry in _entries(document.data, ()):
        name = entry.get("property") if isinstance(entry, dict) else None
        if not isinstance(name, str) or entry.get("vendor") not in (None, "trimtab"):
            continue
        here = _names_for(owner)
        if name in here:
            continue
        every = (*TABLE_NAMES, *COLUMN_NAMES)
        if name in every:
            message = f"'{name}' belongs to {'the table' if name in TABLE_NAMES else 'a column'}, not here"
        else:
            known = ", ".join(here or every)
            message = f"unknown custom property '{name}'{did_you_mean(name, here or every)} (known: {known})"
        issues.append(document.issue((*owner, "customProperties", index, "property"), message))
    return issues


def _names_for(owner: Path) -> tuple[str, ...]:
    if len(owner) == 2 and owner[0] == "schema":
        return TABLE_NAMES
    return COLUMN_NAMES if len(owner) == 4 and owner[::2] == ("schema", "properties") else ()


def _entries(data: Any, path: Path) -> Iterator[tuple[Path, int, Any]]:
    """Every entry of every `customProperties` list, wherever the standard allows one."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "customProperties" and isinstance(value, list):
                yield from ((path, index, entry) for index, entry in enumerate(value))
            else:
                yield from _entries(value, (*path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _entries(item, (*path, index))

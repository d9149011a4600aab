"""Proposes the lines of `utility.yaml` that measured quantities call for; a person signs them, or nobody does.

Only numbers change: the value, an end of its sensitivity range where the interval leaves it, the version; the changelog
gets an entry whose `who` is empty, which the loader refuses. Comments and order stay as they are.
Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from policies.language.yaml_source import Document, Issue, Path, PolicyError, load_document
from policies.utility.reestimation import Estimate
from policies.utility.utility import load_utility

_NUMBER = re.compile(r"[-+0-9.eE]+")
UNSIGNED = 'who: ""'


@dataclass(frozen=True)
class Proposal:
    """The changed text, and one sentence for each change; the text is not valid before somebody fills in `who`.

    `open_issues`: what the loader would refuse even then, as where a payoff leaves the declared range.
    """

    text: str
    changes: tuple[str, ...]
    open_issues: tuple[Issue, ...]


def propose(text: str, source: str, estimates: Sequence[Estimate], *, on: date) -> Proposal | None:
    """The file with every quantity that has moved as it was measured; None where none has."""
    document = load_document(text, source)
    names = [one["name"] for one in document.data.get("quantities", ())]
    edits: dict[Path, str] = {}
    changes = []
    for one in estimates:
        if one.finding not in ("moved", "outside its range") or one.value is None:
            continue
        low, high = float(one.low or 0.0), float(one.high or 0.0)
        here: Path = ("quantities", names.index(one.quantity.name))
        digits = _digits(one.value, high - low)
        edits[*here, "value"] = f"{one.value:.{digits}g}"
        if one.quantity.range is not None:
            edits |= {
                (*here, "sensitivity", end): f"{bound:.{digits}g}"
                for end, bound, is_left in (
                    ("low", low, low < one.quantity.range[0]),
                    ("high", high, high > one.quantity.range[1]),
                )
                if is_left
            }
        changes.append(
            f"{one.quantity.name} {one.quantity.value:g} → {one.value:.{digits}g} {one.quantity.unit} "
            f"(measured on {one.n:,} decisions, 95 % {low:.{digits}g} to {high:.{digits}g})"
        )
    if not changes:
        return None
    version = int(document.data["version"]) + 1
    edits["version",] = str(version)
    lines = _edited(text.split("\n"), document, edits)
    why = "Measured amounts. " + "; ".join(changes) + "."
    at, _ = document.position(("changelog", 0))
    indent = lines[at - 1][: len(lines[at - 1]) - len(lines[at - 1].lstrip())]
    entry = [f"- version: {version}", f"  date: {on.isoformat()}", f"  {UNSIGNED}", f"  why: {_quoted(why)}"]
    lines[at - 1 : at - 1] = [indent + line for line in entry]
    proposed = "\n".join(lines)
    issues: tuple[Issue, ...] = ()
    try:
        load_utility(proposed.replace(UNSIGNED, "who: somebody", 1), source)
    except PolicyError as error:
        issues = error.issues
    return Proposal(proposed, tuple(changes), issues)


def _edited(lines: list[str], document: Document, edits: dict[Path, str]) -> list[str]:
    """The lines with each number replaced where it stands, from the right to the left, so that places stay true."""
    for path, new in sorted(edits.items(), key=lambda found: document.position(found[0]), reverse=True):
        line, column = document.position(path)
        before, after = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
        lines[line - 1] = before + _NUMBER.sub(new, after, count=1)
    return lines


def _digits(value: float, width: float) -> int:
    """Significant digits of the value that the interval's width can tell, one more to be safe; 3 to 8."""
    if not width > 0 or not value:
        return 6
    digits = 2
    while digits < 8 and 10.0 ** (-digits) * abs(value) > width / 100:
        digits += 1
    return max(3, digits)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

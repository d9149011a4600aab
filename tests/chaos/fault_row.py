"""One fault and what became of the users: the row of the table in infra/reliability.md, as a JSON line.

Rule: a row says what was measured in one run; nobody edits one by hand.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.jsonl")


@dataclass(frozen=True)
class FaultRow:
    """`failed` of `requests` user requests at `load_rps`; `safe_after_s` from the fault on, None where nothing had to
    change; `ledger` is the entry that accounts for it (empty: none is due); `is_met` whether what was promised held.
    """

    fault: str
    load_rps: float
    requests: int
    failed: int
    safe_after_s: float | None
    ledger: str
    note: str
    is_met: bool

    def __post_init__(self) -> None:
        if not self.fault:
            raise ValueError("'fault' must not be empty")
        if not 0 <= self.failed <= self.requests:
            raise ValueError(f"'failed' must be in [0, requests = {self.requests}]: {self.failed}")
        if self.safe_after_s is not None and not math.isfinite(self.safe_after_s):
            raise ValueError(f"'safe_after_s' must be finite: {self.safe_after_s}")

    def to_line(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Measured:
    """A row, and the run of `make chaos` that has it: its commit, its beginning (ISO, UTC), and what it spent on it, s.

    `took_s` counts from the row before, what the script set up first included.
    """

    row: FaultRow
    commit: str
    run: str
    took_s: float

    def to_line(self) -> str:
        """All of it as one line of JSON."""
        return json.dumps({**asdict(self.row), "commit": self.commit, "run": self.run, "took_s": self.took_s})


def read_row(line: str) -> FaultRow:
    """A row from its JSON line. Raises ValueError naming what is wrong."""
    return FaultRow(**_members(line, [field.name for field in fields(FaultRow)]))


def read_results(path: Path = RESULTS) -> dict[str, Measured]:
    """Fault → its row of the last run that had it, in the order of the file; empty without the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {one.row.fault: one for one in map(_read_measured, lines)}


def keep_results(found: Iterable[Measured], path: Path = RESULTS) -> dict[str, Measured]:
    """Put new rows in the place of older ones of the same fault; returns all."""
    kept = {**read_results(path), **{one.row.fault: one for one in found}}
    path.write_text("".join(one.to_line() + "\n" for one in kept.values()), encoding="utf-8")
    return kept


def _read_measured(line: str) -> Measured:
    of_row, of_run = [field.name for field in fields(FaultRow)], ("commit", "run", "took_s")
    found = _members(line, [*of_row, *of_run])
    return Measured(FaultRow(**{name: found[name] for name in of_row}), *(found[name] for name in of_run))


def _members(line: str, names: Sequence[str]) -> Mapping[str, Any]:
    value: Any = json.loads(line)
    if not isinstance(value, Mapping) or set(value) != set(names):
        found = ", ".join(value) if isinstance(value, Mapping) else repr(value)
        raise ValueError(f"a row must have {', '.join(names)}: {found}")
    return value

"""One fault and what became of the users: the row of the table in infra/reliability.md, as a JSON line.

Rule: a row says what was measured in one run; nobody edits one by hand.
"""

import json
import math
from collections.abc import Iterable, Mapping
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


def read_row(line: str) -> FaultRow:
    """A row from its JSON line. Raises ValueError naming what is wrong."""
    value: Any = json.loads(line)
    names = [field.name for field in fields(FaultRow)]
    if not isinstance(value, Mapping) or set(value) != set(names):
        found = ", ".join(value) if isinstance(value, Mapping) else repr(value)
        raise ValueError(f"a row must have {', '.join(names)}: {found}")
    return FaultRow(**value)


def read_results(path: Path = RESULTS) -> dict[str, FaultRow]:
    """Fault → its row of the last run that had it, in the order of the file; empty without the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {row.fault: row for row in map(read_row, lines)}


def keep_results(rows: Iterable[FaultRow], path: Path = RESULTS) -> dict[str, FaultRow]:
    """Put new rows in the place of older ones of the same fault; returns all."""
    kept = {**read_results(path), **{row.fault: row for row in rows}}
    path.write_text("".join(row.to_line() + "\n" for row in kept.values()), encoding="utf-8")
    return kept

"""A fault put into a candidate on purpose, for drills: answers 500, answers NaN, or is slow.

Only the launcher's `--rehearsal` flag lets one in, so that no stray environment variable breaks a real
release. Must never import bentoml.
"""

import re
from dataclasses import dataclass
from typing import Literal

FAULT_VARIABLE = "TRIMTAB_FAULT"


class FaultError(ValueError):
    """The fault's text is not one of error, nan, slow:<ms>."""


class InjectedFault(RuntimeError):
    """The failure that an `error` fault raises for every decision."""


@dataclass(frozen=True)
class Fault:
    """One fault; `delay_ms` counts for `slow` only."""

    kind: Literal["error", "nan", "slow"]
    delay_ms: int = 0


def parse_fault(text: str) -> Fault:
    """Read `error`, `nan` or `slow:<ms>` (1 to 60000 ms). Raises: FaultError."""
    if text == "error":
        return Fault("error")
    if text == "nan":
        return Fault("nan")
    match = re.fullmatch(r"slow:([0-9]{1,5})", text)
    if match and 1 <= int(match[1]) <= 60_000:
        return Fault("slow", int(match[1]))
    raise FaultError(f"'{FAULT_VARIABLE}' must be error, nan or slow:<1 to 60000 ms>: {text!r}")

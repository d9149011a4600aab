"""A fault put into a candidate on purpose, for drills and chaos: it fails, refuses, hangs, is slow, leaks …

Only the launcher's `--rehearsal` flag lets one in, so that no stray environment variable breaks a real
release. Must never import bentoml.
"""

import asyncio
import os
import re
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.serving.row_check import RowRefused

FAULT_VARIABLE = "TRIMTAB_FAULT"
PLAIN = ("error", "nan", "refuse", "hang", "unknown-action", "files")
MOST = {"slow": 60_000, "slow-start": 600, "leak": 65_536}
"""Kinds that carry an amount, and the greatest: milliseconds a decision, seconds at the start, KiB a decision."""


class FaultError(ValueError):
    """The fault's text is none of those that `parse_fault` reads."""


class InjectedFault(RuntimeError):
    """The failure that an `error` fault raises for every decision."""


@dataclass(frozen=True)
class Fault:
    """One fault of `PLAIN` or `MOST`; `amount` counts for the latter. What it hoards, it keeps."""

    kind: str
    amount: int = 0
    hoard: list[bytes | int] = field(default_factory=list, repr=False, compare=False)

    def delay_start(self) -> None:
        """Take long to become ready, where that is the fault."""
        if self.kind == "slow-start":
            time.sleep(self.amount)

    async def misbehave(self) -> None:
        """What happens before a decision. Raises: InjectedFault, RowRefused, OSError where that is the fault."""
        if self.kind == "error":
            raise InjectedFault("this release fails on purpose (rehearsal)")
        if self.kind == "refuse":
            raise RowRefused(None, "this release refuses every row on purpose (rehearsal)")
        if self.kind == "slow":
            await asyncio.sleep(self.amount / 1000)
        if self.kind == "hang":
            await asyncio.sleep(3600)
        if self.kind == "leak":
            self.hoard.append(os.urandom(self.amount * 1024))
        if self.kind == "files":
            while True:  # until the process may have no more
                self.hoard.append(os.open(os.devnull, os.O_RDONLY))

    def spoil(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probabilities (n, O), NaN where that is the fault."""
        return np.full_like(probabilities, np.nan) if self.kind == "nan" else probabilities

    def misdirect(self, actions: NDArray[np.intp]) -> NDArray[np.intp]:
        """The actions (n,), indices of none where that is the fault."""
        return actions + 99 if self.kind == "unknown-action" else actions


def parse_fault(text: str) -> Fault:
    """Read a word of `PLAIN`, or `slow:<ms>`, `slow-start:<s>`, `leak:<KiB>`. Raises: FaultError."""
    if text in PLAIN:
        return Fault(text)
    match = re.fullmatch(r"([a-z-]+):([0-9]{1,5})", text)
    if match and match[1] in MOST and 1 <= int(match[2]) <= MOST[match[1]]:
        return Fault(match[1], int(match[2]))
    amounts = ", ".join(f"{kind}:<1 to {most}>" for kind, most in MOST.items())
    raise FaultError(f"'{FAULT_VARIABLE}' must be one of {', '.join(PLAIN)}, {amounts}: {text!r}")

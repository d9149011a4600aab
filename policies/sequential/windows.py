"""A gate's window: polls wait until it is over and are then judged as one block.

Counts are added, payoffs and pairs are put one after the other in time order. A window closes with the first poll at
least its length after the poll that closed the one before (or after the stage's first poll).
Source: gates.md semantics 6 (the block is the observation). Must never import: anything that reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.sequential.evidence_blocks import (
    Block,
    CountBlock,
    EvidenceError,
    GapArmsBlock,
    GapBlock,
    RatioBlock,
    UtilityBlock,
    block_from_json,
    block_to_json,
    stored_mapping,
)

_SLACK_S = 1e-6


@dataclass
class Window:
    """length_s 0: every poll is a block of its own. opened_at: epoch seconds, None before a stage's first poll."""

    length_s: float
    opened_at: float | None = None
    waiting: Block | None = None

    def add(self, block: Block, at: float) -> Block | None:
        """The block to judge now, if the window is over with this poll. Raises EvidenceError for blocks unlike."""
        if self.length_s == 0:
            return block
        if self.opened_at is None:
            self.opened_at = at
        self.waiting = block if self.waiting is None else joined(self.waiting, block)
        if at - self.opened_at < self.length_s - _SLACK_S:
            return None
        whole, self.waiting, self.opened_at = self.waiting, None, at
        return whole

    def to_json(self) -> dict[str, object]:
        """What waits, exact."""
        waiting = None if self.waiting is None else block_to_json(self.waiting)
        return {"opened_at": self.opened_at, "waiting": waiting}

    def restore(self, obj: Mapping[str, object]) -> None:
        """Take what `to_json` wrote."""
        opened_at, waiting = obj["opened_at"], obj["waiting"]
        self.opened_at = None if opened_at is None else float(str(opened_at))
        self.waiting = None if waiting is None else block_from_json(stored_mapping(waiting))


def joined(first: Block, second: Block) -> Block:
    """Two polls' blocks of one metric as one. Raises EvidenceError for blocks of different kinds."""
    if isinstance(first, CountBlock) and isinstance(second, CountBlock):
        return CountBlock(**_added(first, second))
    if isinstance(first, GapBlock) and isinstance(second, GapBlock):
        return GapBlock(**_added(first, second))
    if isinstance(first, GapArmsBlock) and isinstance(second, GapArmsBlock):
        arms = ((first.canary, second.canary), (first.stable, second.stable))
        return GapArmsBlock(*(GapBlock(**_added(*pair)) for pair in arms))
    if isinstance(first, RatioBlock) and isinstance(second, RatioBlock):
        return RatioBlock(
            np.concatenate((first.canary, second.canary)), np.concatenate((first.stable, second.stable))
        )
    if isinstance(first, UtilityBlock) and isinstance(second, UtilityBlock):
        return _joined_payoffs(first, second)
    raise EvidenceError(f"a {type(second).__name__} cannot follow a {type(first).__name__} in a window")


def _joined_payoffs(first: UtilityBlock, second: UtilityBlock) -> UtilityBlock:
    plain = None
    if first.plain is not None and second.plain is not None:
        plain = _joined_payoffs(first.plain, second.plain)
    return UtilityBlock(
        np.concatenate((first.canary, second.canary)), np.concatenate((first.stable, second.stable)), plain
    )


def _added(first: CountBlock | GapBlock, second: CountBlock | GapBlock) -> dict[str, int]:
    return {name: value + vars(second)[name] for name, value in vars(first).items()}

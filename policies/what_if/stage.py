"""The verdicts of one stage for many simulated runs: when each run leaves it, how and why.

The order of precedence is that of `policies.gates.stage_verdict`, poll by poll, and `extend` is what `policies.rollout`
makes of it: tests drive both with the same counts. Nobody gives orders here: where the engine would wait for a
person for ever, the run ends as waiting. Source: gates.md semantics 1, 5. Must never import: anything that does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from policies.rollout.rollout_policy import Stage
from policies.rollout.verdict import ReasonCode
from policies.what_if.gates import BoolArray, Looks
from policies.what_if.paths import FloatArray, IntArray


class End(IntEnum):
    """How a run leaves a stage; NONE: it does not, in these polls."""

    NONE = 0
    ADVANCE = 1
    FAILED = 2
    INCONCLUSIVE = 3
    NO_DATA = 4
    APPROVAL = 5
    MANUAL = 6
    HELD = 7


@dataclass(frozen=True, eq=False)
class Ends:
    """Of each run (rows,): how it ends, at which poll of the chunk (the last one where it does not), by which of
    the looks (−1 none); and whether its stage is extended from then on."""

    how: NDArray[np.int8]
    at: IntArray
    by: IntArray
    extended: BoolArray


def find_ends(
    stage: Stage,
    looks: Sequence[Looks],
    *,
    ratio_is_bad: BoolArray,
    elapsed_s: FloatArray,
    extended: BoolArray,
    approvals_given: bool,
    is_last: bool,
) -> Ends:
    """Judge a chunk. ratio_is_bad (rows, polls); elapsed_s (polls,); extended (rows,): before the chunk; is_last: what
    its polls do not end is HELD."""
    shape = ratio_is_bad.shape
    must_go, must_hold, open_ = (np.zeros(shape, dtype=bool) for _ in range(3))
    absent, gives_up = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for look in looks:
        if look.gate.on_fail == "rollback":
            must_go |= look.fails
        else:
            must_hold |= look.fails
        if look.gate.required:
            open_ |= ~look.passes
            is_absent = ~look.passes & (look.n == 0)
            absent |= is_absent
            if look.gate.on_missing == "rollback":
                gives_up |= is_absent
    is_free = ~must_go & ~must_hold
    is_baking = np.maximum(stage.bake_min_s - elapsed_s, 0.0) > 0
    passes = is_free & ~open_ & ~ratio_is_bad & ~is_baking
    waits = is_free & ~passes
    undecided = waits & ~gives_up & ~ratio_is_bad & ~absent & (elapsed_s >= stage.bake_min_s)
    late = undecided & (elapsed_s >= stage.bake_max_s)
    is_extended = np.zeros(shape, dtype=bool)
    if stage.on_inconclusive == "extend":
        is_extended = np.logical_or.accumulate(late, axis=1) | extended[:, None]
        before = np.concatenate((extended[:, None], is_extended[:, :-1]), axis=1)
        late &= before & (elapsed_s >= 2 * stage.bake_max_s)
        longest = np.where(before, 2.0, 1.0) * stage.bake_max_s
    else:
        longest = np.full(shape, stage.bake_max_s)
    how = np.zeros(shape, dtype=np.int8)
    how[must_go] = End.FAILED
    how[passes] = End.APPROVAL if stage.approval and not approvals_given else End.ADVANCE
    how[waits & gives_up & (elapsed_s >= longest)] = End.NO_DATA
    how[late] = End.MANUAL if stage.on_inconclusive == "manual" else End.INCONCLUSIVE
    if is_last:
        how[:, -1] = np.where(how[:, -1] == End.NONE, End.HELD, how[:, -1])
    return _first(how, looks, is_extended)


def _first(how: NDArray[np.int8], looks: Sequence[Looks], is_extended: BoolArray) -> Ends:
    rows = np.arange(len(how))
    at = np.where((how != End.NONE).any(axis=1), np.argmax(how != End.NONE, axis=1), how.shape[1] - 1)
    ends = how[rows, at]
    by = np.full(len(how), -1)
    for index, look in reversed(list(enumerate(looks))):
        fails = look.fails[rows, at]
        failed = fails & ((ends == End.HELD) | ((ends == End.FAILED) & (look.gate.on_fail == "rollback")))
        is_open = (ends != End.FAILED) & (ends != End.ADVANCE) & ~look.passes[rows, at] & look.gate.required
        by[failed | is_open] = index
    return Ends(ends, at, by, is_extended[rows, at])


def reason_of(how: End, looks: Sequence[Looks], by: int, *, ratio_is_bad: bool) -> ReasonCode:
    """The engine's reason for this end."""
    gate = looks[by].gate if by >= 0 else None
    if how is End.FAILED:
        is_bound = gate is not None and gate.compare_to == "bound"
        return ReasonCode.BOUND_EXCEEDED if is_bound else ReasonCode.REGRESSION
    if how is End.HELD:
        if ratio_is_bad:
            return ReasonCode.SAMPLE_RATIO
        return ReasonCode.NO_DATA if gate is None or gate.required else ReasonCode.GATE_FAILED_HELD
    return _REASON_OF[how]


_REASON_OF: Mapping[End, ReasonCode] = {
    End.INCONCLUSIVE: ReasonCode.INCONCLUSIVE,
    End.NO_DATA: ReasonCode.NO_DATA,
    End.APPROVAL: ReasonCode.AWAITING_APPROVAL,
    End.MANUAL: ReasonCode.INCONCLUSIVE_MANUAL,
}

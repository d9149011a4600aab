"""What a policy's polls would have brought over a flat history: by its own poll, maturity, budget and stages.

The rules are those of live evidence (services/telemetry): each unit once, by assignment, only decisions taken while
the weight was in force; payoffs of whole cohorts, once all of a poll's units are older than the maturity. A unit whose
payoff is not known by then is unresolved; more than one in a hundred of them is missing evidence.
Must never import: prefect, bentoml, torch, sqlalchemy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies.gates.evidence import (
    SAMPLE_RATIO,
    AssignmentBlock,
    Block,
    CountBlock,
    PollEvidence,
    RatioBlock,
    UtilityBlock,
)
from policies.gates.history import LoggedPoll
from policies.language.quantities import about
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import RolloutPolicy, Stage
from services.rehearsal.history_file import Floats, History, HistoryFileError

MOST_POLLS = 50_000
UNRESOLVED_SHARE = 0.01
_UNRESOLVED_IN_ONE_ARM = 3
_SAME_WEIGHT_PCT = 0.02
_STANDARD_ERRORS = 4
_NEEDS = {
    "canary_errors": ("failed",),
    "slow_share": ("duration_ms",),
    "action_rate": ("acted",),
    "utility": ("payoff",),
    "utility_per_action": ("payoff", "acted"),
}


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of a history, all at one weight, and the stage of the policy that they are judged by."""

    start: int
    stop: int
    stage: Stage


@dataclass(frozen=True)
class Rehearsal:
    """A policy (with the weight that was found, where it states none like it), its polls, and what must be said."""

    policy: RolloutPolicy
    polls: tuple[LoggedPoll, ...]
    notes: tuple[str, ...]


def polls_of(history: History, policy: RolloutPolicy, payoff_range: tuple[float, float]) -> Rehearsal:
    """Every poll of the policy over the history. Raises HistoryFileError where it cannot be judged by the policy."""
    _check_payoffs(history, payoff_range)
    policy, segments, notes = _segments(history, policy)
    polls: list[LoggedPoll] = []
    for segment, end in _ends(history, segments, policy):
        looks = math.ceil((end - history.at[segment.start]) / policy.poll_s)
        if looks + len(polls) > MOST_POLLS:
            raise HistoryFileError(
                f"{history.source}: lasts {about(history.at[-1] - history.at[0])}, more than {MOST_POLLS:,} polls of "
                f"{policy.poll_s:g} s; write a longer `poll` in the policy"
            )
        polls += _polls(history, segment, policy, looks)
    return Rehearsal(policy, tuple(polls), notes)


def _segments(
    history: History, policy: RolloutPolicy
) -> tuple[RolloutPolicy, tuple[Segment, ...], tuple[str, ...]]:
    stages = [stage for stage in policy.stages if stage.kind == "canary"]
    if not stages:
        raise HistoryFileError(f"the policy of {policy.service} has no canary stage to judge a history by")
    weights = history.columns.get("weight_pct")
    if weights is None:
        policy, stage, notes = _stage_of_split(history, policy, stages)
        return policy, (Segment(0, len(history.at), stage),), notes
    edges = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    segments: list[Segment] = []
    said: list[str] = []
    for start, stop in pairwise(edges):
        weight_pct = float(weights[start])
        later = stages[stages.index(segments[-1].stage) + 1 :] if segments else stages
        likes = [one for one in later if _is_weight(one, weight_pct)]
        if not likes:
            is_known = any(_is_weight(one, weight_pct) for one in stages)
            why = "that stage is over" if is_known else "no canary stage of the policy has this weight"
            said.append(f"{stop - start:,} units at {weight_pct:g} % are not judged: {why}")
        else:
            segments.append(Segment(start, stop, likes[0]))
    if not segments:
        raise HistoryFileError(f"{history.source}: nothing can be judged: {'; '.join(said)}")
    return policy, tuple(segments), tuple(said)


def _is_weight(stage: Stage, weight_pct: float) -> bool:
    return abs((stage.weight_pct or 0.0) - weight_pct) <= _SAME_WEIGHT_PCT


def _stage_of_split(
    history: History, policy: RolloutPolicy, stages: list[Stage]
) -> tuple[RolloutPolicy, Stage, tuple[str, ...]]:
    """The canary stage whose weight the units' split is, or the nearest one, given the weight that was found."""
    share, n = history.share, len(history.at)
    if not 0 < share < 1:
        arm = "canary" if share else "stable"
        raise HistoryFileError(f"{history.source}: all {n:,} units are assigned to {arm}: nothing to compare")
    stage = min(stages, key=lambda one: abs((one.weight_pct or 0.0) / 100 - share))
    weight = (stage.weight_pct or 0.0) / 100
    if abs(share - weight) <= _STANDARD_ERRORS * math.sqrt(weight * (1 - weight) / n):
        said = f"{100 * share:.2f} % of the units are the canary's: judged as stage '{stage.name}'"
        return policy, stage, (f"{said} ({stage.weight_pct:g} %)",)
    found = replace(stage, weight_pct=round(100 * share, 2))
    said = (
        f"{100 * share:.2f} % of the units are the canary's, and no stage has this weight: judged as stage "
        f"'{stage.name}' with {found.weight_pct:g} % in place of {stage.weight_pct:g} %; whether the split is as "
        "planned is not checked"
    )
    changed = replace(policy, stages=tuple(found if one is stage else one for one in policy.stages))
    return changed, found, (said,)


def _ends(
    history: History, segments: tuple[Segment, ...], policy: RolloutPolicy
) -> list[tuple[Segment, float]]:
    """Each segment with the time of its last poll: the next weight's first row, or all outcomes of the last one."""
    found = []
    for segment in segments:
        is_last = segment.stop == len(history.at)
        last = history.at[segment.stop - 1]
        end = last + policy.maturity_s + policy.poll_s if is_last else history.at[segment.stop]
        found.append((segment, float(end)))
    return found


@dataclass
class _Cursor:
    """How far rows were consumed, at once and matured, and how many of those lacked a payoff, by arm."""

    seen: int
    matured: int
    total: NDArray[np.int64]
    unresolved: NDArray[np.int64]


def _polls(history: History, segment: Segment, policy: RolloutPolicy, looks: int) -> list[LoggedPoll]:
    entered_at = float(history.at[segment.start])
    at = entered_at + policy.poll_s * np.arange(1, looks + 1)
    rows = history.at[segment.start : segment.stop]
    seen = segment.start + np.searchsorted(rows, at, side="right")
    matured = segment.start + np.searchsorted(rows, at - policy.maturity_s, side="right")
    cursor = _Cursor(segment.start, segment.start, np.zeros(2, np.int64), np.zeros(2, np.int64))
    polls = []
    for index in range(looks):
        blocks, missing = _at_once(history, segment.stage, slice(cursor.seen, seen[index]))
        cursor.seen = int(seen[index])
        _add_matured(
            history, segment.stage, policy, cursor, int(matured[index]), blocks=blocks, missing=missing
        )
        weight_pct = segment.stage.weight_pct or 0.0
        evidence = PollEvidence(float(at[index]), weight_pct, blocks, missing)
        polls.append(LoggedPoll(segment.stage.name, entered_at, evidence))
    return polls


def _at_once(history: History, stage: Stage, rows: slice) -> tuple[dict[str, Block], dict[str, str]]:
    """What needs no outcome; and which metrics the file does not tell."""
    canary = history.is_canary[rows]
    mine, all_units = int(canary.sum()), len(canary)
    blocks: dict[str, Block] = {
        SAMPLE_RATIO: AssignmentBlock(mine, all_units - mine, stage.weight_pct or 0.0)
    }
    missing: dict[str, str] = {}
    for gate in stage.gates:
        absent = _absent(history, gate.metric)
        if absent:
            missing[gate.metric] = absent
        elif METRICS[gate.metric].kind == "proportion":
            column = history.columns[_NEEDS[gate.metric][0]][rows]
            events = column > (gate.budget_ms or 0.0 if gate.metric == "slow_share" else 0.0)
            bad = int(events[canary].sum()), int(events[~canary].sum())
            blocks[gate.metric] = CountBlock(bad[0], mine, bad[1], all_units - mine)
    return blocks, missing


def _absent(history: History, metric: str) -> str:
    """Why the file does not tell a metric; empty where it does."""
    if metric not in _NEEDS:
        return "a history file does not tell it"
    absent = [f"'{name}'" for name in _NEEDS[metric] if name not in history.columns]
    return f"the file has no column {' and '.join(absent)}" if absent else ""


def _add_matured(
    history: History,
    stage: Stage,
    policy: RolloutPolicy,
    cursor: _Cursor,
    through: int,
    *,
    blocks: dict[str, Block],
    missing: dict[str, str],
) -> None:
    """Payoffs of the cohort that has matured; where too many are unknown it is not consumed."""
    metrics = {gate.metric for gate in stage.gates if METRICS[gate.metric].needs_outcomes} - set(missing)
    if not metrics:
        return
    rows = slice(cursor.matured, max(through, cursor.matured))
    canary, payoff = history.is_canary[rows], history.columns["payoff"][rows]
    known = ~np.isnan(payoff)
    if "outcome_at" in history.columns:
        known &= ~(history.columns["outcome_at"][rows] > history.at[rows] + policy.maturity_s)
    total = cursor.total + _by_arm(canary)
    unresolved = cursor.unresolved + _by_arm(canary[~known])
    why = _unresolved_fault(total, unresolved, policy.maturity_s)
    if why:
        missing.update(dict.fromkeys(metrics, why))
        return
    cursor.matured, cursor.total, cursor.unresolved = rows.stop, total, unresolved
    mine, theirs = canary & known, ~canary & known
    if "utility_per_action" in metrics:
        pairs = np.column_stack([payoff, history.columns["acted"][rows]])
        blocks["utility_per_action"] = RatioBlock(pairs[mine], pairs[theirs])
    if "utility" in metrics:
        plain = UtilityBlock(payoff[mine], payoff[theirs])
        blocks["utility"] = plain
        if any(gate.where == "disagreement" for gate in stage.gates if gate.metric == "utility"):
            if "differs" not in history.columns:
                missing["utility"] = (
                    "the file has no column 'differs', which `where: disagreement` compares by"
                )
                del blocks["utility"]
                return
            masked: Floats = payoff * history.columns["differs"][rows]
            blocks["utility"] = UtilityBlock(masked[mine], masked[theirs], plain)


def _by_arm(canary: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.array([canary.sum(), (~canary).sum()], dtype=np.int64)


def _unresolved_fault(total: NDArray[np.int64], unresolved: NDArray[np.int64], maturity_s: float) -> str:
    arms = [("both arms", int(total.sum()), int(unresolved.sum()))]
    for index, name in enumerate(("canary", "stable")):
        if unresolved[index] >= _UNRESOLVED_IN_ONE_ARM:
            arms.append((name, int(total[index]), int(unresolved[index])))
    for name, units, without in arms:
        if without > UNRESOLVED_SHARE * units:
            share = f"{without} of {units} matured decisions of {name}"
            return f"{share} have no payoff within {about(maturity_s)} (at most {UNRESOLVED_SHARE:.0%})"
    return ""


def _check_payoffs(history: History, payoff_range: tuple[float, float]) -> None:
    payoff = history.columns.get("payoff")
    if payoff is None:
        return
    low, high = payoff_range
    outside = np.flatnonzero((payoff < low) | (payoff > high))
    if outside.size:
        raise HistoryFileError(
            f"{history.source}: 'payoff' must be in the utility spec's range [{low:g}, {high:g}]: "
            f"{payoff[outside[0]]:g} (unit number {int(outside[0]) + 1} in time order; {outside.size} in all)"
        )

"""What a rollout policy would do if a release had a given effect: Monte-Carlo of all its live stages.

Many runs at once, stage by stage, a chunk of polls at a time, and only the runs that are still in the stage. Gates,
limits and the order of precedence are the policy's own (`what_if_gates`, `what_if_stage`); counts are exact,
utility goes by polls (`what_if_payoffs` says how, and what it costs in exactness). Assumed besides: no evidence is
ever missing, routing is clean (the sample ratio is judged all the same), nobody gives orders but to approve, and
polls come on time, the first one a poll after the stage was entered.
Source: gates.md semantics 1 to 10. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.gates.gates import SAMPLE_RATIO_ALPHA
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.sequential.statistics import EITHER, ShareTest
from policies.what_if.gates import BoolArray, GateRuns, Looks, can_simulate
from policies.what_if.paths import FloatArray, IntArray, SharePath
from policies.what_if.payoffs import AssumptionError, Payoffs
from policies.what_if.result import Outcome, Runs, WhatIf, summarise
from policies.what_if.stage import End, Ends, find_ends, reason_of
from policies.what_if.traffic import Chunk, Effect, Rates, Traffic, source_of

__all__ = ["AssumptionError", "Effect", "Payoffs", "Rates", "Settings", "WhatIf", "simulate"]

Progress = Callable[[float], None]
OnChunk = Callable[[str, IntArray, Chunk], None]
CHUNK_POLLS = 64


@dataclass(frozen=True, eq=False)
class Settings:
    """How many runs, from which seed; traffic in requests per s; whether stages that want approval get it at once."""

    runs: int = 2000
    seed: int = 0
    requests_per_s: float | None = None
    approvals_given: bool = True


DEFAULTS = Settings()


def simulate(
    policy: RolloutPolicy,
    effect: Effect,
    settings: Settings = DEFAULTS,
    *,
    progress: Progress | None = None,
    on_chunk: OnChunk | None = None,
) -> WhatIf:
    """Run the policy's live stages under an effect.

    progress: told the share that is done, in [0, 1]. on_chunk: told each stage's name and every chunk of polls drawn,
    for whoever wants to replay them. Raises AssumptionError.
    """
    if settings.runs < 1:
        raise AssumptionError(f"'runs' must be >= 1: {settings.runs}")
    given = settings.requests_per_s
    per_s = policy.expected_requests_per_s if given is None else given
    if not (per_s > 0 and math.isfinite(per_s)):
        raise AssumptionError(f"'requests_per_s' must be > 0: {per_s}")
    simulation = _Simulation(policy, effect, settings, per_s, on_chunk)
    stages = policy.live_stages
    for index, stage in enumerate(stages):

        def tell(share: float, done: int = index) -> None:
            if progress is not None:
                progress((done + share) / len(stages))

        simulation.run_stage(stage, np.random.default_rng((settings.seed, index)), tell)
    if progress is not None:
        progress(1.0)
    return summarise(
        policy,
        simulation.runs,
        effect_name=effect.name,
        seed=settings.seed,
        requests_per_s=per_s,
        loss_per_unit=None if effect.payoffs is None else 0.0 - effect.payoffs.difference,
        assumed=tuple(simulation.assumed),
    )


class _Simulation:
    """All runs of one simulation, and the gates that judge them."""

    def __init__(
        self,
        policy: RolloutPolicy,
        effect: Effect,
        settings: Settings,
        per_s: float,
        on_chunk: OnChunk | None,
    ) -> None:
        self.policy, self.effect, self.settings, self.per_s = policy, effect, settings, per_s
        self.on_chunk = on_chunk
        self.runs = Runs.start(settings.runs)
        acting = [gate for gate in policy.live_gates if not gate.dry_run]
        self.assumed = [
            gate.name for gate in acting if not (effect.covers(gate.metric) and can_simulate(gate))
        ]
        self.gates = {
            gate.name: GateRuns(
                gate,
                alpha=policy.alpha_of(gate.name),
                alpha_advance=policy.alpha_advance,
                planned_stages=sum(
                    any(one.name == gate.name for one in stage.gates) for stage in policy.live_stages
                ),
                width=_width(gate, effect),
                runs=settings.runs,
            )
            for gate in acting
            if gate.name not in self.assumed
        }

    def run_stage(self, stage: Stage, generator: np.random.Generator, tell: Progress) -> None:
        """Run one stage to its end in every run that is still under way."""
        judges = [self.gates[gate.name] for gate in stage.gates if gate.name in self.gates]
        for gate in stage.gates:
            if gate.name in self.gates:
                self.gates[gate.name].enter_stage(gate)
        per_s, runs, poll_s = self.per_s, self.settings.runs, self.policy.poll_s
        traffic = Traffic(
            self.policy, stage, self.effect, requests_per_s=per_s, runs=runs, generator=generator
        )
        ratio = SharePath(ShareTest(1.0, EITHER), runs) if stage.kind == "canary" else None
        extended, mismatched = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
        rows, done, horizon = np.flatnonzero(self.runs.is_under_way), 0, _horizon(stage, poll_s)
        while done < horizon and len(rows):
            polls = min(CHUNK_POLLS, horizon - done)
            elapsed_s: FloatArray = np.arange(done + 1, done + polls + 1, dtype=np.float64) * poll_s
            chunk = traffic.draw(rows, polls)
            if self.on_chunk is not None:
                self.on_chunk(stage.name, rows, chunk)
            looks = [judge.look(rows, chunk.runs[source_of(judge.gate, self.policy)]) for judge in judges]
            ratio_is_bad = _ratio_is_bad(stage, ratio, rows, chunk) | mismatched[rows][:, None]
            ratio_is_bad = np.logical_or.accumulate(ratio_is_bad, axis=1)  # what was proven stays proven
            ends = find_ends(
                stage,
                looks,
                ratio_is_bad=ratio_is_bad,
                elapsed_s=elapsed_s,
                extended=extended[rows],
                approvals_given=self.settings.approvals_given,
                is_last=done + polls == horizon,
            )
            for path in (*judges, *(() if ratio is None else (ratio,))):
                path.settle(ends.at)
            extended[rows], mismatched[rows] = ends.extended, ratio_is_bad[:, -1]
            self._record(stage, rows, chunk, ends, looks, ratio_is_bad, elapsed_s)
            rows, done = rows[ends.how == End.NONE], done + polls
            tell(done / horizon)
        for judge in judges:
            judge.leave_stage()

    def _record(
        self,
        stage: Stage,
        rows: IntArray,
        chunk: Chunk,
        ends: Ends,
        looks: Sequence[Looks],
        ratio_is_bad: BoolArray,
        elapsed_s: FloatArray,
    ) -> None:
        """Add what the candidate served, and close the runs that ended."""
        pick, runs = np.arange(len(rows)), self.runs
        if stage.kind != "shadow":
            runs.exposed[rows] += np.cumsum(chunk.canary_units, axis=1)[pick, ends.at]
        over = ends.how != End.NONE
        runs.time_s[rows[over]] += elapsed_s[ends.at[over]]
        for row in np.flatnonzero(ends.how > End.ADVANCE):
            how, by = End(int(ends.how[row])), int(ends.by[row])
            reason = reason_of(how, looks, by, ratio_is_bad=bool(ratio_is_bad[row, ends.at[row]]))
            gate = looks[by].gate.name if by >= 0 else ""
            runs.end(int(rows[row]), _OUTCOME_OF[how], reason, stage=stage.name, gate=gate)


_OUTCOME_OF: Mapping[End, Outcome] = {
    End.FAILED: "rolled_back",
    End.NO_DATA: "rolled_back",
    End.INCONCLUSIVE: "inconclusive",
    End.APPROVAL: "waits",
    End.MANUAL: "waits",
    End.HELD: "waits",
}


def _width(gate: Gate, effect: Effect) -> float:
    """High − low of the payoffs that the gate compares; masked ones have 0 among them."""
    if effect.payoffs is None:
        return 1.0
    low, high = effect.payoffs.low, effect.payoffs.high
    return max(high, 0.0) - min(low, 0.0) if gate.where == "disagreement" else high - low


def _horizon(stage: Stage, poll_s: float) -> int:
    """Polls after which a stage is decided or waits: the longest bake, twice where it is extended, and one more."""
    longest_s = stage.bake_max_s * (2 if stage.on_inconclusive == "extend" else 1)
    return math.ceil(max(longest_s, stage.bake_min_s) / poll_s) + 1


def _ratio_is_bad(stage: Stage, ratio: SharePath | None, rows: IntArray, chunk: Chunk) -> BoolArray:
    """Whether the sample ratio holds the rollout, at each poll (rows, polls)."""
    if ratio is None:
        return np.zeros(chunk.canary_units.shape, dtype=bool)
    w = (stage.weight_pct or 0.0) / 100
    log_e = ratio.extend_at(rows, chunk.canary_units, chunk.stable_units, w=w)
    is_bad: BoolArray = log_e >= -math.log(SAMPLE_RATIO_ALPHA)
    return is_bad

"""The gates: offline stages judged from measurements, live ones by the book of e-processes kept over a rollout.

Rule 1: missing, NaN or too little evidence is never a pass.
Rule 2: `observe` takes evidence in, `judge` only looks: called twice it says the same.
Rule 3: what was proven stays proven: a failed gate for the rollout, a false sample ratio for the stage.
Rule 4: the rules are frozen when the rollout starts; a stored book opens only with the policy it was made for.
Source: gates.md semantics 1 to 10. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from policies.gates.evidence import SAMPLE_RATIO, Alarm, AssignmentBlock, Block, Measured, PollEvidence
from policies.gates.gate_evidence import GateEvidence
from policies.gates.gate_tests import GateError, is_two_sided, kind_of
from policies.gates.offline_gates import judge_measured
from policies.gates.stage_verdict import Clock, Judged, decide
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage
from policies.rollout.verdict import GateResult, GateStatus, ReasonCode, Verdict
from policies.sequential.evidence_blocks import stored_list, stored_mapping
from policies.sequential.statistics import EITHER, ShareTest

__all__ = ["GateBook", "GateError", "Measured", "judge_measured"]

SAMPLE_RATIO_ALPHA = 0.001
_VERSION = 3
_RATIO_LIMIT = -math.log(SAMPLE_RATIO_ALPHA)
_SOURCES = frozenset({SAMPLE_RATIO, *METRICS})
_SILENT = "the poll said nothing of it"
_WEIGHT_TOLERANCE_PCT = 0.02  # the proxy's weights are hundredths of a per cent


class GateBook:
    """All live e-processes of one rollout. Mutable; every change comes through `enter_stage` and `observe`."""

    def __init__(self, policy: RolloutPolicy, payoff_range: tuple[float, float] | None) -> None:
        gates = policy.live_gates
        if payoff_range is None and any(METRICS[gate.metric].needs_outcomes for gate in gates):
            raise GateError("'payoff_range' must be the utility spec's range: a live gate compares utility")
        low, high = payoff_range or (0.0, 1.0)
        if not low < high:
            raise GateError(f"'payoff_range' must be (low, high) with low < high: {(low, high)}")
        self.policy = policy
        self.payoff_range = (float(low), float(high))
        self.stage_name: str | None = None
        self.gates = {gate.name: self._evidence_of(gate) for gate in gates}
        self.missing: dict[str, str] = {}
        self.alarms: list[Alarm] = []
        self._start_ratio()

    @classmethod
    def start(cls, policy: RolloutPolicy, payoff_range: tuple[float, float] | None = None) -> GateBook:
        """A fresh book, in the first live stage.

        payoff_range: the utility spec's (low, high), needed where a live gate compares utility. Raises GateError.
        """
        book = cls(policy, payoff_range)
        book.enter_stage(policy.live_stages[0].name)
        return book

    def _evidence_of(self, gate: Gate) -> GateEvidence:
        policy = self.policy
        planned = sum(any(one.name == gate.name for one in stage.gates) for stage in policy.live_stages)
        alpha = policy.alpha_of(gate.name)
        return GateEvidence(gate, alpha, policy.alpha_advance, planned, self.payoff_range)

    def _start_ratio(self) -> None:
        self.ratio = ShareTest(1.0, EITHER)
        self.ratio_units = [0, 0]
        self.ratio_has_failed = False

    def enter_stage(self, stage_name: str) -> None:
        """Start the processes of a live stage; again for the same stage changes nothing. Raises GateError."""
        if stage_name == self.stage_name:
            return
        names = [stage.name for stage in self.policy.live_stages]
        if stage_name not in names:
            raise GateError(f"'stage_name' must be one of {', '.join(names)}: {stage_name!r}")
        if self.stage_name is not None and names.index(stage_name) < names.index(self.stage_name):
            raise GateError(f"stage {stage_name!r} lies before {self.stage_name!r}; a rollout goes one way")
        for evidence in self.gates.values():
            evidence.leave_stage()
        stage = self.policy.stage(stage_name)
        for gate in stage.gates:
            self.gates[gate.name].enter_stage(stage.weight_pct)
        self.stage_name, self.missing = stage_name, {}
        self._start_ratio()

    def observe(self, evidence: PollEvidence) -> None:
        """Take one poll in. Blocks taken at another weight than the stage's are refused and count as missing, and so
        does a metric of the stage that is in neither `blocks` nor `missing`: silence is no evidence.

        Raises GateError before a stage was entered, or for a block of the wrong kind.
        """
        stage = self._stage()
        self.alarms += [alarm for alarm in evidence.alarms if alarm not in self.alarms]
        self.missing = dict(evidence.missing)
        if (
            stage.weight_pct is not None
            and abs(evidence.weight_pct - stage.weight_pct) > _WEIGHT_TOLERANCE_PCT
        ):
            why = f"the poll was taken at {evidence.weight_pct:g} %, the stage is at {stage.weight_pct:g} %"
            self.missing.update(
                {name: why for name in (SAMPLE_RATIO, *(gate.metric for gate in stage.gates))}
            )
            return
        for gate in stage.gates:
            block = evidence.blocks.get(gate.metric)
            if block is not None:
                self.gates[gate.name].observe(block, at=evidence.at)
            elif gate.metric not in self.missing:
                self.missing[gate.metric] = _SILENT
        if stage.weight_pct is not None:
            self._observe_ratio(evidence.blocks.get(SAMPLE_RATIO), stage.weight_pct)

    def _observe_ratio(self, block: Block | None, weight_pct: float) -> None:
        if not isinstance(block, AssignmentBlock):
            self.missing.setdefault(SAMPLE_RATIO, _SILENT)
            return
        if abs(block.weight_pct - weight_pct) > _WEIGHT_TOLERANCE_PCT:
            why = f"the units were assigned at {block.weight_pct:g} %, the stage is at {weight_pct:g} %"
            self.missing[SAMPLE_RATIO] = why
            return
        self.ratio.update(block.canary_units, block.stable_units, w=block.weight_pct / 100)
        self.ratio_units[0] += block.canary_units
        self.ratio_units[1] += block.stable_units
        # An e-value that once reached 1/α has rejected: clean polls after it do not make the mismatch unproven.
        self.ratio_has_failed = self.ratio_has_failed or self.ratio.log_e >= _RATIO_LIMIT

    def _stage(self) -> Stage:
        if self.stage_name is None:
            raise GateError("no stage was entered yet")
        return self.policy.stage(self.stage_name)

    def judge(self, stage_name: str, *, at: float, entered_at: float, extended: bool) -> Verdict:
        """The verdict on the current stage at epoch seconds `at`; changes nothing. Raises GateError."""
        stage = self._stage()
        if stage_name != stage.name:
            raise GateError(f"'stage_name' must be the current stage {stage.name!r}: {stage_name!r}")
        clock = Clock(at, entered_at, extended)
        judged = tuple(self._judged(gate, clock) for gate in stage.gates)
        ratio = self._ratio_result(stage, clock) if stage.kind == "canary" else None
        return decide(stage, judged, ratio=ratio, alarms=self.alarms, clock=clock)

    def _absent(self, gate: Gate) -> str | None:
        """Why the gate's source has nothing now; a reason that names no metric is every gate's."""
        if gate.metric in self.missing:
            return self.missing[gate.metric]
        general = [f"{key}: {why}" for key, why in self.missing.items() if key not in _SOURCES]
        return "; ".join(general) or None

    def _judged(self, gate: Gate, clock: Clock) -> Judged:
        evidence, absent = self.gates[gate.name], self._absent(gate)
        observed, interval = evidence.observed()
        status, detail, wait_s = _status(evidence, gate, absent=absent, clock=clock)
        has_failed = status is GateStatus.FAIL
        log_e = evidence.rollback_log_e if has_failed else evidence.advance_log_e
        result = GateResult(
            gate=gate.name,
            metric=gate.metric,
            status=status,
            observed=observed,
            bound=gate.bound
            if gate.compare_to == "bound"
            else _comparison_bound(gate, has_failed=has_failed),
            n=evidence.tally.canary_n,
            window=f"{self.stage_name}, {clock.elapsed_s:.0f} s",
            log_e=_finite(log_e),
            log_limit=evidence.rollback_limit if has_failed else evidence.advance_limit,
            detail=detail,
            interval=interval,
            rollback_log_e=_finite(evidence.rollback_log_e),
            rollback_log_limit=evidence.rollback_limit,
            required=gate.required,
        )
        return Judged(gate, result, absent, wait_s)

    def _ratio_result(self, stage: Stage, clock: Clock) -> GateResult:
        canary, stable = self.ratio_units
        n, log_e = canary + stable, _finite(self.ratio.log_e)
        if self.ratio_has_failed:
            status = GateStatus.FAIL
            detail = (
                f"sample ratio: {canary} of {n} units are the canary's, not {stage.weight_pct:g} %; "
                "find out why before anything advances"
            )
            if log_e < _RATIO_LIMIT:
                detail += " (it was proven earlier in this stage)"
        elif SAMPLE_RATIO in self.missing:
            status, detail = GateStatus.NO_DATA, f"sample ratio: {self.missing[SAMPLE_RATIO]}"
        elif n == 0:
            status, detail = GateStatus.NO_DATA, "sample ratio: no assigned units were counted"
        else:
            status, detail = GateStatus.PASS, f"{canary} of {n} units"
        return GateResult(
            gate="sample-ratio",
            metric="sample_ratio",
            status=status,
            observed=canary / n if n else None,
            bound=(stage.weight_pct or 0.0) / 100,
            n=n,
            window=f"{stage.name}, {clock.elapsed_s:.0f} s",
            log_e=None,
            log_limit=None,
            detail=detail,
            rollback_log_e=log_e,
            rollback_log_limit=_RATIO_LIMIT,
            required=False,
        )

    def to_json(self) -> dict[str, object]:
        """Everything, JSON-safe; `from_json` gives a book that judges identically."""
        return {
            "v": _VERSION,
            "policy": self.policy.digest,
            "payoff_range": list(self.payoff_range),
            "stage": self.stage_name,
            "gates": {name: evidence.to_json() for name, evidence in self.gates.items()},
            "ratio": self.ratio.to_json(),
            "ratio_units": list(self.ratio_units),
            "ratio_has_failed": self.ratio_has_failed,
            "missing": dict(self.missing),
            "alarms": [{"reason": alarm.reason.value, "detail": alarm.detail} for alarm in self.alarms],
        }

    @classmethod
    def from_json(cls, policy: RolloutPolicy, obj: Mapping[str, object]) -> GateBook:
        """Read back what `to_json` wrote.

        Raises GateError for everything that no honest book of this policy is: what is read must come out again as it
        stands, and be judgeable, so that nothing fails later in the middle of a rollout.
        """
        try:
            if obj["v"] != _VERSION:
                raise GateError(f"the book was stored in form {obj['v']}, this is form {_VERSION}")
            if obj["policy"] != policy.digest:
                raise GateError(f"the book was made for policy {obj['policy']}, not for {policy.digest}")
            ends = stored_list(obj["payoff_range"])
            book = cls(policy, (float(str(ends[0])), float(str(ends[1]))))
            book.stage_name = None if obj["stage"] is None else str(obj["stage"])
            weight_pct = None if book.stage_name is None else policy.stage(book.stage_name).weight_pct
            stored_gates = stored_mapping(obj["gates"])
            if set(stored_gates) != set(book.gates):
                wanted, has = (", ".join(sorted(names)) for names in (book.gates, stored_gates))
                raise GateError(f"the stored book must hold the gates {wanted}: {has}")
            for name, stored in stored_gates.items():
                book.gates[name].restore(stored_mapping(stored), weight_pct)
            book.ratio.restore(stored_mapping(obj["ratio"]))
            book.ratio_units = [int(str(units)) for units in stored_list(obj["ratio_units"])]
            book.ratio_has_failed = bool(obj["ratio_has_failed"])
            book.missing = {str(key): str(why) for key, why in stored_mapping(obj["missing"]).items()}
            for stored in stored_list(obj["alarms"]):
                alarm = stored_mapping(stored)
                book.alarms.append(Alarm(ReasonCode(str(alarm["reason"])), str(alarm["detail"])))
            book._check(obj)
        except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError) as error:
            raise GateError(f"not a stored book of gates: {error!r}") from error
        except ValueError as error:
            raise (
                error if isinstance(error, GateError) else GateError(f"not a stored book: {error}")
            ) from error
        return book

    def _check(self, obj: Mapping[str, object]) -> None:
        """Refuse a book that was not read as it stands, or that cannot be judged. Raises ValueError."""
        if min(self.ratio_units) < 0 or len(self.ratio_units) != 2:
            raise GateError(f"'ratio_units' must be two counts >= 0: {self.ratio_units}")
        if self.stage_name is not None:
            names = [stage.name for stage in self.policy.live_stages]
            if self.stage_name not in names:
                raise GateError(f"'stage' must be one of {', '.join(names)}: {self.stage_name!r}")
            stages = self.policy.live_stages[: names.index(self.stage_name) + 1]
            for name, evidence in self.gates.items():
                runs = [any(gate.name == name for gate in stage.gates) for stage in stages]
                evidence.check(is_running=runs[-1], most_finished=sum(runs[:-1]))
            self.judge(self.stage_name, at=0.0, entered_at=0.0, extended=False)
        written = self.to_json()
        json.dumps(written, allow_nan=False)
        strange = [name for name in obj if written.get(name) != obj[name]]
        if strange:
            raise GateError(f"'{strange[0]}' is not as a book of gates writes it")


def _status(
    evidence: GateEvidence, gate: Gate, *, absent: str | None, clock: Clock
) -> tuple[GateStatus, str, float | None]:
    """A gate's status, what it says in words, and about how many seconds it still wants."""
    status, detail, wait_s = _plain_status(evidence, gate, absent=absent, clock=clock)
    return status, "; ".join([detail, *evidence.notes()]), wait_s


def _plain_status(
    evidence: GateEvidence, gate: Gate, *, absent: str | None, clock: Clock
) -> tuple[GateStatus, str, float | None]:
    if evidence.has_failed:
        return GateStatus.FAIL, _failure(gate), None
    if evidence.error is not None:
        return GateStatus.ERROR, f"evidence is unusable: {evidence.error}", None
    if absent is not None:
        return GateStatus.NO_DATA, f"has no evidence now: {absent}", None
    n = evidence.tally.canary_n
    if n == 0:
        return GateStatus.NO_DATA, "has no data yet", None
    if evidence.advance_log_e >= evidence.advance_limit and n >= gate.min_samples:
        return GateStatus.PASS, _success(gate), 0.0
    if evidence.is_silent:
        return GateStatus.INCONCLUSIVE, f"needs {evidence.least()} first", None
    more = evidence.more_wanted()
    if more is None:
        return GateStatus.INCONCLUSIVE, "is open: at the present estimate it would not pass", None
    wait_s = more * clock.elapsed_s / n if clock.elapsed_s else None
    what = "requests" if kind_of(gate) == "proportion" else "units"
    detail = f"needs about {more:,} more canary {what}"
    if wait_s is not None:
        detail += f" ({wait_s:.0f} s)"
    return GateStatus.INCONCLUSIVE, detail, wait_s


def _failure(gate: Gate) -> str:
    if gate.compare_to == "bound":
        word = "above" if gate.max is not None else "below"
        return f"is {word} its bound"
    if is_two_sided(gate) or kind_of(gate) == "gap":
        return f"differs from stable's by more than {_margin(gate, gate.tolerance)}"
    return f"is worse than stable by more than {_margin(gate, gate.tolerance)}"


def _success(gate: Gate) -> str:
    if gate.compare_to == "bound":
        return "is within its bound"
    if is_two_sided(gate) or kind_of(gate) == "gap":
        return f"does not differ from stable's by {_margin(gate, gate.ni_margin)}"
    return f"is not worse than stable by {_margin(gate, gate.ni_margin)}"


def _margin(gate: Gate, margin: float | None) -> str:
    is_ratio = kind_of(gate) == "proportion" and gate.scale == "ratio"
    return f"{margin or 0.0:g}" + (" times" if is_ratio else "")


def _comparison_bound(gate: Gate, *, has_failed: bool) -> float | None:
    """What the observed value is held against: niMargin, or the tolerance that it crossed; below 0 where more is
    better."""
    margin = gate.tolerance if has_failed else gate.ni_margin
    if margin is None:
        return None
    return 0.0 - margin if METRICS[gate.metric].worse == "less" else margin


def _finite(log_e: float) -> float:
    """log E for display and storage; E = 0 is shown as e^-1000."""
    return min(max(log_e, -1000.0), 1e6)

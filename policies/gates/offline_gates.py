"""Gates of the offline stages (contract, training, alignment): a measurement against an inclusive bound.

A gate says which end it looks at: the estimate, or the lower or upper end of its 95 % interval; where that end
was not measured there is no data, and no data never passes. Or its bound is a condition (`when`) over what its stage
measured. A gate may apply to the first release only, or only to challengers; one on a dry run is judged and shown, and
decides nothing. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.gates.evidence import Measured
from policies.gates.stage_verdict import shown
from policies.rollout.condition import judge_condition
from policies.rollout.metrics import measured_beside
from policies.rollout.rollout_policy import Gate, Stage
from policies.rollout.verdict import Decision, GateResult, GateStatus, ReasonCode, Verdict


def judge_measured(
    stage: Stage, measured: Mapping[str, Measured], *, at: float, first_release: bool = False
) -> Verdict:
    """The verdict on an offline stage; ROLLBACK there means that the release is refused.

    Raises ValueError for a live stage.
    """
    if stage.kind != "offline":
        raise ValueError(f"'stage' must be offline: {stage.name!r} is {stage.kind}")
    other = "challenger" if first_release else "first"
    gates = [gate for gate in stage.gates if gate.applies_to != other]
    pairs = [(gate, _result(gate, measured)) for gate in gates]
    results = tuple(result for _, result in pairs)
    required = [(gate, result) for gate, result in pairs if gate.required]

    def verdict(decision: Decision, reason: ReasonCode, detail: str) -> Verdict:
        return Verdict(stage.name, decision, reason, detail, results, at)

    demands = [_demand(gate, result) for gate, result in required if result.status is not GateStatus.PASS]
    for decision in (Decision.ROLLBACK, Decision.HOLD):
        for what, reason, detail in demands:
            if what is decision:
                word = "refused" if decision is Decision.ROLLBACK else "holds"
                return verdict(decision, reason, f"{word}: {detail}")
    if not required:
        return verdict(Decision.HOLD, ReasonCode.NO_DATA, "holds: no gate of this stage applies")
    detail = f"advances: {', '.join(gate.name for gate, _ in required)} passed"
    return verdict(Decision.ADVANCE, ReasonCode.GATES_PASSED, detail)


def _demand(gate: Gate, result: GateResult) -> tuple[Decision, ReasonCode, str]:
    asked, reason = {
        GateStatus.FAIL: (gate.on_fail, ReasonCode.BOUND_EXCEEDED),
        GateStatus.ERROR: (gate.on_error, ReasonCode.GATE_ERROR),
    }.get(result.status, (gate.on_missing, ReasonCode.NO_DATA))
    if asked == "rollback":
        return Decision.ROLLBACK, reason, result.sentence()
    held = ReasonCode.GATE_FAILED_HELD if result.status is GateStatus.FAIL else reason
    return Decision.HOLD, held, result.sentence()


def _result(gate: Gate, every: Mapping[str, Measured]) -> GateResult:
    measured = every.get(gate.metric)
    observed: float | None = None
    interval: tuple[float, float] | None = None
    n = 0
    if measured is None:
        status, detail = GateStatus.NO_DATA, f"'{gate.metric}' was not measured"
    elif not measured.is_finite():
        status, detail, n = GateStatus.ERROR, f"'{gate.metric}' is not finite: {measured}", measured.n
    else:
        n = measured.n
        if measured.lower is not None and measured.upper is not None:
            interval = (measured.lower, measured.upper)
        observed = {"value": measured.value, "lower": measured.lower, "upper": measured.upper}[gate.estimate]
        if gate.when is None:
            status, detail = _compare(gate, observed, n)
        else:
            known = measured_beside(gate.metric)
            status, detail = judge_condition(gate.when, every, known=known, min_samples=gate.min_samples)
    return GateResult(
        gate=gate.name,
        metric=gate.metric,
        status=status,
        observed=observed,
        bound=gate.bound,
        n=n,
        window="offline",
        log_e=None,
        log_limit=None,
        detail=shown(gate, detail),
        interval=interval,
        required=gate.required,
    )


def _compare(gate: Gate, observed: float | None, n: int) -> tuple[GateStatus, str]:
    what = {"value": "the estimate", "lower": "the interval's lower end", "upper": "the interval's upper end"}
    if observed is None:
        return GateStatus.NO_DATA, f"'{gate.metric}' came without {what[gate.estimate]}"
    if n < gate.min_samples:
        return GateStatus.NO_DATA, f"rests on {n} rows, fewer than {gate.min_samples}"
    if gate.max is not None:
        is_within, word, bound = observed <= gate.max, "<=", gate.max
    else:
        bound = gate.min if gate.min is not None else float("inf")
        is_within, word = observed >= bound, ">="
    status = GateStatus.PASS if is_within else GateStatus.FAIL
    return status, f"{what[gate.estimate]} must be {word} {bound:g}: {observed:.4g}"

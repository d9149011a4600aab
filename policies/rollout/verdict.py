"""What a stage's evidence came to: advance, hold or roll back, with a closed reason and every gate's numbers.

Rule 1: nothing here holds a NaN or an infinity; a number that is not finite is the gate's error, in words.
Rule 2: a reason is one of `ReasonCode`; free text goes into `detail`, never the other way round.
Source: design.md section 6, gates.md semantics 1 and 5. Must never import: anything but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class VerdictError(ValueError):
    """A verdict or gate result that cannot be: a NaN, an unknown status, a stored form that is none."""


class Decision(StrEnum):
    """What the rollout does next."""

    ADVANCE = "ADVANCE"
    HOLD = "HOLD"
    ROLLBACK = "ROLLBACK"


class GateStatus(StrEnum):
    """What one gate's evidence says; only `pass` lets a required gate through."""

    PASS = "pass"  # noqa: S105 - the word of the domain, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"
    ERROR = "error"


_SEVERITY = {
    GateStatus.PASS: 0,
    GateStatus.INCONCLUSIVE: 1,
    GateStatus.NO_DATA: 2,
    GateStatus.ERROR: 3,
    GateStatus.FAIL: 4,
}


def worst(statuses: Iterable[GateStatus]) -> GateStatus:
    """The worst of the statuses; no status at all is `no_data`, never a pass."""
    return max(statuses, key=_SEVERITY.__getitem__, default=GateStatus.NO_DATA)


class ReasonCode(StrEnum):
    """Why: the closed list. Operators' runbooks and alerts are keyed by these."""

    # advance
    GATES_PASSED = "gates_passed"  # every required gate passed and the least bake time is over
    BAKED = "baked"  # the stage requires no gate and its bake time is over (advanceOn: bake)
    APPROVED = "approved"  # a person said promote
    # hold
    BAKING = "baking"  # the least bake time is not over
    MORE_EVIDENCE = "more_evidence"  # a required gate is still inconclusive
    EXTENDED = "extended"  # the longest bake was over once and the stage was extended
    INCONCLUSIVE_MANUAL = "inconclusive_manual"  # the longest bake is over; a person must decide
    NO_DATA = "no_data"  # a required gate has no evidence
    MISSING_EVIDENCE = (
        "missing_evidence"  # a source said that it has none: lag, stalled watermark, no counters
    )
    GATE_ERROR = "gate_error"  # a gate's evidence is not usable (NaN, out of range)
    SAMPLE_RATIO = "sample_ratio"  # units do not split by the configured weight
    AWAITING_APPROVAL = "awaiting_approval"
    HELD = "held"  # a person said hold
    FROZEN = "frozen"  # the grant was revoked (kill)
    GATE_FAILED_HELD = "gate_failed_held"  # a gate failed and its onFail is `hold`
    # roll back
    REGRESSION = "regression"  # worse than the champion by more than the tolerance
    BOUND_EXCEEDED = "bound_exceeded"  # beyond an absolute bound
    INCONCLUSIVE = "inconclusive"  # the longest bake and its extension are over and nothing is shown
    CANARY_EJECTED = "canary_ejected"  # the proxy ejected the canary
    CANARY_UNHEALTHY = "canary_unhealthy"  # its health check failed for too long
    RELEASE_UNAVAILABLE = "release_unavailable"  # its process cannot be started or read back
    ABORTED = "aborted"  # a person said abort
    KILLED = "killed"  # a person revoked the grant


@dataclass(frozen=True)
class GateResult:
    """One gate at one poll.

    observed, bound and interval are in the metric's own unit; log_e against log_limit is the evidence for
    passing; rollback_log_e against rollback_log_limit is the evidence for failing, at every status.
    detail says in plain words how much more is needed.
    Raises VerdictError on a number that is not finite.
    """

    gate: str
    metric: str
    status: GateStatus
    observed: float | None
    bound: float | None
    n: int
    window: str
    log_e: float | None
    log_limit: float | None
    detail: str
    interval: tuple[float, float] | None = None
    rollback_log_e: float | None = None
    rollback_log_limit: float | None = None
    required: bool = True

    def __post_init__(self) -> None:
        """Refuse what JSON cannot carry."""
        for name in ("observed", "bound", "log_e", "log_limit", "rollback_log_e", "rollback_log_limit"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise VerdictError(f"'{name}' of gate {self.gate!r} must be finite or None: {value}")
        if self.interval is not None and not all(math.isfinite(end) for end in self.interval):
            raise VerdictError(f"'interval' of gate {self.gate!r} must be finite or None: {self.interval}")

    def sentence(self) -> str:
        """One line: the gate, its status, observed against bound, n, evidence and limit, what it wants."""
        parts = [f"{self.gate} {self.status.value}"]
        if self.observed is not None:
            observed = f"{self.metric} {_number(self.observed)}"
            if self.interval is not None:
                observed += f" [{_number(self.interval[0])}, {_number(self.interval[1])}]"
            if self.bound is not None:
                observed += f" against {_number(self.bound)}"
            parts.append(observed)
        elif self.bound is not None:
            parts.append(f"{self.metric} bound {_number(self.bound)}")
        parts.append(f"n {self.n:,}")
        if self.log_e is not None and self.log_limit is not None:
            parts.append(f"log E {self.log_e:.2f} of {self.log_limit:.2f}")
        if self.status is not GateStatus.FAIL and None not in (self.rollback_log_e, self.rollback_log_limit):
            parts.append(f"against it {self.rollback_log_e:.2f} of {self.rollback_log_limit:.2f}")
        if self.detail:
            parts.append(self.detail)
        return "; ".join(parts)

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe values."""
        return {
            "gate": self.gate,
            "metric": self.metric,
            "status": self.status.value,
            "observed": self.observed,
            "bound": self.bound,
            "n": self.n,
            "window": self.window,
            "log_e": self.log_e,
            "log_limit": self.log_limit,
            "detail": self.detail,
            "interval": None if self.interval is None else list(self.interval),
            "rollback_log_e": self.rollback_log_e,
            "rollback_log_limit": self.rollback_log_limit,
            "required": self.required,
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> GateResult:
        """Read back what `to_json` wrote. Raises VerdictError."""
        try:
            interval = obj["interval"]
            return cls(
                gate=str(obj["gate"]),
                metric=str(obj["metric"]),
                status=GateStatus(str(obj["status"])),
                observed=_optional(obj["observed"]),
                bound=_optional(obj["bound"]),
                n=int(str(obj["n"])),
                window=str(obj["window"]),
                log_e=_optional(obj["log_e"]),
                log_limit=_optional(obj["log_limit"]),
                detail=str(obj["detail"]),
                interval=None if not isinstance(interval, list) else (float(interval[0]), float(interval[1])),
                rollback_log_e=_optional(obj["rollback_log_e"]),
                rollback_log_limit=_optional(obj["rollback_log_limit"]),
                required=bool(obj["required"]),
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise VerdictError(f"not a stored gate result: {error}") from error


@dataclass(frozen=True)
class Verdict:
    """What a stage's evidence came to at one poll. wait_s: at least so long until it could advance."""

    stage: str
    decision: Decision
    reason: ReasonCode
    detail: str
    gates: tuple[GateResult, ...]
    at: float
    wait_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what JSON cannot carry."""
        for name in ("at", "wait_s"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise VerdictError(f"'{name}' of the verdict on {self.stage!r} must be finite: {value}")

    @property
    def status(self) -> GateStatus:
        """The worst status of the required gates; without required gates `pass` once it may advance."""
        required = [gate.status for gate in self.gates if gate.required]
        if not required:
            return GateStatus.PASS if self.decision is Decision.ADVANCE else GateStatus.INCONCLUSIVE
        return worst(required)

    def sentence(self) -> str:
        """One line for the ledger and the console: stage, decision, reason, detail."""
        return f"{self.stage}: {self.decision.value} ({self.reason.value}) {self.detail}"

    def to_json(self) -> dict[str, object]:
        """Plain JSON-safe values."""
        return {
            "stage": self.stage,
            "decision": self.decision.value,
            "reason": self.reason.value,
            "detail": self.detail,
            "gates": [gate.to_json() for gate in self.gates],
            "at": self.at,
            "wait_s": self.wait_s,
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> Verdict:
        """Read back what `to_json` wrote. Raises VerdictError."""
        try:
            gates = obj["gates"]
            if not isinstance(gates, list):
                raise VerdictError(f"'gates' must be a list: {gates!r}")
            return cls(
                stage=str(obj["stage"]),
                decision=Decision(str(obj["decision"])),
                reason=ReasonCode(str(obj["reason"])),
                detail=str(obj["detail"]),
                gates=tuple(GateResult.from_json(gate) for gate in gates),
                at=float(str(obj["at"])),
                wait_s=_optional(obj["wait_s"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise VerdictError(f"not a stored verdict: {error}") from error


def _optional(value: object) -> float | None:
    return None if value is None else float(str(value))


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}"

"""What an offline stage measured, on the ledger: with it the stage's verdict can be worked out again.

Must never import: sqlalchemy, Prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from policies.gates.evidence import Measured
from services.ledger.ledger import append
from services.rollout.policy_set import PolicySet
from services.store.database import Database

MEASURED = "measured"


def record_measured(
    db: Database,
    measured: Mapping[str, Measured],
    *,
    job: str,
    stage: str,
    policies: PolicySet,
    first_release: bool,
    at: float,
) -> None:
    """Append the measurements that the stage of this job is judged by, and what else the verdict rests on."""
    body = {
        "job": job,
        "stage": stage,
        "policy": policies.rollout.digest,
        "first_release": first_release,
        "metrics": {
            name: {
                "value": _stored(one.value),
                "lower": _stored(one.lower),
                "upper": _stored(one.upper),
                "n": int(one.n),
            }
            for name, one in measured.items()
        },
    }
    append(db, MEASURED, body, service=policies.service, rollout_id=None, at=at)


def read_measured(body: Mapping[str, object]) -> dict[str, Measured]:
    """The measurements of such an entry."""
    metrics = body["metrics"]
    return {str(name): _measured(one) for name, one in metrics.items()} if isinstance(metrics, dict) else {}


def _stored(value: float | None) -> object:
    """What is not finite is text, which JSON can carry."""
    return value if value is None or isfinite(value) else str(float(value))


def _measured(stored: Mapping[str, str | float | None]) -> Measured:
    lower, upper = stored["lower"], stored["upper"]
    return Measured(
        float(stored["value"] or 0.0),
        None if lower is None else float(lower),
        None if upper is None else float(upper),
        int(stored["n"] or 0),
    )

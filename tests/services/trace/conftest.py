"""A home with one release in a rollout at 25 %: decisions made by the real decider, shipped by the real shipper."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policies.gates.evidence import Measured
from policies.operating.operating_point import OperatingPoint
from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.home import Home, Ports
from services.ledger.ledger import append
from services.rollout.policy_set import POLICIES, load_policies
from services.rollout.release_job import ReleaseJob
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.release import Release, write_release
from services.serving.request_mark import RequestMark
from services.store import decisions, rollouts
from services.store.database import Database
from services.store.decisions import RequestRow
from services.store.rollouts import RolloutRecord
from services.telemetry.shipper import Shipper
from services.trace.assignment import first_canary_slot, slot_of

SERVICE, SALT, CHAMPION = "telemarketing", "7f3a9c0412de55b8", "telemarketing-aaaaaaaaaaaa"
BEGAN, AT = 1_000.0, 1_100.0
MEASURED = {
    "quarantined_share": Measured(0.0, None, None, 9000),
    "failed_rules": Measured(0.0, None, None, 31),
    "rows": Measured(9000.0, None, None, 9000),
}


@dataclass
class Traced:
    """The home and what decides in it."""

    home: Home
    db: Database
    release: Release
    decider: Decider
    numbers: Any

    def decide(self, row: dict[str, Any], *, unit: str | None = "c00001", **mark: Any) -> dict[str, Any]:
        """One request, decided, logged and shipped; the answer, with its explanation."""
        request_id = f"request-{next(self.numbers)}"
        assigned = "none" if unit is None else variant_of(unit)
        known = RequestMark(request_id, 1, unit, assigned, False)
        (answer,) = asyncio.run(self.decider.decide(replace(known, **mark), [row], is_explained=True))
        with self.db.write() as connection:
            requested = RequestRow(request_id, unit, assigned, AT, 200, 3.5, 1, "")
            decisions.upsert_requests(connection, [requested])
        Shipper(self.db, self.home.decision_logs, self.home.access_log, clock=lambda: AT + 1).ship_once()
        return answer

    def enter(self, kind: str, body: dict[str, Any], *, at: float, rollout: str | None = "r1") -> None:
        append(self.db, kind, body, service=SERVICE, rollout_id=rollout, at=at)


def variant_of(unit: str, weight_pct: float = 25.0) -> str:
    return "canary" if slot_of(unit, SALT) >= first_canary_slot(weight_pct) else "stable"


@pytest.fixture(scope="session")
def world() -> Any:
    """This file's names."""
    return SimpleNamespace(SALT=SALT, AT=AT, CHAMPION=CHAMPION, variant_of=variant_of)


@pytest.fixture
def make(db: Database, tmp_path: Path, parts: Any, policy_texts: dict[str, str]) -> Callable[..., Traced]:
    """Makes the home; `contract`: a change of the contract's text, `switches`: whether the decider heeds them."""

    def build(contract: Callable[[str], str] = lambda text: text) -> Traced:
        home = Home(tmp_path / "home", Ports(1))
        texts = {
            **policy_texts,
            "rollout.yaml": (POLICIES / SERVICE / "rollout.yaml").read_text(encoding="utf-8"),
        }
        texts["contract.yaml"] = contract(texts["contract.yaml"])
        release = write_release(
            home.releases,
            service=SERVICE,
            candidate=parts,
            operating_point=OperatingPoint(shift=(0.0, -0.05)),
            policies=texts,
            provenance={
                "snapshot_digest": "sha256:5a",
                "code_version": "abc123",
                "utility_digest": "sha256:7b",
            },
            created_at=900.0,
        )
        numbers = count(1)
        stamps = Stamps(
            clock=lambda: AT, timer_ms=lambda: float(next(numbers) * 500), new_id=lambda: f"d{next(numbers)}"
        )
        log = DecisionLog(home.decision_logs, release.id, pid=1)
        decider = Decider(
            release,
            log=log,
            stamps=stamps,
            switches_file=home.switches_file(SERVICE),
            log_key_file=home.log_key_file,
        )
        decider.warm_up()
        traced = Traced(home, db, release, decider, numbers)
        _record(traced, texts)
        return traced

    return build


def _record(traced: Traced, texts: dict[str, str]) -> None:
    """The making of the release, and the rollout that it is in."""
    home, db, release = traced.home, traced.db, traced.release
    job = ReleaseJob("job", home, db, load_policies(SERVICE), 0.0, 1.0, 7, None, "abc123", lambda: 950.0)
    job.pass_stage(
        "contract", gather=lambda: SimpleNamespace(measured=lambda: MEASURED), report=lambda *_: None
    )
    traced.enter("release_packed", {"job": "job", "release": release.id}, at=960.0, rollout=None)
    state = {"state": {"phase": "canary", "stage": "canary-25"}, "pending": []}
    rollouts.create(
        db,
        RolloutRecord(
            id="r1",
            service=SERVICE,
            champion=CHAMPION,
            candidate=release.id,
            policy_text=texts["rollout.yaml"],
            utility_text=texts["utility.yaml"],
            salt=SALT,
            state=json.loads(json.dumps(state)),
            gates={},
            cursors={},
            weight_pct=25.0,
            version=0,
            created_at=BEGAN,
            updated_at=BEGAN,
        ),
    )
    verdict = Verdict("shadow", Decision.ADVANCE, ReasonCode.BAKED, "advances: baked 10 s", (), 1_020.0)
    body = {"release": release.id, "verdict": verdict.to_json(), "report": "reports/html/shadow.html"}
    traced.enter("verdict", body, at=1_020.0)
    traced.enter("effect", {"action": "set_weight", "read_back": {"weight_pct": 25.0}}, at=1_030.0)

"""Shadow evidence: the same request decided twice, paired, each unit once, users never affected."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policies.gates.evidence import CountBlock, GapBlock, PollEvidence
from policies.rollout.rollout_policy import RolloutPolicy, Stage
from policies.rollout.verdict import ReasonCode
from policies.utility.utility import UtilitySpec
from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.rollouts import RolloutRecord
from services.telemetry.shadow import gather_shadow

Make = Callable[..., DecisionRow]
METRICS = ("canary_errors", "slow_share", "action_rate", "disagreement", "call_rate_gap")


@pytest.fixture
def poll(
    db: Database,
    proxy: Any,
    record: RolloutRecord,
    policy: RolloutPolicy,
    utility: UtilitySpec,
    make_stage: Callable[..., Stage],
) -> Callable[..., PollEvidence]:
    """Polls the shadow stage, settled at 1005, saving cursors between polls."""
    saved = {"record": record}
    stage = make_stage("shadow", "shadow", None, *METRICS)

    def once(now: float, *, shipped: float | None = None) -> PollEvidence:
        with db.write() as connection:
            store.raise_mark(
                connection, store.SHIPPED_THROUGH, now - 1 if shipped is None else shipped, at=now
            )
        evidence, cursors = gather_shadow(
            db,
            proxy,
            record=saved["record"],
            policy=policy,
            utility=utility,
            stage=stage,
            settled_at=1005.0,
            now=now,
        )
        saved["record"] = replace(saved["record"], cursors=cursors)
        return evidence

    return once


def put(db: Database, *rows: DecisionRow) -> None:
    with db.write() as connection:
        store.upsert_decisions(connection, rows)


def pair(
    make: Make, *, unit: str, action: str, shadow_action: str, age: int = 40, **changes: Any
) -> list[DecisionRow]:
    given = {
        "request_id": f"q-{unit}-{changes.get('at', 1010.0)}",
        "unit": unit,
        "row": {"balance": 1, "age": age},
    }
    user = make(**given, action=action, **changes)
    mirrored = make(**given, action=shadow_action, **changes, shadow=True)
    return [user, replace(mirrored, release="rel-b", took_ms=300.0, at=user.at + 0.2)]


def test_pairs_tell_actions_gaps_and_time(
    db: Database, poll: Callable[..., PollEvidence], make_decision: Make
) -> None:
    """Disagreement, action rates of both, the groups' rates (30 is still young) and the candidate's time, per unit."""
    put(
        db,
        *pair(make_decision, unit="a", action="leave", shadow_action="call", age=30),
        *pair(make_decision, unit="b", action="call", shadow_action="call", age=31),
        *pair(make_decision, unit="c", action="call", shadow_action="leave", age=31),
        *pair(make_decision, unit="c", action="call", shadow_action="call", at=1011.0),  # a repeat
        *pair(
            make_decision, unit="d", action="leave", shadow_action="call", at=1004.0
        ),  # before the mirror was on
        make_decision(unit="e", action="call"),  # never answered by the shadow
        *(
            replace(row, release="rel-z")
            for row in pair(make_decision, unit="f", action="call", shadow_action="call")
        ),
    )
    evidence = poll(1020.0)
    assert evidence.missing == {}
    assert evidence.blocks == {
        "canary_errors": CountBlock(0, 0),
        "disagreement": CountBlock(2, 3),
        "action_rate": CountBlock(2, 3, 2, 3),
        "slow_share": CountBlock(3, 3, 0, 3),
        "call_rate_gap": GapBlock(1, 1, 1, 2),
    }
    assert poll(1021.0).blocks["disagreement"] == CountBlock(0, 0)


def test_pairs_wait_for_the_shadow(
    db: Database, poll: Callable[..., PollEvidence], make_decision: Make
) -> None:
    """A pair counts once both of its logs must have been shipped, and then exactly once."""
    user, mirrored = pair(make_decision, unit="a", action="leave", shadow_action="call")
    put(db, user)
    assert poll(1012.0, shipped=1010.5).blocks["disagreement"] == CountBlock(0, 0)
    put(db, mirrored)
    assert poll(1013.0, shipped=1011.5).blocks["disagreement"] == CountBlock(1, 1)


def test_shadow_errors_are_the_shadow_hosts(proxy: Any, poll: Callable[..., PollEvidence]) -> None:
    """Errors come from the counters of cluster `shadow`; when it is shut out, that is an alarm."""
    poll(1020.0)
    proxy.set_host("shadow", 50, 5)
    proxy.set_host("canary", 10, 10)
    assert poll(1021.0).blocks["canary_errors"] == CountBlock(5, 50)
    proxy.clusters["shadow"] = ()
    assert poll(1022.0).alarms == ()
    (alarm,) = poll(1025.0).alarms
    assert (alarm.reason, "no endpoint" in alarm.detail) == (ReasonCode.CANARY_UNHEALTHY, True)


def test_missing_is_named(
    db: Database, proxy: Any, poll: Callable[..., PollEvidence], make_decision: Make
) -> None:
    """Rows without the group's field, a lagging shipper and a silent proxy are reasons, never zeros."""
    first = pair(make_decision, unit="a", action="leave", shadow_action="call")
    put(db, *(replace(row, row='{"balance": 1}') for row in first))
    assert "no number in field 'age'" in poll(1020.0).missing["call_rate_gap"]
    lagging = poll(1040.0, shipped=1020.0)
    assert set(lagging.missing) == set(METRICS) - {"canary_errors"}
    assert set(lagging.blocks) == {"canary_errors"}
    proxy.is_down = True
    assert set(poll(1041.0).missing) == set(METRICS)

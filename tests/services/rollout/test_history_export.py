"""A rollout's log as a flat file: what the gates counted, unit by unit, is what the file says when it is read again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.gates.evidence import UtilityBlock
from policies.gates.gates import GateBook
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility
from services.rehearsal.history_file import read_history
from services.rehearsal.history_polls import polls_of
from services.rollout.history_export import NothingToExport, export_history
from services.rollout.policy_set import POLICIES
from services.store import decisions as store
from services.store import rollouts
from services.store.database import Database
from services.store.decisions import DecisionRow, RequestRow
from services.store.outcomes import Outcome, record_outcomes
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord, UnknownRollout

SERVICE = "telemarketing"
TEXTS = {
    name: (POLICIES / SERVICE / name).read_text(encoding="utf-8") for name in ("rollout.yaml", "utility.yaml")
}
POLICY = load_rollout(
    TEXTS["rollout.yaml"].replace("where: disagreement", "where: all").replace(", varianceLeft: 0.28", ""),
    "rollout.yaml",
)
UTILITY = load_utility(TEXTS["utility.yaml"], "utility.yaml")
BEGAN = 1_000.0
STAGES = (("canary-5", 1_010.0, 1_020.0), ("canary-25", 1_021.0, 1_040.0))


def decision(number: int, **changes: Any) -> DecisionRow:
    known: dict[str, Any] = {
        "decision_id": f"d{number}",
        "request_id": f"q{number}",
        "attempt": 1,
        "at": 1_015.0,
        "unit": f"u{number}",
        "assigned": "stable",
        "shadow": False,
        "release": "rel-a",
        "action": "call",
        "score": 0.5,
        "took_ms": 4.0,
        "expected_utility": "[]",
        "probabilities": "[]",
        "row": '{"balance": 1000, "age": 40}',
    }
    return DecisionRow(**{**known, **changes})


def request(of: DecisionRow, **changes: Any) -> RequestRow:
    known: dict[str, Any] = {
        "request_id": of.request_id,
        "unit": of.unit,
        "assigned": of.assigned,
        "at": of.at,
        "status": 200,
        "duration_ms": 12.5,
        "attempts": of.attempt,
        "flags": "-",
    }
    return RequestRow(**{**known, **changes})


def conducted(db: Database, rows: Sequence[DecisionRow], outcomes: Sequence[Outcome]) -> str:
    """A rollout on record that was polled in two canary stages, and the log of these decisions."""
    book = GateBook.start(POLICY, UTILITY.range)
    record = rollouts.create(
        db,
        RolloutRecord(
            id="r1",
            service=SERVICE,
            champion="rel-a",
            candidate="rel-b",
            policy_text=TEXTS["rollout.yaml"],
            utility_text=TEXTS["utility.yaml"],
            salt="s",
            state={},
            gates=book.to_json(),
            cursors={},
            weight_pct=0.0,
            version=0,
            created_at=BEGAN,
            updated_at=BEGAN,
        ),
    )
    for stage, start, stop in STAGES:
        for at in (start + 0.5, stop):
            evidence: dict[str, object] = {
                "at": at,
                "weight_pct": 5.0,
                "blocks": {},
                "missing": {},
                "alarms": [],
            }
            poll = JudgedPoll(at, stage, start, False, False, "HOLD", "baking", evidence)
            record = rollouts.save(db, record, at=at, poll=poll)
    with db.write() as connection:
        store.upsert_decisions(connection, rows)
        delivered = {row.request_id: row for row in rows if not row.shadow}
        store.upsert_requests(connection, [request(row) for row in delivered.values()])
    record_outcomes(db, outcomes, received_at=2_000.0)
    return record.id


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_exported_is_what_is_read(db: Database, tmp_path: Path, suffix: str) -> None:
    """First delivered decisions by assignment, payoffs as priced, failures that stable made good; repeats, shadow
    decisions, units without an id and what fell between two stages are not in the file."""
    rows = [
        decision(1, at=1_012.0, assigned="canary", release="rel-b", action="leave"),
        decision(2, at=1_013.0),
        decision(3, at=1_014.0, assigned="canary", attempt=2),  # stable answered for the canary
        decision(4, at=1_030.0, unit="u2"),  # a repeat
        decision(5, at=1_015.0, shadow=True),
        decision(6, at=1_020.5),  # between the stages
        decision(7, at=1_016.0, unit=None),
        decision(8, at=1_022.0),  # its outcome never came
        decision(9, at=1_005.0),  # before the first canary stage
    ]
    outcomes = [Outcome("d2", "subscribed", 1_017.0), Outcome("d3", "not_subscribed", 1_018.0)]
    rollout = conducted(db, rows, outcomes)
    found = export_history(db, rollout, tmp_path / f"h{suffix}", releases=tmp_path)
    assert (found.units, found.by_stage) == (4, {"canary-5": 3, "canary-25": 1})
    assert "differs" in found.lacks
    history = read_history(found.path)
    assert history.unused == ()
    assert history.at.tolist() == [1_012.0, 1_013.0, 1_014.0, 1_022.0]
    assert history.is_canary.tolist() == [True, False, True, False]
    earned = 0.25 * 0.02463333 * 1000 - 1
    np.testing.assert_allclose(history.columns["payoff"], [0.0, earned, -1.0, np.nan])
    assert history.columns["failed"].tolist() == [0, 0, 1, 0]
    assert history.columns["acted"].tolist() == [0, 1, 1, 1]
    assert history.columns["duration_ms"].tolist() == [12.5] * 4
    assert history.columns["weight_pct"].tolist() == [5, 5, 5, 25]
    np.testing.assert_array_equal(history.columns["outcome_at"], [np.nan, 1_017.0, 1_018.0, np.nan])


def test_the_exported_file_can_be_judged(db: Database, tmp_path: Path) -> None:
    """The policy takes the file as it is: stages by their weights, each matured payoff once."""
    rows = [
        decision(i, at=1_010.0 + i / 50, assigned="canary" if i % 20 == 0 else "stable", action="call")
        for i in range(1, 400)
    ]
    outcomes = [Outcome(row.decision_id, "not_subscribed", row.at + 2.0) for row in rows]
    exported = export_history(db, conducted(db, rows, outcomes), tmp_path / "h.parquet", releases=tmp_path)
    found = polls_of(read_history(exported.path), POLICY, UTILITY.range)
    assert {poll.stage for poll in found.polls} == {"canary-5"}
    blocks = [poll.evidence.blocks["utility"] for poll in found.polls]
    payoffs = np.concatenate([one.stable for one in blocks if isinstance(one, UtilityBlock)])
    assert payoffs.tolist() == [-1.0] * sum(row.assigned == "stable" for row in rows)


def test_nothing_to_export_is_told(db: Database, tmp_path: Path) -> None:
    """A rollout that is not there, and one without a decision in a canary stage."""
    with pytest.raises(UnknownRollout):
        export_history(db, "r0", tmp_path / "h.csv", releases=tmp_path)
    with pytest.raises(NothingToExport, match="no decision in a canary stage"):
        export_history(db, conducted(db, [], []), tmp_path / "h.csv", releases=tmp_path)

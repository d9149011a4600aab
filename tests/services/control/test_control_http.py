"""The control service over real HTTP: closed without the token, bounded, strict, and the kill switch."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services.control import token
from services.control.token import TokenError
from services.control.weight import GrantReader
from services.ledger.ledger import append, entries, verify
from services.store import grants, orders, rollouts
from services.store.database import Database, StoreError
from services.store.grants import effective_weight, read_grant
from services.store.rollouts import RolloutRecord
from services.telemetry.shipper import ShipReport


def grant_now(db: Database, weight_pct: float = 25.0) -> None:
    now = time.time()
    grants.write_grant(
        db, service="telemarketing", rollout_id="r1", weight_pct=weight_pct, valid_until=now + 30, at=now
    )


def test_outcomes_are_idempotent(running: Any) -> None:
    """Posting again changes nothing and says so; contradictions are counted; the watermark never goes back."""
    body = {
        "outcomes": [
            {"decision_id": "d1", "outcome": "subscribed", "at": 100.0},
            {"decision_id": "d2", "outcome": "subscribed", "at": 101},
        ],
        "watermark": 200.0,
    }
    counts = [running.client.post("/outcomes", json=body).json() for _ in range(2)]
    assert [(one["new"], one["duplicates"], one["unknown"]) for one in counts] == [(2, 0, 2), (0, 2, 2)]
    body = {"outcomes": [{"decision_id": "d1", "outcome": "not_subscribed", "at": 150.0}], "watermark": 150.0}
    assert running.client.post("/outcomes", json=body).json()["conflicts"] == 1
    status = running.client.get("/status").json()["outcomes"]
    assert (status["new"], status["duplicates"], status["conflicts"], status["watermark"]) == (2, 2, 1, 200.0)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"outcomes": [{"decision_id": "d", "outcome": "x", "at": "1"}]}, 422, "outcomes.0.at"),
        ({"outcomes": [{"decision_id": "d", "outcome": "x"}]}, 422, "outcomes.0.at"),
        ({"outcomes": [{"decision_id": "", "outcome": "x", "at": 1.0}]}, 422, "outcomes.0.decision_id"),
        ({"outcomes": [{"decision_id": "d\0", "outcome": "x", "at": 1.0}]}, 422, "outcomes.0.decision_id"),
        ({"outcomes": [{"decision_id": "d", "outcome": "x\x1b[2J", "at": 1.0}]}, 422, "outcomes.0.outcome"),
        ({"outcomes": [{"decision_id": "d", "outcome": "x", "at": -1.0}]}, 422, "outcomes.0.at"),
        ({"outcomes": [{"decision_id": "d", "outcome": "x", "at": 9e12}]}, 422, "outcomes.0.at"),
        ({"outcomes": [], "watermark": 9e12}, 422, "watermark"),
        ({"outcomes": [], "watermarkk": 1.0}, 422, "watermarkk"),
        ({"watermark": 1.0}, 422, "outcomes"),
        ([], 422, "body"),
        (None, 400, None),
    ],
)
def test_bad_bodies_name_the_field(running: Any, body: Any, status: int, field: str | None) -> None:
    """A wrong body is refused whole, with the field that is wrong; NaN is no number."""
    content = b'{"outcomes": [' if body is None else json.dumps(body).encode()
    answer = running.client.post("/outcomes", content=content)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    nan = running.client.post("/outcomes", content=b'{"outcomes": [], "watermark": NaN}')
    assert nan.status_code in (400, 422)
    assert running.client.get("/status").json()["outcomes"]["new"] == 0


def test_bodies_are_bounded_also_when_chunked(running: Any) -> None:
    """More than 1 MiB is refused with 413, whether its length is announced or not."""

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    assert running.client.post("/outcomes", content=b" " * (1 << 20) + b"{}").status_code == 413
    assert running.client.post("/outcomes", content=endless()).status_code == 413
    assert running.client.post("/outcomes", json={"outcomes": []}).status_code == 200


def test_kill_revokes_orders_and_records(running: Any, draft: RolloutRecord) -> None:
    """Kill: the weight is 0 at once, the grant is gone for good, the order is given once, the ledger says who."""
    rollouts.create(running.db, draft)
    grant_now(running.db)
    assert running.client.get("/status").json()["effective_weight_pct"] == 25.0
    answer = running.client.post("/kill", json={"by": "ann", "reason": "odd complaints"}).json()
    assert answer["effective_weight_pct"] == 0.0
    assert [one["rollout_id"] for one in answer["killed"]] == ["r1"]
    with pytest.raises(grants.GrantRevoked):
        grant_now(running.db)
    running.client.post("/kill", json={"by": "bob", "reason": "again"})
    assert [(order.verb, order.by) for order in orders.open_orders(running.db, "r1")] == [("kill", "ann")]
    bodies = [entry.body for entry in entries(running.db, "r1", "kill")]
    assert [(body["by"], body["revoked_by"]) for body in bodies] == [("ann", "ann"), ("bob", "ann")]
    assert verify(running.db).ok
    assert running.client.post("/kill", json={"by": "ann"}).json()["field"] == "reason"


def test_a_reason_holds_lines_but_nothing_that_moves_a_cursor(running: Any, draft: RolloutRecord) -> None:
    """Several lines are a reason to kill for; escape sequences and NUL, which no terminal and no PostgreSQL wants, are
    not."""
    for reason in ("\x1b]0;all is well\x07", "a\0b", "\x7f"):
        answer = running.client.post("/kill", json={"reason": reason})
        assert (answer.status_code, answer.json()["field"]) == (422, "reason")
    assert running.client.post("/kill", json={"reason": "two\r\n\tlines"}).status_code == 200


def test_a_ledger_that_somebody_changed_is_503(running: Any, draft: RolloutRecord) -> None:
    """Not a 500 without a word, and never an answer that leaves the entry out."""
    rollouts.create(running.db, draft)
    append(running.db, "verdict", {}, service="telemarketing", rollout_id=draft.id, at=1.0)
    with running.db.write() as connection:
        if not running.db.is_sqlite:
            pytest.skip("tampers by SQLite's own means")
        connection.execute(text("DROP TRIGGER ledger_no_update"))
        connection.execute(text("UPDATE ledger SET body = 'torn'"))
    answer = running.client.get("/status")
    assert (answer.status_code, "ledger verify" in answer.json()["error"]) == (503, True)


def test_kill_with_nothing_to_kill(running: Any, draft: RolloutRecord) -> None:
    """Without an active rollout (of the named service) kill kills nothing and says so."""
    rollouts.create(running.db, draft)
    body = {"by": "ann", "reason": "-", "service": "credit"}
    assert running.client.post("/kill", json=body).json() == {"killed": [], "effective_weight_pct": 0.0}
    assert orders.open_orders(running.db, "r1") == ()


def test_status_tells_the_rollout(running: Any, draft: RolloutRecord) -> None:
    """Status shows stage, weights, the last verdict, and how old what it rests on is."""
    record = rollouts.create(running.db, draft)
    rollouts.save(running.db, replace(record, weight_pct=50.0), at=time.time())
    grant_now(running.db, 50.0)
    body = {"verdict": {"decision": "HOLD", "reason": "baking"}}
    append(running.db, "verdict", body, service="telemarketing", rollout_id="r1", at=1234.0)
    running.state.shipped(ShipReport(10, 0.5, 2, 0, 99.0))
    status = running.client.get("/status").json()
    (shown,) = status["rollouts"]
    assert (shown["weight_pct"], shown["effective_weight_pct"], shown["state"]) == (50.0, 50.0, draft.state)
    assert shown["last_verdict"] == {"at": 1234.0, **body}
    assert (status["shipper"]["lag_s"], status["shipper"]["bad_lines"]) == (0.5, 2)
    assert status["processes"] == {}


def test_metrics_are_prometheus_text(running: Any, draft: RolloutRecord) -> None:
    """Metrics name the published weight, the lag and the counters, in the exposition format."""
    rollouts.create(running.db, draft)
    grant_now(running.db, 5.0)
    running.state.shipped(ShipReport(10, 0.5, 2, 1, 99.0))
    answer = running.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    lines = answer.text.splitlines()
    for wanted in (
        "trimtab_weight_effective_percent 5.0",
        'trimtab_weight_intended_percent{rollout="r1",service="telemarketing"} 0.0',
        "trimtab_shipper_lag_seconds 0.5",
        "trimtab_bad_log_lines_total 2.0",
        'trimtab_outcomes_total{result="conflicts"} 0.0',
    ):
        assert wanted in lines, wanted


def test_stale_shipper_is_unhealthy(running: Any) -> None:
    """Health fails when the shipper has not finished a pass for half a minute."""
    running.state.shipped(ShipReport(0, 0.0, 0, 0, None))
    assert running.client.get("/healthz").status_code == 200
    running.state.clock = lambda: time.time() + 31
    answer = running.client.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (503, "stale")


def test_reader_publishes_only_what_is_granted(db: Database, draft: RolloutRecord) -> None:
    """The reader reads at most every 0.2 s, sees expiry at once, and makes 0 of two active rollouts."""
    now, timer = 100.0, 50.0
    reader = GrantReader(db, clock=lambda: now, timer=lambda: timer)
    give: Callable[..., object] = grants.write_grant
    assert reader() == 0.0
    rollouts.create(db, draft)
    give(db, service="telemarketing", rollout_id="r1", weight_pct=25.0, valid_until=110.0, at=100.0)
    assert reader() == 0.0  # read 0 s ago
    timer += 0.2
    assert reader() == 25.0
    now = 110.0
    assert reader() == 0.0  # expired, whatever was read when
    now = 100.0
    grants.revoke_grant(db, service="telemarketing", rollout_id="r1", by="ann", reason="-", at=100.0)
    timer += 0.2
    assert reader() == 0.0
    for name in ("credit", "pricing"):
        rollouts.create(db, replace(draft, id=name, service=name))
    give(db, service="credit", rollout_id="credit", weight_pct=5.0, valid_until=110.0, at=100.0)
    timer += 0.2
    assert reader() == 0.0
    assert effective_weight(read_grant(db, "credit"), now) == 5.0


def test_a_clock_stepped_back_prolongs_no_lease(db: Database, draft: RolloutRecord) -> None:
    """With the clock an hour back, a grant of 10 s that nobody renews still ends after 10 s; a renewed one goes on.
    With the clock an hour ahead it ends at once."""
    now, timer = 100.0, 50.0
    reader = GrantReader(db, clock=lambda: now, timer=lambda: timer)
    rollouts.create(db, draft)
    give: Callable[..., object] = grants.write_grant
    give(db, service="telemarketing", rollout_id="r1", weight_pct=25.0, valid_until=110.0, at=100.0)
    assert reader() == 25.0
    now -= 3600.0
    timer += 9.9
    assert reader() == 25.0
    timer += 0.2
    assert reader() == 0.0
    give(db, service="telemarketing", rollout_id="r1", weight_pct=25.0, valid_until=now + 10, at=now)
    timer += 0.2
    assert reader() == 25.0
    now += 3600.0
    assert reader() == 0.0


class BrokenDatabase(Database):
    """A store that stops answering."""

    def read(self) -> Any:
        raise StoreError("the store does not answer")


def test_broken_store_raises_never_an_old_weight(db: Database, draft: RolloutRecord) -> None:
    """When the store stops answering, the reader raises (and the sender publishes 0) instead of the last weight."""
    rollouts.create(db, draft)
    timer = 50.0
    reader = GrantReader(db, clock=lambda: 100.0, timer=lambda: timer)
    grants.write_grant(
        db, service="telemarketing", rollout_id="r1", weight_pct=25.0, valid_until=1e9, at=100.0
    )
    assert reader() == 25.0
    reader._db = BrokenDatabase(db.engine, db.folder)
    timer += 0.2
    for _ in range(2):
        with pytest.raises(StoreError):
            reader()


def test_token_is_made_once_and_private(tmp_path: Path) -> None:
    """The token file is created 0600, kept, and refused when others can read it or it is empty."""
    file = tmp_path / "home" / "control.token"
    made = token.load_or_create(file)
    assert len(made) >= 40
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.load_or_create(file) == made == token.read(file)
    token.replace(file)
    assert token.read(file) != made
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(TokenError, match="mode 0600"):
        token.load_or_create(file)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(TokenError, match="is empty"):
        token.read(file)

"""What the control service knows: the store, the shipper's last pass, counters; and its status as plain data.

Must never import: sqlalchemy, starlette, flows.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import isfinite

from services.control.log_status import read_log_statuses
from services.control.switch import every_switched_off
from services.control.weight import GrantReader
from services.home import Home
from services.ledger.ledger import latest
from services.store import decisions, rollouts
from services.store.database import Database
from services.store.grants import effective_weight, read_grant
from services.store.outcomes import OutcomeReceipt
from services.telemetry.shipper import ShipReport
from services.traffic.errors import TrafficError
from services.traffic.records import read_running

STALE_SHIPPER_S = 30.0


@dataclass
class Totals:
    """Counters since this process started."""

    shipped: int = 0
    bad_lines: int = 0
    late: int = 0
    outcomes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("new", "duplicates", "conflicts", "unknown", "late"), 0)
    )
    kills: int = 0
    refused: int = 0


class ControlState:
    """Shared by the HTTP service and the shipper thread."""

    def __init__(self, home: Home, db: Database, *, clock: Callable[[], float]) -> None:
        self.home = home
        self.db = db
        self.clock = clock
        self.reader = GrantReader(db, clock=clock)
        self.totals = Totals()
        self._lock = threading.Lock()
        self._last: tuple[float, ShipReport] | None = None
        self._started_at = clock()

    def shipped(self, report: ShipReport) -> None:
        """Take note of a pass of the shipper."""
        with self._lock:
            self._last = (self.clock(), report)
            self.totals.shipped += report.records
            self.totals.bad_lines += report.bad_lines
            self.totals.late += report.late

    def received(self, receipt: OutcomeReceipt) -> None:
        """Take note of outcomes."""
        with self._lock:
            for name, count in asdict(receipt).items():
                self.totals.outcomes[name] += count

    def shipper_age_s(self) -> float:
        """How long ago the shipper finished a pass (or this process started, before the first)."""
        with self._lock:
            return self.clock() - (self._started_at if self._last is None else self._last[0])

    def lag_s(self) -> float | None:
        """The shipper's lag, s; None before its first pass or when it is unknown."""
        with self._lock:
            lag = None if self._last is None else self._last[1].lag_s
        return lag if lag is not None and isfinite(lag) else None

    def effective_weight_pct(self, *, fresh: bool = False) -> float:
        """What is published now. Raises StoreError."""
        if fresh:
            self.reader.forget()
        return self.reader()

    def status(self) -> dict[str, object]:
        """Everything that `GET /status` answers. Raises StoreError."""
        now = self.clock()
        watermark = decisions.watermark(self.db)
        through = decisions.read_mark(self.db, decisions.SHIPPED_THROUGH)
        return {
            "at": now,
            "effective_weight_pct": self.effective_weight_pct(),
            "rollouts": [self._rollout(record, now) for record in rollouts.all_active(self.db)],
            "last_ended": [
                self._ended(record) for record in rollouts.recent(self.db, limit=5) if record.ended_at
            ],
            "shipper": {
                "lag_s": self.lag_s(),
                "last_pass_age_s": self.shipper_age_s(),
                "shipped_through": through,
                "decisions": decisions.count_decisions(self.db),
                "bad_lines": self.totals.bad_lines,
                "late": self.totals.late,
            },
            "outcomes": {
                **self.totals.outcomes,
                "watermark": watermark,
                "watermark_age_s": None if watermark is None else now - watermark,
            },
            "decision_logs": {
                name: None if one is None else asdict(one)
                for name, one in read_log_statuses(self.home).items()
            },
            "unlogged": decisions.unlogged_decisions(self.db),
            "processes": self._processes(),
            "switched_off": {
                service: [asdict(one) for one in off] for service, off in every_switched_off(self.db).items()
            },
        }

    def _rollout(self, record: rollouts.RolloutRecord, now: float) -> dict[str, object]:
        grant = read_grant(self.db, record.service)
        verdict = latest(self.db, record.id, "verdict")
        return {
            "id": record.id,
            "service": record.service,
            "champion": record.champion,
            "candidate": record.candidate,
            "state": record.state,
            "weight_pct": record.weight_pct,
            "effective_weight_pct": effective_weight(grant, now),
            "grant": None if grant is None else asdict(grant),
            "created_at": record.created_at,
            "updated_at": record.updated_at,
            "last_verdict": None if verdict is None else {"at": verdict.at, **verdict.body},
        }

    def _ended(self, record: rollouts.RolloutRecord) -> dict[str, object]:
        return {
            "id": record.id,
            "service": record.service,
            "champion": record.champion,
            "candidate": record.candidate,
            "state": record.state,
            "ended_at": record.ended_at,
        }

    def _processes(self) -> dict[str, object]:
        try:
            return {name: asdict(process) for name, process in read_running(self.home).items()}
        except TrafficError as error:
            return {"error": str(error)}

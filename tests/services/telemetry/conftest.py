"""A rollout under way, with doubles at the ports of the proxy, rows to put into the store, and two releases."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import policies
from policies.gates.evidence import PollEvidence, UtilityBlock
from policies.operating.operating_point import OperatingPoint
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage, StageKind
from policies.utility.utility import UtilitySpec, load_utility
from services.serving.release import Release, write_release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer
from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.outcomes import Outcome, record_outcomes
from services.store.rollouts import RolloutRecord
from services.telemetry.disagreement import Disagreement
from services.telemetry.evidence import gather
from services.traffic.admin import Host
from services.traffic.errors import TrafficError

Row = dict[str, Any]
SETTLED = 1005.0
WITHHELD = -2.0
"""EUR by which the candidate holds back from calling; by that much the two releases differ."""


@pytest.fixture
def record() -> RolloutRecord:
    """An active rollout, begun at 1000 s."""
    return RolloutRecord(
        id="r1",
        service="telemarketing",
        champion="rel-a",
        candidate="rel-b",
        policy_text="",
        utility_text="",
        salt="s1",
        state={},
        gates={},
        cursors={},
        weight_pct=25.0,
        version=1,
        created_at=1000.0,
        updated_at=1000.0,
    )


@pytest.fixture
def utility() -> UtilitySpec:
    """The utility spec that ships with the project: leave 0, call -1 or a share of the balance."""
    file = Path(policies.__file__).parent / "telemarketing" / "utility.yaml"
    return load_utility(file.read_text(), str(file))


def _gate(metric: str, **changes: Any) -> Gate:
    known: dict[str, Any] = {
        "name": metric.replace("_", "-"),
        "metric": metric,
        "compare_to": "bound",
        "min": None,
        "max": 0.05,
        "tolerance": None,
        "ni_margin": None,
        "min_samples": 0,
        "required": True,
        "weight": 1.0,
        "on_fail": "rollback",
        "on_missing": "hold",
        "on_error": "hold",
        "budget_ms": 250.0 if metric == "slow_share" else None,
        "estimate": "value",
        "applies_to": "all",
        "owner": "ops",
        "rationale": "for the test",
    }
    return Gate(**{**known, **changes})


@pytest.fixture
def make_stage() -> Callable[..., Stage]:
    """Builds a stage: name, kind, weight and the metrics of its gates."""

    def make(name: str, kind: StageKind, weight_pct: float | None, *metrics: str) -> Stage:
        gates = tuple(_gate(metric) for metric in metrics)
        return Stage(name, kind, weight_pct, 10.0, 40.0, "rollback", "gates", False, "", gates)

    return make


@pytest.fixture
def policy(make_stage: Callable[..., Stage]) -> RolloutPolicy:
    """A policy whose decisions mature after 6 s."""
    stage = make_stage("canary-25", "canary", 25.0, "utility")
    return RolloutPolicy("telemarketing", 1, "ops", 0.01, 0.05, 6.0, 1.0, 10.0, 200.0, (stage,), "sha256:0")


@dataclass
class ProxyDouble:
    """Implements the port services.telemetry.evidence.Admin: what the proxy would say, settable."""

    weight: float = 25.0
    clusters: dict[str, tuple[Host, ...]] = field(default_factory=dict)
    is_down: bool = False

    def weight_pct(self) -> float:
        self._answer()
        return self.weight

    def endpoints(self) -> dict[str, tuple[Host, ...]]:
        self._answer()
        return self.clusters

    def set_host(
        self, cluster: str, total: int, errors: int = 0, *, port: int = 9001, **changes: Any
    ) -> None:
        state: dict[str, Any] = {"priority": 0, "healthy": True, "ejected": False, **changes}
        host = Host(
            address=f"127.0.0.1:{port}",
            rq_total=total,
            rq_success=max(0, total - errors),
            rq_error=errors,
            rq_timeout=0,
            rq_active=0,
            cx_connect_fail=0,
            **state,
        )
        others = tuple(one for one in self.clusters.get(cluster, ()) if one.address != host.address)
        self.clusters[cluster] = (*others, host)

    def _answer(self) -> None:
        if self.is_down:
            raise TrafficError("Envoy does not answer")


@pytest.fixture
def proxy() -> ProxyDouble:
    """A healthy proxy with a canary and a stable host, weight 25 %."""
    double = ProxyDouble()
    double.set_host("canary", 0)
    double.set_host("shadow", 0)
    double.set_host("stable", 0, port=9000)
    return double


@pytest.fixture
def make_decision() -> Callable[..., DecisionRow]:
    """Builds a decision row; what is not given is plain, and ids are counted."""
    numbers = count(1)

    def make(**changes: Any) -> DecisionRow:
        number = next(numbers)
        row = changes.pop("row", {"balance": 1000, "age": 40})
        known: dict[str, Any] = {
            "decision_id": f"d{number}",
            "request_id": f"q{number}",
            "attempt": 1,
            "at": 1010.0,
            "unit": f"u{number}",
            "assigned": "stable",
            "shadow": False,
            "release": "rel-a",
            "action": "leave",
            "score": 0.1,
            "took_ms": 2.0,
            "expected_utility": "[0,0]",
            "probabilities": "[1,0]",
            "row": json.dumps(row),
        }
        return DecisionRow(**{**known, **changes})

    return make


class Rollout:
    """One rollout under observation: feeds the store, polls, and saves the cursors as a conductor does."""

    def __init__(
        self,
        db: Database,
        proxy: Any,
        record: RolloutRecord,
        policy: RolloutPolicy,
        utility: UtilitySpec,
        stage: Stage,
    ) -> None:
        self.db, self.proxy, self.record, self.policy, self.utility = db, proxy, record, policy, utility
        self.stage = stage
        self.settled_at = SETTLED
        self.disagreement: Disagreement | None = None

    def put(self, *rows: DecisionRow, shipped: float | None = None, watermark: float | None = None) -> None:
        with self.db.write() as connection:
            store.upsert_decisions(connection, rows)
            if shipped is not None:
                store.raise_mark(connection, store.SHIPPED_THROUGH, shipped, at=shipped)
        if watermark is not None:
            store.set_watermark(self.db, watermark, at=watermark)

    def outcome(self, row: DecisionRow, outcome: str, at: float = 1014.0) -> None:
        record_outcomes(self.db, [Outcome(row.decision_id, outcome, at)], received_at=at)

    def poll(self, now: float, *, saved: bool = True) -> PollEvidence:
        evidence, cursors = gather(
            self.db,
            self.proxy,
            record=self.record,
            policy=self.policy,
            utility=self.utility,
            stage=self.stage,
            settled_at=self.settled_at,
            now=now,
            disagreement=self.disagreement,
        )
        if saved:
            self.record = replace(self.record, cursors=cursors)
        return evidence

    def utilities(self, now: float) -> tuple[list[float], list[float]]:
        evidence = self.poll(now)
        assert evidence.missing == {}
        block = evidence.blocks["utility"]
        assert isinstance(block, UtilityBlock)
        return block.canary.tolist(), block.stable.tolist()


@pytest.fixture
def rollout(
    db: Database,
    proxy: Any,
    record: RolloutRecord,
    policy: RolloutPolicy,
    utility: UtilitySpec,
    make_stage: Callable[..., Stage],
) -> Rollout:
    stage = make_stage("canary-25", "canary", 25.0, "utility", "canary_errors", "slow_share")
    return Rollout(db, proxy, record, policy, utility, stage)


@pytest.fixture(scope="session")
def write_pair(
    parts: Any, policy_texts: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Release, Release]]:
    """Writes champion and candidate: one network, the candidate under another shift or with other files."""

    def write(shift: float = WITHHELD, **changed: str) -> tuple[Path, Release, Release]:
        folder = tmp_path_factory.mktemp("pair")
        both = []
        for held_back, texts in (
            (0.0, {}),
            (shift, {f"{name}.yaml": text for name, text in changed.items()}),
        ):
            both.append(
                write_release(
                    folder,
                    service="telemarketing",
                    candidate=parts,
                    operating_point=OperatingPoint((0.0, held_back)),
                    policies={**policy_texts, **texts},
                    provenance={"of": "a test"},
                    created_at=1.0,
                )
            )
        return folder, both[0], both[1]

    return write


@pytest.fixture(scope="session")
def pair(write_pair: Callable[..., tuple[Path, Release, Release]]) -> tuple[Path, Release, Release]:
    return write_pair()


@pytest.fixture(scope="session")
def calls(rows: list[Row]) -> list[Row]:
    """Rows as a caller sends them: the features, and the two audit fields that are required at decision time."""
    kept = [{**row, "balance": abs(row["balance"]) % 3000} for row in rows]
    return [{**row, "age": 18 + at % 80, "marital": "single"} for at, row in enumerate(kept)]


@pytest.fixture(scope="session")
def served(contract: Any) -> Callable[[Release, list[Row]], list[str]]:
    """What serving answers, one request at a time."""

    def serve(release: Release, rows: list[Row]) -> list[str]:
        scorer = Scorer.load(release)
        check = RowCheck(contract.columns, payoff_fields=scorer.utility.fields)
        actions = [scorer.decide(check.to_columns([row])).actions[0] for row in rows]
        return [scorer.utility.actions[action] for action in actions]

    return serve


@pytest.fixture(scope="session")
def answers(
    pair: tuple[Path, Release, Release],
    calls: list[Row],
    served: Callable[[Release, list[Row]], list[str]],
) -> tuple[list[str], list[str]]:
    """Champion's and candidate's answers to the calls."""
    _, champion, candidate = pair
    return served(champion, calls), served(candidate, calls)

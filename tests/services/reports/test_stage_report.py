"""Stage reports, written by the real Evidently into a workspace of their own."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from policies.operating.operating_point import OperatingPoint
from policies.rollout.verdict import Decision, GateResult, GateStatus, ReasonCode, Verdict
from policies.utility.utility import load_utility
from services.alignment.align import align
from services.alignment.report import AlignmentReport
from services.home import Home, Ports
from services.reports.offline_panels import alignment_panels, training_panels
from services.reports.panels import Panel
from services.reports.stage_report import (
    Kind,
    ReportError,
    ReportLink,
    report_link,
    ui_command,
    warm_up,
    write_stage_report,
)
from services.training.candidate import Epoch, TrainedCandidate
from services.training.selection import Comparison, Training

TELEMARKETING = Path(__file__).parents[3] / "policies" / "telemarketing"
SERVICE, RELEASE, AT = "telemarketing", "telemarketing-0123456789ab", 1_790_000_000.0


@pytest.fixture(scope="module", autouse=True)
def evidently_is_warm() -> None:
    warm_up().join()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, Ports(39_000))


def a_verdict(stage: str, decision: Decision = Decision.ADVANCE) -> Verdict:
    def gate(name: str, status: GateStatus, observed: float | None) -> GateResult:
        return GateResult(name, name, status, observed, 0.05, 214, "canary", None, None, f"why of {name}")

    gates = (
        gate("canary_errors", GateStatus.PASS, 0.0),
        gate("utility", GateStatus.INCONCLUSIVE, 0.41),
        gate("slow_share", GateStatus.NO_DATA, None),
        gate("call_rate_gap", GateStatus.ERROR, None),
        gate("call_rate", GateStatus.FAIL, 0.9),
    )
    return Verdict(stage, decision, ReasonCode.MORE_EVIDENCE, "utility needs 180 more units", gates, AT)


def decisions(count: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    score = np.clip(random.beta(1.2, 8, count) + shift, 0, 1)
    action = np.where(score > 0.12, "call", "leave")
    utility = np.where(action == "call", random.normal(0.3, 2.0, count), 0.0)
    utility[random.random(count) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "score": score,
            "action": action,
            "took_ms": random.gamma(6, 0.6, count),
            "utility": utility,
            "group": np.where(random.random(count) < 0.1, "up to 30", "over 30"),
            "at": np.arange(count, dtype=float),
        }
    )


def table(count: int, *, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "call_id": [f"c{i}" for i in range(count)],
            "called_at": pd.date_range("2009-01-01", periods=count, freq="min"),
            "balance": random.normal(1000, 300, count),
            "job": random.choice(["clerk", "student", "retired"], count),
            "loan": random.random(count) < 0.2,
        }
    )


def held_out(count: int) -> pd.DataFrame:
    frame = decisions(count, seed=3)
    random = np.random.default_rng(4)
    return frame.assign(
        acted=frame["action"] == "call", is_positive=random.random(count) < frame["score"].to_numpy()
    )


def an_alignment() -> AlignmentReport:
    """The real telemarketing spec on made-up rows, with a champion."""
    utility = load_utility((TELEMARKETING / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml")
    random = np.random.default_rng(5)
    count = 1_500
    share = random.beta(1.2, 8, count)
    return align(
        probabilities=np.column_stack([1 - share, share]),
        columns={
            "balance": random.gamma(1.0, 1500.0, count),
            "age": random.integers(18, 80, count).astype(float),
        },
        outcomes=(random.random(count) < share).astype(np.int64),
        utility=utility,
        operating_point=OperatingPoint((0.0, 0.0), utility.default_index),
        champion=random.integers(0, 2, count).astype(np.intp),
        seed=1,
        resamples=200,
    )


def a_candidate(loss_name: str, utility: float) -> TrainedCandidate:
    """Only what a report reads of a candidate; the network's parts are never touched."""
    history = tuple(Epoch(epoch, 0.4 / epoch, 0.5 / epoch + 0.01 * epoch) for epoch in range(1, 13))
    parts = dict.fromkeys(("weights", "architecture", "preprocessing", "calibration"))
    return TrainedCandidate(
        loss_name=loss_name,
        outcomes=("no", "yes"),
        validation_utility=utility,
        validation_interval=(utility - 0.1, utility + 0.1),
        validation_rows=1_234,
        calibration_error=0.011,
        best_epoch=7,
        history=history,
        seed=3,
        **parts,  # type: ignore[arg-type]
    )


def write(
    home: Home,
    kind: Kind,
    current: pd.DataFrame | None,
    reference: pd.DataFrame | None = None,
    *,
    stage: str | None = None,
    panels: Sequence[Panel] = (),
) -> ReportLink:
    return write_stage_report(
        home,
        service=SERVICE,
        release=RELEASE,
        stage=stage or kind,
        verdict=a_verdict(stage or kind),
        kind=kind,
        current=current,
        reference=reference,
        at=AT,
        panels=panels,
    )


def snapshot_of(home: Home, link: ReportLink) -> dict[str, object]:
    path = home.reports / str(link.project_id) / "snapshots" / f"{link.run_id}.json"

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert isinstance(content, dict)
    return content


CANDIDATES = (a_candidate("cross_entropy", 0.41), a_candidate("payoff_weighted", 0.43))
TRAINING = training_panels(
    Training(CANDIDATES, CANDIDATES[1], {}, (Comparison("cross_entropy", 0.02, (0.01, 0.03)),)), unit="EUR"
)
ALIGNMENT = alignment_panels(an_alignment())
CASES: tuple[tuple[Kind, object, object, tuple[Panel, ...], tuple[str, ...]], ...] = (
    (
        "contract",
        table(900, seed=1),
        table(700, seed=2),
        (),
        ("balance", "How drift was measured", "informs"),
    ),
    ("contract", table(900, seed=1), None, (), ("balance", "missing")),
    ("training", None, None, TRAINING, ("payoff weighted ✔ kept", "+0.4300", "7 of 12", "kept: epoch 7")),
    (
        "alignment",
        held_out(800),
        None,
        ALIGNMENT,
        (
            "Utility curve",
            "always leave",
            "customer",
            "call_rate_gap_by_age",
            "✔ held",
            "Calibration where it decides",
        ),
    ),
    ("shadow", decisions(600, seed=1), decisions(600, seed=2), (), ("Candidate against stable", "p99")),
    ("canary", decisions(300, seed=1, shift=0.1), decisions(900, seed=2), (), ("Realised utility", "Drift")),
    ("full", decisions(300, seed=1), None, (), ("The release on its own",)),
    ("probation", decisions(300, seed=1), None, (), ("Latency",)),
)


@pytest.mark.parametrize(("kind", "current", "reference", "panels", "shown"), CASES)
def test_every_kind_is_written_with_its_verdict_and_gates(
    home: Home,
    kind: Kind,
    current: pd.DataFrame | None,
    reference: pd.DataFrame | None,
    panels: tuple[Panel, ...],
    shown: tuple[str, ...],
) -> None:
    """Each kind's run is valid JSON in the workspace, tagged, with its gates as tests, and an HTML file of
    its own.
    """
    link = write(home, kind, current, reference, panels=panels)
    run = snapshot_of(home, link)
    assert run["name"] == f"{kind} · ADVANCE · {RELEASE}"
    assert run["tags"] == [f"stage:{kind}", "verdict:ADVANCE", f"release:{RELEASE}", f"service:{SERVICE}"]
    assert run["metadata"] == {
        "reason": "more_evidence",
        "detail": "utility needs 180 more units",
        "kind": kind,
    }
    text = json.dumps(run, ensure_ascii=False)
    for words in (*shown, "✔ pass", "✖ fail", "∅ no data", "why of utility"):
        assert words in text
    results = run["metric_results"]
    assert isinstance(results, dict)
    tests = [test for result in results.values() for test in result["tests"]]
    assert {test["id"]: test["status"] for test in tests} == {
        "canary_errors": "SUCCESS",
        "utility": "WARNING",
        "slow_share": "WARNING",
        "call_rate_gap": "ERROR",
        "call_rate": "FAIL",
    }
    assert link.path.stat().st_size > 1_000_000
    assert "why of utility" in link.path.read_text(encoding="utf-8")


def test_the_link_is_known_before_the_report_and_writing_twice_keeps_one(home: Home) -> None:
    """`report_link` names file, project and run in advance; a repeated write replaces, it does not add."""
    before = report_link(home, service=SERVICE, release=RELEASE, stage="canary-5", at=AT)
    assert not home.reports.exists()
    for _ in range(2):
        frame = decisions(60, seed=1)
        assert write(home, "canary", frame, decisions(90, seed=2), stage="canary-5") == before
    assert len(list((home.reports / str(before.project_id) / "snapshots").iterdir())) == 1
    assert [path.name for path in before.path.parent.iterdir()] == [before.path.name]
    assert before.deep_link == f"http://127.0.0.1:39006/projects/{before.project_id}/reports/{before.run_id}"
    other = report_link(home, service=SERVICE, release=RELEASE, stage="canary-5", at=AT + 1)
    assert (other.project_id, other.run_id == before.run_id) == (before.project_id, False)


def test_one_project_per_service_that_evidently_itself_reads(home: Home) -> None:
    """Evidently's workspace lists one project named after the service, with both runs and a dashboard panel."""
    from evidently.ui.workspace import Workspace

    links = [write(home, "full", decisions(60, seed=1), stage=stage) for stage in ("full", "probation")]
    workspace = Workspace(str(home.reports))
    [project] = workspace.list_projects()
    assert (project.id, project.name) == (links[0].project_id, SERVICE)
    assert {UUID(str(run)) for run in workspace.list_runs(project.id)} == {link.run_id for link in links}
    stored = workspace.get_run(project.id, links[1].run_id)
    assert stored is not None
    assert stored.name == f"probation · ADVANCE · {RELEASE}"
    assert len(project.dashboard.model().panels) == 1


def test_whatever_is_wrong_is_a_report_error_that_names_it(home: Home) -> None:
    """A missing column, an empty frame, no frame, an unknown kind, a verdict that is none: ReportError,
    named.
    """
    good = decisions(50, seed=1)
    with pytest.raises(ReportError, match="column 'took_ms' is missing"):
        write(home, "canary", good.drop(columns="took_ms"), good)
    with pytest.raises(ReportError, match="an empty frame"):
        write(home, "canary", good, good.iloc[:0])
    with pytest.raises(ReportError, match="'current' must hold rows"):
        write(home, "shadow", None)
    with pytest.raises(ReportError, match="column 'job' is missing"):
        write(home, "contract", table(50, seed=1), table(50, seed=2).drop(columns="job"))
    with pytest.raises(ReportError, match="'kind' must be one of contract, training"):
        write(home, "canry", good)  # type: ignore[arg-type]
    with pytest.raises(ReportError, match="not a stored verdict"):
        write_stage_report(
            home,
            service=SERVICE,
            release=RELEASE,
            stage="full",
            verdict={"stage": "full"},
            kind="full",
            current=good,
            reference=None,
            at=AT,
        )


@pytest.mark.parametrize("count", [1, 2, 30])
def test_thin_or_flat_evidence_is_still_reported(home: Home, count: int) -> None:
    """One row, no mature outcome, one action, one score for all: the report is written, as valid JSON."""
    flat = decisions(count, seed=1).assign(score=0.2, action="leave", utility=np.nan, took_ms=1.0)
    link = write(home, "canary", flat, flat)
    assert "Candidate against stable" in json.dumps(snapshot_of(home, link))


def test_a_live_report_is_quick_enough_for_a_rollout(home: Home) -> None:
    """Warm, 5,000 decisions on each side take under 1.5 s of processor time: a rollout writes them while it
    runs.
    """
    candidate, stable = decisions(5_000, seed=1), decisions(5_000, seed=2)
    write(home, "canary", candidate, stable)
    started = time.process_time()
    write(home, "canary", candidate, stable)
    assert time.process_time() - started < 1.5


def test_the_evidently_ui_is_started_over_this_workspace(home: Home) -> None:
    """The command names this interpreter, this workspace, loopback and the port."""
    argv = ui_command(home, 39_006)
    assert argv[:4] == (sys.executable, "-m", "evidently.cli", "ui")
    options = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert options == {"--workspace": str(home.reports), "--host": "127.0.0.1", "--port": "39006"}

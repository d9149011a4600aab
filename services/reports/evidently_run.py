"""Composes and runs the Evidently report of a stage. Importing this module imports Evidently (seconds): do
it lazily.

What a stage shows besides its verdict and panels: contract, data quality and drift; alignment,
classification quality; live stages, the drift of score and action between the candidate's decisions and
stable's. Drift methods, thresholds, sample size and seed are fixed here, because borderline drift moves
with them (facts.md, Evidently). Must never be imported when a module is loaded, only inside the functions
of `stage_report`.
"""

import os
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # before the import: Evidently reads it there

import filelock
import pandas as pd  # type: ignore[import-untyped]
from evidently import BinaryClassification, DataDefinition, Dataset, Report  # type: ignore[import-untyped]
from evidently._pydantic_compat import PrivateAttr  # type: ignore[import-untyped]
from evidently.core.metric_types import (  # type: ignore[import-untyped]
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import ReferenceMetricNotFound, Snapshot  # type: ignore[import-untyped]
from evidently.legacy.tests.base_test import TestStatus  # type: ignore[import-untyped]
from evidently.metrics import LogLoss, RocAuc, ValueDrift  # type: ignore[import-untyped]
from evidently.presets import (  # type: ignore[import-untyped]
    ClassificationQuality,
    DataDriftPreset,
    DataSummaryPreset,
)
from evidently.sdk.models import PanelMetric, ProjectModel  # type: ignore[import-untyped]
from evidently.sdk.panels import line_plot_panel  # type: ignore[import-untyped]
from evidently.ui.workspace import Workspace  # type: ignore[import-untyped]

from policies.rollout.verdict import Decision, GateStatus, Verdict
from services.reports import drawing
from services.reports.gap_panels import WatchedGap
from services.reports.live_panels import LIVE_COLUMNS, live_panels
from services.reports.panels import Panel, Table
from services.reports.stage_report import LIVE_KINDS, Kind, ReportLink

SAMPLE_ROWS, SAMPLE_SEED = 20_000, 20_261_101
LIVE_ROWS = 5_000
MAX_LEVELS = 60
MIN_DRIFT_ROWS = 20
_DRIFT: dict[str, Any] = {"num_method": "wasserstein", "num_threshold": 0.1, "cat_method": "jensenshannon"}
_DRIFT["cat_threshold"] = 0.1
_TEST_STATUS = {
    GateStatus.PASS: TestStatus.SUCCESS,
    GateStatus.FAIL: TestStatus.FAIL,
    GateStatus.INCONCLUSIVE: TestStatus.WARNING,
    GateStatus.NO_DATA: TestStatus.WARNING,
    GateStatus.ERROR: TestStatus.ERROR,
}
_DATA_LINE = re.compile(r"^\s*var (?:additional_graphs_)?metric_[0-9a-f]{32} = .*$", re.MULTILINE)
_DECISION_VALUE = {Decision.ADVANCE: 1.0, Decision.HOLD: 0.0, Decision.ROLLBACK: -1.0}


class StageVerdict(SingleValueMetric):  # type: ignore[misc]
    """The stage's verdict as a metric (1 advance, 0 hold, -1 roll back) whose tests are its gates."""

    stage: str
    _story: tuple[Verdict, str, str] = PrivateAttr()


class StageVerdictCalculation(SingleValueCalculation[StageVerdict]):  # type: ignore[misc]
    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> SingleValue:
        verdict, service, release = self.metric._story
        result = self.result(_DECISION_VALUE[verdict.decision])
        result.widget = drawing.verdict_widgets(verdict, service=service, release=release)
        result.set_tests(
            [
                MetricTestResult(
                    id=gate.gate,
                    name=f"{gate.gate}: {gate.status.value}",
                    description=gate.sentence(),
                    metric_config=self.to_metric_config(),
                    test_config={"required": gate.required},
                    status=_TEST_STATUS[gate.status],
                )
                for gate in verdict.gates
            ]
        )
        return result

    def display_name(self) -> str:
        return f"Verdict of {self.metric.stage}"


class StagePanel(SingleValueMetric):  # type: ignore[misc]
    """One panel as a metric; its value is the panel's headline number."""

    title: str
    _panel: Panel = PrivateAttr()


class StagePanelCalculation(SingleValueCalculation[StagePanel]):  # type: ignore[misc]
    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> SingleValue:
        result = self.result(float(self.metric._panel.value))
        result.widget = drawing.panel_widgets(self.metric._panel)
        return result

    def display_name(self) -> str:
        return str(self.metric.title)


def run(
    verdict: Verdict,
    *,
    service: str,
    release: str,
    kind: Kind,
    current: pd.DataFrame | None,
    reference: pd.DataFrame | None,
    panels: Sequence[Panel],
    at: float,
    unit: str,
    gaps: Sequence[WatchedGap] = (),
) -> Snapshot:
    """The evaluated report. Raises ValueError naming the missing column or the empty frame; Evidently's own
    else.
    """
    if current is None:
        if kind != "training":
            raise ValueError(f"'current' must hold rows for a report of kind {kind!r}: None")
        current = pd.DataFrame({"candidates": [1.0]})
    if current.empty or (reference is not None and reference.empty):
        raise ValueError("'current' and 'reference' must hold rows: an empty frame")
    shown = list(panels)
    metrics: list[Any] = []
    if kind in LIVE_KINDS:
        _require(current, LIVE_COLUMNS)
        if reference is not None:
            _require(reference, LIVE_COLUMNS)
        shown += live_panels(current, reference, unit=unit, gaps=gaps)
        current, reference, metrics = _live(current, reference)
    elif kind == "contract":
        if reference is not None:
            shown.append(_how_drift_is_measured(len(current), len(reference)))
        current, reference, metrics = _contract(current, reference)
    elif kind == "alignment":
        _require(current, ("is_positive", "acted", "score"))
        current, reference, metrics = _alignment(current)
    head = StageVerdict(stage=verdict.stage)
    head._story = (verdict, service, release)
    report = Report([head, *(_panel_metric(panel) for panel in shown), *metrics])
    classification = (
        [
            BinaryClassification(name="rule", target="outcome", prediction_labels="acted", pos_label=1),
            BinaryClassification(name="score", target="outcome", prediction_probas="score", pos_label=1),
        ]
        if kind == "alignment"
        else None
    )
    definition = _definition(current, classification)
    try:
        return report.run(
            Dataset.from_pandas(current, data_definition=definition),
            None if reference is None else Dataset.from_pandas(reference, data_definition=definition),
            timestamp=datetime.fromtimestamp(at, tz=UTC).replace(tzinfo=None),
            name=f"{verdict.stage} · {verdict.decision.value} · {release}",
            tags=[
                f"stage:{verdict.stage}",  # the list of runs shows the first two
                f"verdict:{verdict.decision.value}",
                f"release:{release}",
                f"service:{service}",
            ],
            metadata={"reason": verdict.reason.value, "detail": verdict.detail, "kind": kind},
        )
    except ReferenceMetricNotFound as error:  # a BaseException: it would pass every `except Exception` above
        raise ValueError(f"a metric needs reference rows: {error}") from error


def save(snapshot: Snapshot, *, workspace: Path, service: str, link: ReportLink) -> None:
    """Write the snapshot under its fixed ids, and the HTML beside it; the project is created once, under a
    lock.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    opened = Workspace(str(workspace))
    if opened.get_project(link.project_id) is None:
        with filelock.FileLock(str(workspace / ".projects.lock"), timeout=30):
            if opened.get_project(link.project_id) is None:
                _create_project(opened, link.project_id, service)
    opened.state.write_snapshot(link.project_id, link.run_id, snapshot.to_snapshot_model())
    link.path.parent.mkdir(parents=True, exist_ok=True)
    partial = link.path.with_name(f".{link.path.name}.{os.getpid()}")
    partial.write_text(_without_markup(snapshot.get_html_str(as_iframe=False)), encoding="utf-8")
    partial.replace(link.path)


def _without_markup(page: str) -> str:
    """The page with its data as inert as it is meant to be.

    Evidently writes values and words into a script as JSON and escapes no `<`: a category or a person's reason that
    holds `</script>` would end the script and run what follows. Raises ValueError where the data is not found.
    """
    safe, found = _DATA_LINE.subn(lambda line: line[0].replace("<", "\\u003c"), page)
    if not found:
        raise ValueError("Evidently's page holds its data elsewhere than expected; it was not written")
    return safe


def _create_project(workspace: Workspace, project_id: uuid.UUID, service: str) -> None:
    model = ProjectModel(
        id=project_id,
        name=service,
        description=f"Every stage of every rollout of '{service}': tags name release, stage and verdict.",
    )
    project = workspace.add_project(model)
    verdicts = [PanelMetric(metric="StageVerdict")]
    project.dashboard.add_panel(
        line_plot_panel("Verdicts over time (1 advance, 0 hold, -1 roll back)", verdicts), tab="Rollouts"
    )


def _panel_metric(panel: Panel) -> StagePanel:
    metric = StagePanel(title=panel.title)
    metric._panel = panel
    return metric


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(
            f"column {', '.join(map(repr, missing))} is missing; there are {list(frame.columns)}"
        )


def _sample(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    return frame if len(frame) <= rows else frame.sample(rows, random_state=SAMPLE_SEED).sort_index()


def _contract(
    current: pd.DataFrame, reference: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[Any]]:
    current = _describable(_sample(current, SAMPLE_ROWS))
    metrics: list[Any] = [DataSummaryPreset()]
    if reference is not None:
        reference = _sample(reference, SAMPLE_ROWS)
        _require(reference, list(current.columns))
        reference = reference[list(current.columns)]
        metrics.insert(0, DataDriftPreset(**_DRIFT))
    return current, reference, metrics


def _how_drift_is_measured(current: int, reference: int) -> Table:
    rows = (
        ("rows", f"{current:,}", f"{reference:,}"),
        ("rows compared", f"{min(current, SAMPLE_ROWS):,}", f"{min(reference, SAMPLE_ROWS):,}"),
    )
    return Table(
        title="How drift was measured",
        header=("", "these rows", "reference rows"),
        rows=rows,
        value=float(min(current, SAMPLE_ROWS)),
        note=f"Numbers by {_DRIFT['num_method']} (threshold {_DRIFT['num_threshold']}), categories by "
        f"{_DRIFT['cat_method']} (threshold {_DRIFT['cat_threshold']}), sample seed {SAMPLE_SEED}. "
        "Drift informs whoever reads this; the verdict rests on the gates above alone.",
    )


def _alignment(current: pd.DataFrame) -> tuple[pd.DataFrame, None, list[Any]]:
    frame = _sample(current, SAMPLE_ROWS)
    described = pd.DataFrame(
        {
            "outcome": frame["is_positive"].astype(int).to_numpy(),
            "acted": frame["acted"].astype(int).to_numpy(),
            "score": frame["score"].astype(float).to_numpy(),
        }
    )
    return (
        described,
        None,
        [
            ClassificationQuality(classification_name="rule", conf_matrix=True),
            RocAuc(classification_name="score"),
            LogLoss(classification_name="score"),
        ],
    )


def _live(
    current: pd.DataFrame, reference: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[Any]]:
    columns = ["score", "action"]
    current = _sample(current[columns], LIVE_ROWS).assign(action=lambda f: f["action"].astype(str))
    if reference is None or min(len(current), len(reference)) < MIN_DRIFT_ROWS:
        return current, None, []
    reference = _sample(reference[columns], LIVE_ROWS).assign(action=lambda f: f["action"].astype(str))
    drift = [
        ValueDrift(column="score", method=_DRIFT["num_method"], threshold=_DRIFT["num_threshold"]),
        ValueDrift(column="action", method=_DRIFT["cat_method"], threshold=_DRIFT["cat_threshold"]),
    ]
    return current, reference, drift


def _describable(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop what a distribution says nothing about: identifiers, timestamps, free text."""
    keep = []
    for name in frame.columns:
        column = frame[name]
        is_number = pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column)
        is_time = pd.api.types.is_datetime64_any_dtype(column)
        if is_number or (not is_time and column.nunique(dropna=True) <= MAX_LEVELS):
            keep.append(name)
    if not keep:
        raise ValueError(
            f"no column can be described: {list(frame.columns)} are identifiers, times or free text"
        )
    return frame[keep]


def _definition(frame: pd.DataFrame, classification: list[Any] | None) -> DataDefinition:
    roles = {"outcome", "acted", "score"} if classification else set()
    numeric: list[str] = []
    category: list[str] = []
    for name in frame.columns:
        if name in roles:
            continue
        is_number = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        (numeric if is_number else category).append(name)
    return DataDefinition(
        numerical_columns=numeric, categorical_columns=category, classification=classification
    )

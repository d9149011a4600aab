"""One Evidently report per stage of a rollout, in one local workspace that Evidently's own UI opens.

A project per decision service (its id is fixed by the service's name), a run per stage and time (its id
is fixed by release, stage and time, so a ledger entry can name the report before it is written, and
writing it again replaces it). Each run is tagged service, release, stage and verdict, and starts with the
verdict and its gates.

Rule: a report never stops a rollout. Whatever goes wrong here is a `ReportError`; the caller records it
and goes on. Evidently takes seconds to import: only `evidently_run` imports it, and only inside the
functions here.
"""

from __future__ import annotations

import sys
import threading
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from policies.rollout.verdict import Verdict, VerdictError
from services.home import LOOPBACK, Home
from services.reports.gap_panels import WatchedGap
from services.reports.panels import Panel

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Kind = Literal["contract", "training", "alignment", "shadow", "canary", "full", "probation"]
LIVE_KINDS: tuple[Kind, ...] = ("shadow", "canary", "full", "probation")
_NAMESPACE = uuid.UUID("5c7e1d0a-9a63-5a0e-8f5b-7472696d7461")


class ReportError(RuntimeError):
    """A stage report could not be written: a missing column, an empty frame, a disk that is full."""


@dataclass(frozen=True)
class ReportLink:
    """Where one stage report is: the standalone HTML file, and its place in the workspace and in Evidently's
    UI.
    """

    path: Path
    project_id: uuid.UUID
    run_id: uuid.UUID
    deep_link: str


def report_link(home: Home, *, service: str, release: str, stage: str, at: float) -> ReportLink:
    """Where the report of this stage at this time (epoch s) stands or will stand; touches nothing."""
    project_id = uuid.uuid5(_NAMESPACE, service)
    run_id = uuid.uuid5(project_id, f"{release}/{stage}/{at:.3f}")
    return ReportLink(
        path=home.reports / "html" / service / f"{stage}-{release}-{run_id.hex[:8]}.html",
        project_id=project_id,
        run_id=run_id,
        deep_link=f"http://{LOOPBACK}:{home.ports.reports}/projects/{project_id}/reports/{run_id}",
    )


def write_stage_report(
    home: Home,
    *,
    service: str,
    release: str,
    stage: str,
    verdict: Verdict | Mapping[str, object],
    kind: Kind,
    current: pd.DataFrame | None,
    reference: pd.DataFrame | None,
    at: float,
    panels: Sequence[Panel] = (),
    unit: str = "EUR",
    gaps: Sequence[WatchedGap] = (),
) -> ReportLink:
    """Write the stage's run into the workspace and as a standalone HTML file; safe to repeat.

    `current` (n rows) by kind: contract, the checked rows (drift against `reference` where given; both
    are sampled with a fixed seed); training, None (the panels say it all); alignment, held-out rows with
    `is_positive` and `acted` (booleans) and `score` in [0, 1] of the positive outcome; shadow, canary, full
    and probation, the candidate's decisions and as `reference` the stable release's, with the columns of
    `live_panels`, and those of `gaps`, which are drawn. `panels` come after the verdict.

    Raises ReportError, and nothing else, for whatever goes wrong.
    """
    if kind not in get_args(Kind):
        raise ReportError(f"'kind' must be one of {', '.join(get_args(Kind))}: {kind!r}")
    try:
        judged = verdict if isinstance(verdict, Verdict) else Verdict.from_json(verdict)
    except VerdictError as error:
        raise ReportError(f"report of {stage}: {error}") from error
    link = report_link(home, service=service, release=release, stage=stage, at=at)
    try:
        from services.reports import evidently_run

        with warnings.catch_warnings():
            # Constant columns and thresholds that nobody passes are data here, not mistakes of ours.
            warnings.simplefilter("ignore")
            snapshot = evidently_run.run(
                judged,
                service=service,
                release=release,
                kind=kind,
                current=current,
                reference=reference,
                panels=panels,
                at=at,
                unit=unit,
                gaps=gaps,
            )
        evidently_run.save(snapshot, workspace=home.reports, service=service, link=link)
    except Exception as error:  # the border to a large library: whatever it raises must not stop a rollout
        raise ReportError(f"report of {stage}: {type(error).__name__}: {error}") from error
    return link


def warm_up() -> threading.Thread:
    """Import Evidently in the background, so that the first report of a live rollout does not pay for it."""

    def load() -> None:
        import contextlib

        with contextlib.suppress(ImportError):
            from services.reports import evidently_run  # noqa: F401

    thread = threading.Thread(target=load, name="evidently-warm-up", daemon=True)
    thread.start()
    return thread


def ui_command(home: Home, port: int) -> tuple[str, ...]:
    """Arguments that start Evidently's own UI over the workspace, on loopback; run with DO_NOT_TRACK=1."""
    return (
        sys.executable,
        "-m",
        "evidently.cli",
        "ui",
        "--workspace",
        str(home.reports),
        "--host",
        LOOPBACK,
        "--port",
        str(port),
    )

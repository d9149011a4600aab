"""Ships the decision logs and the proxy's access log into the store, each record once, and says how far it
is.

One transaction per pass holds the records, the checkpoints and the mark `shipped_through`: killed anywhere,
the next pass writes the same rows again, which changes nothing. `shipped_through` promises that every
decision taken before it is in the store; it trails the clock by `write_slack_s`, the longest time that a
decision may take from its timestamp to its line in the log. One shipper per home: the order of `seq` is the
order of commits. A mark that lies ahead of the clock was set before the clock was set back: it is set anew, or it would
vouch for decisions that nobody has taken yet.
Must never import: sqlalchemy (the store's functions do), policies, flows.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from time import monotonic
from typing import TypeVar

from services.store import decisions as store
from services.store.database import Database, StoreError
from services.telemetry.events import log_event
from services.telemetry.log_files import CHUNK_BYTES, Chunk, LogFiles
from services.telemetry.records import BadLine, decision_or_gap, request_row

LOGGER = logging.getLogger(__name__)
WRITE_SLACK_S = 1.0

Row = TypeVar("Row", store.DecisionRow | store.LogGap, store.RequestRow)


@dataclass(frozen=True)
class ShipReport:
    """One pass. `lag_s`: now minus the time up to which everything is shipped, 0 when each file's end was
    reached.

    `late`: decisions older than an earlier pass's `shipped_through`; evidence has passed them by.
    """

    records: int
    lag_s: float
    bad_lines: int
    late: int
    shipped_through: float | None


class Shipper:
    """Tails `<decision_logs>/<release>/*.jsonl*` and the access log (with rotated ones beside it)."""

    def __init__(
        self,
        db: Database,
        decision_logs: Path,
        access_log: Path,
        *,
        clock: Callable[[], float],
        write_slack_s: float = WRITE_SLACK_S,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._db = db
        self._clock = clock
        self._write_slack_s = write_slack_s
        held = store.checkpoints(db)
        self._decisions = LogFiles(decision_logs, "*/*.jsonl*", held, chunk_bytes=chunk_bytes)
        self._requests = LogFiles(access_log.parent, f"{access_log.name}*", held, chunk_bytes=chunk_bytes)

    def ship_once(self) -> ShipReport:
        """One pass over all files. Raises StoreError or the driver's error; then nothing was shipped."""
        started = self._clock()
        decision_chunks = self._decisions.read()
        request_chunks = self._requests.read()
        entries, bad_decisions, reached_decisions = _parse(decision_chunks, decision_or_gap)
        decision_rows = [entry for entry in entries if isinstance(entry, store.DecisionRow)]
        gaps = [entry for entry in entries if isinstance(entry, store.LogGap)]
        request_rows, bad_requests, reached_requests = _parse(request_chunks, request_row)
        is_behind = any(chunk.is_behind for chunk in (*decision_chunks, *request_chunks))
        reached = min(started, reached_decisions, reached_requests)
        through = min(started, reached_decisions) - self._write_slack_s
        before = store.read_mark(self._db, store.SHIPPED_THROUGH)
        is_of_the_future = before is not None and before > started  # the clock was set back
        before = None if is_of_the_future else before
        late = 0 if before is None else sum(1 for row in decision_rows if row.at <= before)
        with self._db.write() as connection:
            written = store.upsert_decisions(connection, decision_rows)
            written += store.upsert_requests(connection, request_rows)
            store.upsert_gaps(connection, gaps)
            checkpoints = [chunk.checkpoint for chunk in (*decision_chunks, *request_chunks)]
            store.save_checkpoints(connection, checkpoints, at=started)
            if is_of_the_future:
                store.drop_mark(connection, store.SHIPPED_THROUGH)
            if isfinite(through):
                store.raise_mark(connection, store.SHIPPED_THROUGH, through, at=started)
        self._decisions.advance(decision_chunks)
        self._requests.advance(request_chunks)
        marks = [mark for mark in (before, through) if mark is not None and isfinite(mark)]
        report = ShipReport(
            records=written,
            lag_s=_lag_s(self._clock(), reached, marks) if is_behind else 0.0,
            bad_lines=bad_decisions + bad_requests,
            late=late,
            shipped_through=max(marks, default=None),
        )
        if gaps:
            unlogged = sum(gap.decisions for gap in gaps)
            log_event(LOGGER, "decisions_never_logged", level=logging.WARNING, count=unlogged)
        if report.late:
            log_event(LOGGER, "late_decisions", level=logging.WARNING, count=report.late)
        return report


def run_shipper(
    shipper: Shipper, stop: threading.Event, *, interval_s: float, on_report: Callable[[ShipReport], None]
) -> None:
    """Ship until told to stop, a pass each `interval_s`, at once again while behind; a failed pass is logged.

    A store that refuses for a while stops `shipped_through`, which the gates see as missing evidence.
    """
    while not stop.is_set():
        began = monotonic()
        try:
            report = shipper.ship_once()
        except (StoreError, OSError) as error:
            log_event(LOGGER, "ship_failed", level=logging.ERROR, error=type(error).__name__, why=error)
            stop.wait(interval_s)
            continue
        on_report(report)
        stop.wait(0.0 if report.lag_s else max(0.0, interval_s - (monotonic() - began)))


def _parse(chunks: Sequence[Chunk], parse: Callable[[bytes], Row]) -> tuple[list[Row], int, float]:
    """The rows, the number of bad lines, and the time up to which the files that have more are complete.

    That time is infinite when every file was read to its end, and minus infinite when a file with more to
    give has brought nothing readable: then nothing can be said.
    """
    rows: list[Row] = []
    bad = 0
    reached = inf
    for chunk in chunks:
        before, bad_before, why = len(rows), bad, ""
        bad += 1 if chunk.overlong else 0
        for line in chunk.lines:
            try:
                if line:
                    rows.append(parse(line))
            except BadLine as error:
                bad, why = bad + 1, str(error)
        if chunk.is_behind:
            reached = min(reached, rows[-1].at if len(rows) > before else -inf)
        _tell(chunk, bad - bad_before, why)
    return rows, bad, reached


def _tell(chunk: Chunk, bad_lines: int, why: str) -> None:
    path = chunk.checkpoint.path
    if chunk.was_reset:
        log_event(LOGGER, "log_file_reset", level=logging.WARNING, path=path)
    if bad_lines:
        log_event(
            LOGGER, "bad_lines", level=logging.WARNING, path=path, count=bad_lines, last=why or "overlong"
        )


def _lag_s(now: float, reached: float, marks: Sequence[float]) -> float:
    known = reached if isfinite(reached) else max(marks, default=None)
    return inf if known is None else max(now - known, 1e-3)

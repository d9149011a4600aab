"""A replay as a process of its own, so that a killed rollout loop leaves the users' traffic as it was.

Must never import prefect, bentoml or torch.
"""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import TYPE_CHECKING

from services.home import Home
from services.rehearsal.replay import (
    ReplaySummary,
    progress_file,
    read_progress,
    replay_command,
    stop_file,
)
from services.rollout.policy_set import PolicySet

if TYPE_CHECKING:
    import polars as pl

STOP_TIMEOUT_S = 90.0
SETTLE_S = 15.0


class ReplayProcess:
    """One replay of `rows`, started by `start` and ended by `finish` or at the end of the `with` block."""

    def __init__(self, home: Home, policies: PolicySet, rows: pl.DataFrame, *, rate_per_s: float) -> None:
        self._home = home
        folder = home.root / "replay"
        folder.mkdir(parents=True, exist_ok=True)
        parquet, contract = folder / "rows.parquet", folder / "contract.yaml"
        rows.write_parquet(parquet)
        contract.write_text(policies.texts["contract.yaml"], encoding="utf-8")
        utility = policies.utility
        observed = [action for action in utility.actions if action != utility.default_action]
        self._argv = replay_command(
            home, rows=parquet, contract=contract, observed_actions=observed, rate_per_s=rate_per_s
        )
        self._log = folder / "replay.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ReplayProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT_S)

    def start(self) -> None:
        """Begin to send; idempotent."""
        if self._process is None:
            progress_file(self._home).unlink(missing_ok=True)
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
                )

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def is_over(self, now: float) -> bool:
        """Whether it has ended, and long enough ago (epoch s) that its last outcomes have matured and were judged."""
        if self._process is None or self._process.poll() is None:
            return False
        seen = read_progress(progress_file(self._home))
        return seen is None or now - seen.at > SETTLE_S

    def line(self) -> str:
        """What was sent and answered so far, in one line."""
        seen = read_progress(progress_file(self._home))
        if seen is None:
            return "traffic: none yet"
        served = ", ".join(f"{release[-6:]} {count:,}" for release, count in seen.by_release.items())
        p99 = "" if seen.p99_ms is None else f", p99 {seen.p99_ms:.0f} ms"
        return (
            f"traffic: {seen.sent:,} of {seen.rows:,} rows sent, failed user requests {seen.failed}{p99}; "
            f"answered by {served or 'nobody yet'}; outcomes {seen.outcomes_posted:,}"
        )

    def finish(self) -> ReplaySummary | None:
        """Send no more rows, let due outcomes be posted, and say what happened; None if it never started."""
        if self._process is None:
            return None
        stop_file(self._home).touch()
        self._process.wait(STOP_TIMEOUT_S)
        return read_progress(progress_file(self._home))

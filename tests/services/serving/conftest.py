"""A small release from made-up weights and rows (tests/services/conftest.py), written, and ready to decide."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from policies.operating.operating_point import OperatingPoint
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.fault import Fault
from services.serving.release import Release, write_release


@pytest.fixture(scope="session")
def write(parts: Any, policy_texts: dict[str, str]) -> Callable[[Path], Release]:
    """Writes the release into a folder of releases."""

    def write_into(folder: Path) -> Release:
        return write_release(
            folder,
            service="telemarketing",
            candidate=parts,
            operating_point=OperatingPoint(shift=(0.0, 0.0)),
            policies=policy_texts,
            provenance={"snapshot_digest": "sha256:00", "code_version": "test", "seed": 2},
            created_at=1_700_000_000.0,
        )

    return write_into


@pytest.fixture(scope="session")
def release(write: Callable[[Path], Release], tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write(tmp_path_factory.mktemp("releases"))


@pytest.fixture
def stamps() -> Stamps:
    """A clock that stands at 1,000 s, a timer that ticks 1 ms a look, ids that count."""
    ids, ticks = count(1), count()
    return Stamps(clock=lambda: 1000.0, timer_ms=lambda: float(next(ticks)), new_id=lambda: f"id-{next(ids)}")


@pytest.fixture
def decision_log(tmp_path: Path, release: Release) -> DecisionLog:
    return DecisionLog(tmp_path / "logs", release.id, pid=7)


@pytest.fixture
def make_decider(release: Release, decision_log: DecisionLog, stamps: Stamps) -> Callable[..., Decider]:
    def make(fault: Fault | None = None) -> Decider:
        decider = Decider(release, log=decision_log, stamps=stamps, fault=fault)
        decider.warm_up()
        return decider

    return make

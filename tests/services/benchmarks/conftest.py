"""Small releases that differ in their operating point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.operating.operating_point import OperatingPoint
from services.serving.release import Release, write_release


@pytest.fixture
def write(parts: Any, policy_texts: dict[str, str], tmp_path: Path) -> Callable[..., Release]:
    def write_it(shift: float, **provenance: object) -> Release:
        return write_release(
            tmp_path / "releases",
            service="telemarketing",
            candidate=parts,
            operating_point=OperatingPoint(shift=(0.0, shift)),
            policies=policy_texts,
            provenance=provenance,
            created_at=1.0,
        )

    return write_it

"""A decision as a release logs it, for the tests of whoever writes, ships, keeps or reads it."""

from typing import Any

from services.serving.decision_log import DecisionRecord, as_line


def made_up_line(name: str, **fields: Any) -> bytes:
    """The log's line of the decision of that id, with these fields instead of the usual ones."""
    usual = DecisionRecord(
        v=1,
        decision_id=name,
        request_id="q",
        attempt=1,
        at=1.0,
        unit=None,
        assigned="none",
        shadow=False,
        release="r-1",
        action="call",
        score=0.5,
        expected_utility=[0.0],
        probabilities=[1.0],
        row={},
        took_ms=1.0,
        gated=None,
    )
    return as_line(DecisionRecord(**{**usual, **fields}))  # type: ignore[typeddict-item]

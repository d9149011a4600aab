"""Faults of a rehearsal are read strictly."""

import pytest

from services.serving.fault import Fault, FaultError, parse_fault


def test_faults_are_read_with_their_amounts() -> None:
    """A kind alone, or with its milliseconds, seconds or KiB."""
    assert parse_fault("refuse") == Fault("refuse")
    assert [parse_fault(text).amount for text in ("slow:400", "slow-start:5", "leak:1024")] == [400, 5, 1024]


@pytest.mark.parametrize("text", ["", "explode", "slow", "slow:0", "slow:60001", "error:5", "leak:-1"])
def test_other_faults_are_refused(text: str) -> None:
    """What is none of them is refused with what there is."""
    with pytest.raises(FaultError, match=r"must be one of error, nan, refuse, hang.*slow:<1 to 60000>"):
        parse_fault(text)

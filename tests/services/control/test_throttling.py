"""Limiting a variant's traffic: on the ledger first, kept in the home, read back from the proxy."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from services.control.throttling import throttle
from services.home import Home, Ports
from services.ledger.ledger import entries
from services.store.database import Database
from services.traffic.throttle import Throttle, read_throttle

WHO = {"service": "telemarketing", "by": "anna", "reason": "slow", "at": 1000.0}


def test_a_limit_is_on_the_ledger_and_in_the_home(db: Database, tmp_path: Path) -> None:
    """What was asked for and what the proxy has (nothing: it is down) are on record; asking again adds nothing."""
    home = Home(tmp_path, Ports(20_000))
    found = throttle(db, home, variant="canary", per_s=20.0, **WHO)  # type: ignore[arg-type]
    assert (found.limits, found.changed, found.in_force) == (Throttle(canary_per_s=20.0), True, None)
    assert not throttle(db, home, variant="canary", per_s=20.0, **WHO).changed  # type: ignore[arg-type]
    throttle(db, home, variant="canary", per_s=None, **WHO)  # type: ignore[arg-type]
    assert read_throttle(home) == Throttle()
    asked = [entry.body for entry in entries(db, kind="throttle")]
    assert [(body["variant"], body["per_s"], body["by"]) for body in asked] == [
        ("canary", 20.0, "anna"),
        ("canary", None, "anna"),
    ]
    assert [entry.kind for entry in entries(db)] == ["throttle", "throttle_effect"] * 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["set", "canary", "20"], "'rate' must be a rate with its unit"),
        (["set", "canary", "0/s"], "'rate' must be > 0: 0/s"),
        (["set", "stable", "20/s"], "'variant' must be canary or users: 'stable'"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(words: list[str], says: str) -> None:
    """A bare number, zero, and a variant that has no limit: exit status 2 and one line that says what must be."""
    done = CliRunner().invoke(app, ["throttle", *words, "--reason", "slow"])
    assert done.exit_code == 2
    assert says in done.output

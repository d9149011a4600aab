"""Actions that are switched off for everyone: who is given what instead, and what an unreadable file changes."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.release import Release, ReleaseError
from services.serving.request_mark import RequestMark
from services.serving.switches import LOOK_EVERY_MS

Row = dict[str, Any]
MARK = RequestMark("request-1", 1, "unit-1", "stable", False)


class Timer:
    """Milliseconds that stand until they are moved."""

    ms = 0.0

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "telemarketing.json"


@pytest.fixture
def start(
    release: Release, decision_log: DecisionLog, timer: Timer, file: Path, stamps: Stamps
) -> Callable[[], Decider]:
    """A serving process that has warmed up."""

    def make() -> Decider:
        own = Stamps(clock=stamps.clock, timer_ms=timer, new_id=stamps.new_id)
        decider = Decider(release, log=decision_log, stamps=own, switches_file=file)
        decider.warm_up()
        return decider

    return make


def switch(file: Path, *off: str, entry: int = 1) -> None:
    file.write_text(json.dumps({"v": 1, "off": list(off), "entry": entry}))


def decide(decider: Decider, rows: list[Row], *, is_explained: bool = False) -> list[dict[str, Any]]:
    return asyncio.run(decider.decide(MARK, rows, is_explained=is_explained))


def acting_row(decider: Decider, rows: list[Row]) -> Row:
    """A row that is called while nothing is off."""
    return next(row for row in rows if decide(decider, [row])[0]["action"] == "call")


def test_an_action_switched_off_is_off_at_the_next_look(
    start: Callable[[], Decider], rows: list[Row], file: Path, timer: Timer, decision_log: DecisionLog
) -> None:
    """Within half a second nobody is called; answer and log name what would have been done; and on again."""
    decider = start()
    row = acting_row(decider, rows)
    assert "gated" not in decide(decider, [row])[0]
    switch(file, "call")
    timer.ms += LOOK_EVERY_MS
    answer = decide(decider, [row], is_explained=True)[0]
    logged = json.loads(decision_log.path.read_text().splitlines()[-1])
    assert answer["action"] == logged["action"] == "leave"
    assert answer["gated"].off == ("call",)
    assert logged["gated"] == {"off": ["call"], "instead_of": "call"}
    assert answer["explanation"]["lead"] is None  # nothing else is left
    switch(file, entry=2)
    timer.ms += LOOK_EVERY_MS
    assert decide(decider, [row])[0]["action"] == "call"


def test_a_row_that_the_switch_does_not_touch_says_so(
    start: Callable[[], Decider], rows: list[Row], file: Path
) -> None:
    """`instead_of` is null where the rule would not have taken the action anyway; what is off is still said."""
    decider = start()
    row = next(row for row in rows if decide(decider, [row])[0]["action"] == "leave")
    switch(file, "call")
    gated = decide(start(), [row])[0]["gated"]
    assert (gated.off, gated.instead_of) == (("call",), None)


def test_what_cannot_be_read_changes_nothing(
    start: Callable[[], Decider],
    rows: list[Row],
    file: Path,
    timer: Timer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A torn or vanished file leaves the last known state in force, and is logged once, not at every request."""
    switch(file, "call")
    decider = start()
    for spoil in (lambda: file.write_text('{"v": 1, "off": ['), file.unlink):
        caplog.clear()
        spoil()
        for _ in range(3):
            timer.ms += LOOK_EVERY_MS
            with caplog.at_level(logging.ERROR, logger="trimtab.serving"):
                assert decide(decider, rows[:1])[0]["gated"].off == ("call",)
        assert [record.getMessage().split()[0] for record in caplog.records] == ["event=switches_unreadable"]


def test_a_release_that_starts_without_knowing_takes_the_default_only(
    start: Callable[[], Decider], rows: list[Row], file: Path, timer: Timer
) -> None:
    """Unreadable from the start: every action but the default is off, until the file can be read."""
    row = acting_row(start(), rows)
    file.write_text("{")
    decider = start()
    assert decide(decider, [row])[0]["action"] == "leave"
    assert decider.show_switches() == {"release": decider.release_id, "off": ["call"], "entry": None}
    switch(file, entry=7)
    timer.ms += LOOK_EVERY_MS
    assert decide(decider, [row])[0]["action"] == "call"
    assert decider.show_switches() == {"release": decider.release_id, "off": [], "entry": 7}


def test_a_release_whose_default_is_off_does_not_start(start: Callable[[], Decider], file: Path) -> None:
    """With its default switched off a release has nothing that it may do; actions of others do not concern it."""
    switch(file, "email")
    assert start().show_switches()["off"] == []
    switch(file, "leave")
    with pytest.raises(ReleaseError, match="default action 'leave' is switched off"):
        start()

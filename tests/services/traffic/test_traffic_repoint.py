"""Promotion repoints stable under load: nobody fails, the old release falls silent, and takes over when needed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_promotion_under_load(plane: Any) -> None:
    """stable a → (b, a): 0 failures, and a receives none within 2 s."""
    switched: list[float] = []

    def promote() -> None:
        switched.append(time.time())
        plane.slots(stable=("b", "a"))

    answers = plane.load(150, 4.0, during=promote)
    last_old_s = max(answer.at for answer in answers if answer.name == "a") - switched[0]
    print(f"promotion: {len(answers)} requests, last to the old release {last_old_s:.2f} s after the write")
    assert {answer.status for answer in answers} == {200}
    assert last_old_s < 2.0
    assert {answer.name for answer in answers if answer.at > switched[0] + 2.0} == {"b"}


def test_old_release_takes_over_and_rollback(plane: Any, wait: Callable[..., Any]) -> None:
    """With (b, a), b killed under load: a answers, 0 failures; then the swap back and dropping b fail nobody."""
    plane.slots(stable=("b", "a"))
    wait(lambda: plane.decide("u1").json()["name"] == "b", what="b serves")
    answers = plane.load(150, 3.0, during=plane.upstreams["b"].kill)
    print(f"killed stable: {sum(answer.status != 200 for answer in answers)} failed of {len(answers)}")
    assert {answer.status for answer in answers} == {200}
    assert answers[0].name == "b"
    assert answers[-1].name == "a"

    def undo() -> None:
        plane.slots(stable=("a", "b"))
        plane.slots(stable=("a",))

    answers = plane.load(150, 2.0, during=undo)
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].name == "a"


def test_canary_becomes_stable(plane: Any) -> None:
    """The order of promotion at 50 %: endpoints first, weight 0 after, canary cleared last; 0 failures."""
    plane.canary("b")
    plane.grant(50.0)
    switched: list[float] = []

    def promote() -> None:
        plane.slots(stable=("b", "a"), canary="b")
        switched.append(time.time())
        time.sleep(1.0)
        plane.grant(0.0)
        plane.slots(stable=("b", "a"))

    answers = plane.load(150, 5.0, during=promote)
    assert {answer.status for answer in answers} == {200}
    late = [answer for answer in answers if answer.at > switched[0] + 2.0]
    assert len(late) > 50
    assert {answer.name for answer in late} == {"b"}


def test_a_bad_promotion_falls_back(plane: Any, wait: Callable[..., Any]) -> None:
    """With (b, a), b answering 500: after five of them it is ejected and a answers."""
    plane.slots(stable=("b", "a"))
    wait(lambda: plane.decide("u1").json()["name"] == "b", what="b serves")
    answers = plane.load(150, 2.0, during=lambda: plane.upstreams["b"].mode("error"))
    failed = [answer for answer in answers if answer.status != 200]
    print(f"stable answering 500: {len(failed)} failed of {len(answers)} before the old release took over")
    assert 5 <= len(failed) <= 15
    assert {answer.name for answer in answers[-50:]} == {"a"}

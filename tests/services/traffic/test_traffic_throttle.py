"""Limits of a variant: what is over the canary's is answered by stable, what is over everyone's must come later."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.traffic.errors import TrafficError
from services.traffic.throttle import Throttle, read_throttle, token_bucket, write_throttle

pytestmark = pytest.mark.e2e


@pytest.fixture
def throttled(plane: Any, wait: Callable[..., Any]) -> Any:
    """`throttled(Throttle(...))` puts limits in force on a plane whose canary b has 50 %; none afterwards."""
    plane.canary("b")
    plane.grant(50.0)

    def put(throttle: Throttle) -> None:
        write_throttle(plane.home, throttle)
        plane.slots(canary="b")
        wait(lambda: plane.admin.limits() == throttle, what=f"{throttle} read back from Envoy")

    yield put
    write_throttle(plane.home, Throttle())


def test_a_throttled_canary_costs_no_user_a_decision(plane: Any, throttled: Any) -> None:
    """At 10 a second of 50 the canary answers 10 to 20 a second, stable all the others, and those are no evidence."""
    throttled(Throttle(canary_per_s=10))
    answers = plane.load(100, 3.0)
    assert [answer.status for answer in answers] == [200] * 300
    by_canary = [answer for answer in answers if answer.name == "b"]
    assert 25 <= len(by_canary) <= 45
    assigned = [answer.headers["x-trimtab-assigned"] for answer in answers if answer.name == "a"]
    assert {answer.headers["x-trimtab-assigned"] for answer in by_canary} == {"canary"}
    assert set(assigned) == {"stable", "none"}
    assert assigned.count("none") > 80
    counted = plane.admin.counters(r"^canary\.http_local_rate_limit\.rate_limited$")
    assert sum(counted.values()) == assigned.count("none")


def test_more_users_than_stable_may_have_come_later(plane: Any, throttled: Any) -> None:
    """At 5 a second of 60 all further requests are answered 429 at once, with `retry-after`, and reach no release;
    asking whether it is ready is not limited."""
    seen = [len(plane.upstreams[name].seen()) for name in "ab"]
    throttled(Throttle(users_per_s=5))
    answers = plane.load(60, 2.0)
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert 10 <= statuses.count(200) <= 16
    assert sum(len(plane.upstreams[name].seen()) for name in "ab") - sum(seen) == statuses.count(200)
    refused = [answer for number in range(10) if (answer := plane.decide(f"v{number}")).status_code == 429]
    assert refused[0].headers["retry-after"] == "1"
    url = f"http://127.0.0.1:{plane.home.ports.users}/readyz"
    assert [httpx.get(url).status_code for _ in range(10)] == [200] * 10


def test_a_client_cannot_throttle_itself_to_stable(plane: Any) -> None:
    """The mark of a throttled request is ours: from a client it is dropped, and the canary answers."""
    plane.canary("b")
    plane.grant(100.0)
    assert plane.decide("u1", x_trimtab_throttled="1").json()["name"] == "b"


def test_limits_survive_the_file_and_are_checked(plane: Any) -> None:
    """Limits are read back as written; 0, a text and an unknown key are refused by name; slow rates get one token."""
    home = plane.home
    try:
        write_throttle(home, Throttle(canary_per_s=0.5))
        assert read_throttle(home) == Throttle(canary_per_s=0.5, users_per_s=None)
        for text, message in (
            ({"canary_per_s": 0}, "'canary_per_s' must be a number > 0: 0"),
            ({"users_per_s": "9"}, "'users_per_s' must be a number > 0: '9'"),
            ({"stable": 1}, "unknown stable"),
        ):
            (home.traffic / "throttle.json").write_text(json.dumps(text))
            with pytest.raises(TrafficError, match=message):
                read_throttle(home)
    finally:
        write_throttle(home, Throttle())
    assert token_bucket(0.5) == {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "2.000s"}
    assert token_bucket(2.5) == {"max_tokens": 3, "tokens_per_fill": 1, "fill_interval": "0.400s"}
    assert token_bucket(30) == {"max_tokens": 30, "tokens_per_fill": 30, "fill_interval": "1s"}

"""A sick canary costs the user nothing, and it shows: at 50 % of 150 requests a second."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("illness", ["error", "hang", "kill"])
def test_no_user_request_fails(plane: Any, illness: str) -> None:
    """Canary answering 500, hanging or killed: 0 failed requests, rq_error counts it, the ejection shows."""
    plane.canary("b")
    plane.grant(50.0)
    before = plane.admin.counters(r"^cluster\.canary_then_stable\.upstream_rq_retry$")
    canary = plane.upstreams["b"]
    answers = plane.load(150, 3.0, during=canary.kill if illness == "kill" else lambda: canary.mode(illness))
    failed = [answer for answer in answers if answer.status != 200]
    slowest_s = max(answer.took_s for answer in answers)
    after = plane.admin.counters(r"^cluster\.canary_then_stable\.upstream_rq_retry$")
    (host,) = plane.admin.endpoints()["canary"]
    print(
        f"{illness}: failed {len(failed)} of {len(answers)}, rescued {sum(after.values()) - sum(before.values())}, "
        f"slowest {slowest_s:.2f} s, host {host}"
    )
    assert failed == []
    assert host.rq_error >= 5
    assert host.rq_done >= host.rq_error
    assert host.ejected
    assert not host.healthy
    assert sum(after.values()) - sum(before.values()) == host.rq_error
    assert slowest_s < 1.5 if illness == "hang" else slowest_s < 1.0
    rescued = [answer for answer in answers if answer.headers.get("x-envoy-attempt-count") == "2"]
    assert {answer.headers["x-trimtab-assigned"] for answer in rescued} == {"canary"}


def test_what_the_canary_refuses_is_asked_of_stable(plane: Any) -> None:
    """A 4xx of the canary alone is a failure of it and no user's; one that stable gives as well is the user's answer
    and excused; neither ejects the canary."""
    plane.canary("b")
    plane.grant(50.0)
    plane.upstreams["b"].mode("refuse")
    alone = plane.load(100, 1.0, prefix="alone")
    assert [answer.status for answer in alone] == [200] * 100
    (host,) = plane.admin.endpoints()["canary"]
    refused = host.rq_error
    assert 25 < refused < 75
    excused = host.rq_excused
    plane.upstreams["a"].mode("refuse")
    both = plane.load(100, 1.0, prefix="both")
    assert [answer.status for answer in both] == [400] * 100
    (host,) = plane.admin.endpoints()["canary"]
    assert host.rq_error - refused == host.rq_excused - excused > 25
    assert host.healthy


def test_a_killed_canary_without_traffic_is_seen(plane: Any, wait: Callable[..., Any]) -> None:
    """At weight 0 a dead canary is unhealthy within 5 s (no_traffic_interval is not the default's 60 s)."""
    plane.canary("b")
    plane.upstreams["b"].kill()
    wait(lambda: not plane.healthy("canary", "b"), timeout_s=5, what="unhealthy")

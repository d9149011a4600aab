"""What a request carries: marks the client cannot forge, one request id, attempts, and the access log."""

import time
from collections.abc import Callable
from typing import Any

import httpx


def users(plane: Any, path: str = "/decide") -> str:
    return f"http://127.0.0.1:{plane.home.ports.users}{path}"


def test_forged_marks_do_not_arrive(plane: Any) -> None:
    """A client's x-trimtab-*, x-envoy-* and x-request-id are dropped; ours and Envoy's stand in their place."""
    plane.canary("b")
    plane.grant(0.0)
    forged = {
        "x-unit-id": "u1",
        "x-trimtab-assigned": "canary",
        "X-Trimtab-Shadow": "1",
        "x-request-id": "mine",
        "x-envoy-max-retries": "9",
        "x-envoy-attempt-count": "7",
        "x-force": "canary",
    }
    answer = httpx.post(users(plane), json={}, headers=forged)
    headers = answer.json()["headers"]
    assert answer.json()["name"] == "a"
    assert headers["x-trimtab-assigned"] == "stable"
    assert headers["x-envoy-attempt-count"] == "1"
    assert {"x-trimtab-shadow", "x-envoy-max-retries", "x-force"}.isdisjoint(headers)
    assert headers["x-request-id"] == answer.headers["x-request-id"] != "mine"


def test_one_id_per_request_and_the_same_on_the_retry(plane: Any) -> None:
    """Attempt 1 at the canary and attempt 2 at stable share id and assignment; two requests never share an id."""
    plane.canary("b")
    plane.grant(100.0)
    plane.upstreams["b"].mode("error")
    answers = [plane.decide(f"u{number}").json()["headers"] for number in range(3)]
    failed = {record["x-request-id"]: record for record in plane.upstreams["b"].seen()}
    assert len({headers["x-request-id"] for headers in answers}) == 3
    for headers in answers:
        first = failed[headers["x-request-id"]]
        assert (first["x-envoy-attempt-count"], headers["x-envoy-attempt-count"]) == ("1", "2")
        assert first["x-trimtab-assigned"] == headers["x-trimtab-assigned"] == "canary"


def test_forced_listener_is_no_evidence(plane: Any) -> None:
    """`x-force` picks the variant on the loopback listener only, assigned "none", and no counter of canary moves."""
    plane.canary("b")
    plane.grant(0.0)
    port = plane.home.ports.forced
    before = plane.admin.endpoints()["canary"][0].rq_total
    for force, name in (("canary", "b"), ("stable", "a"), ("", "a")):
        answer = plane.decide("u1", port=port, x_force=force, x_trimtab_assigned="canary").json()
        assert (answer["name"], answer["headers"]["x-trimtab-assigned"]) == (name, "none")
    assert plane.admin.endpoints()["canary"][0].rq_total == before
    assert plane.admin.endpoints()["forced_canary"][0].rq_total == 1


def test_stable_repeats_no_5xx(plane: Any) -> None:
    """A 500 of stable is the user's answer; it is not asked again. A slow stable is waited for, without a retry."""
    plane.upstreams["a"].mode("error")
    seen = len(plane.upstreams["a"].seen())
    assert plane.decide("u1").status_code == 500
    assert len(plane.upstreams["a"].seen()) == seen + 1
    plane.upstreams["a"].mode("slow")
    assert plane.decide("u1").json()["headers"]["x-envoy-attempt-count"] == "1"


def test_body_limit_and_paths(plane: Any) -> None:
    """1 MiB passes, a byte more is 413, chunked or not; what is not /decide or /readyz is 404."""
    limit = 1 << 20
    unit = {"x-unit-id": "u1"}
    assert httpx.post(users(plane), content=b"x" * limit, headers=unit).json()["bytes"] == limit
    assert httpx.post(users(plane), content=b"x" * (limit + 1), headers=unit).status_code == 413
    assert httpx.post(users(plane), content=iter([b"x" * 600_000] * 2), headers=unit).status_code == 413
    assert httpx.get(users(plane, "/readyz")).status_code == 200
    assert httpx.get(users(plane, "/metrics")).status_code == 404
    assert httpx.get(users(plane, "/decide/../seen")).status_code == 404


def test_a_full_body_survives_the_retry(plane: Any) -> None:
    """A body at the limit reaches stable whole when the canary fails."""
    plane.canary("b")
    plane.grant(100.0)
    plane.upstreams["b"].mode("error")
    answer = httpx.post(users(plane), content=b"x" * (1 << 20), headers={"x-unit-id": "u1"})
    assert (answer.json()["name"], answer.json()["bytes"]) == ("a", 1 << 20)


def test_access_log_has_decisions_only(plane: Any, wait: Callable[..., Any]) -> None:
    """One line per /decide on the user listener, the agreed fields, on disk within a second; no other request."""
    plane.canary("b")
    plane.grant(100.0)
    before = len(plane.access_records())
    httpx.get(users(plane, "/readyz"))
    plane.decide("u1", port=plane.home.ports.forced)
    answer = plane.decide("u-logged")
    began = time.monotonic()
    wait(lambda: len(plane.access_records()) > before, timeout_s=2, what="the record")
    assert time.monotonic() - began < 1.0
    (record,) = plane.access_records()[before:]
    assert set(record) == {
        "request_id",
        "unit",
        "assigned",
        "at",
        "status",
        "duration_ms",
        "attempts",
        "flags",
    }
    assert record["request_id"] == answer.headers["x-request-id"]
    assert (record["unit"], record["assigned"]) == ("u-logged", "canary")
    assert (record["status"], record["attempts"], record["flags"]) == (200, 1, "-")
    assert isinstance(record["duration_ms"], int)
    assert record["at"].endswith("Z")


def test_mirror_reaches_shadow_only(plane: Any, wait: Callable[..., Any]) -> None:
    """Every decision is mirrored, marked and with the user's request id; no answer comes from the shadow."""
    plane.slots(shadow="c")
    wait(lambda: plane.admin.mirror_on() and plane.healthy("shadow", "c"), what="the mirror")
    before = {name: len(plane.upstreams[name].seen()) for name in "ac"}
    answers = plane.load(100, 1.0, prefix="m")
    answers.append(plane.decide(None))
    assert {answer.status for answer in answers[:-1]} == {200}
    assert {answer.name for answer in answers[:-1]} == {"a"}
    wait(lambda: len(plane.upstreams["c"].seen()) - before["c"] == 101, what="101 mirrored requests")
    shadow = plane.upstreams["c"].seen()[before["c"] :]
    served = plane.upstreams["a"].seen()[before["a"] :]
    assert {record.get("x-trimtab-shadow") for record in shadow} == {"1"}
    assert {record.get("x-trimtab-shadow") for record in served} == {None}
    assert sorted(r["x-request-id"] for r in shadow) == sorted(r["x-request-id"] for r in served)
    plane.upstreams["c"].mode("hang")
    assert max(answer.took_s for answer in plane.load(50, 1.0)) < 1.0
    plane.slots()
    wait(lambda: not plane.admin.mirror_on(), what="the mirror off")


def test_who_meets_a_restarting_stable_waits_for_it(plane: Any) -> None:
    """Killed and back after 3 s: users wait; only what it had in hand may be lost. Last here, for it stays ejected."""
    stable = plane.upstreams["a"]

    def restart() -> None:
        stable.kill()
        time.sleep(3.0)
        stable.start()

    answers = plane.load(40, 6.0, during=restart)
    failed = [answer for answer in answers if answer.status != 200]
    waited_s = max(answer.took_s for answer in answers)
    print(f"failed {len(failed)} of {len(answers)}, waited {waited_s:.1f} s at most")
    assert len(failed) <= 1
    assert 2.0 < waited_s < 6.0

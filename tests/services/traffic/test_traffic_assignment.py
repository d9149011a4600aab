"""Who gets the canary: the formula of facts.md, the vector file, and what Envoy really does, agree."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

VECTORS = json.loads((Path(__file__).parent / "assignment_vectors.json").read_text(encoding="utf-8"))


def assigned(plane: Any, client: httpx.Client, unit: str) -> str:
    url = f"http://127.0.0.1:{plane.home.ports.users}/decide"
    answer = client.post(url, json={}, headers={"x-unit-id": unit.encode()})
    assert answer.status_code == 200
    return str(answer.json()["headers"]["x-trimtab-assigned"])


@pytest.mark.parametrize(
    ("text", "digest"),
    [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)],
)
def test_oracle_is_xxh64(oracle: ModuleType, text: str, digest: int) -> None:
    """The oracle gives the published XXH64 digests."""
    assert oracle.xxh64(text.encode()) == digest


def test_vectors_are_the_formula(oracle: ModuleType) -> None:
    """The vector file holds `xxh64(unit:salt) % 10000`, and canary from 10000 - weight on."""
    assert len(VECTORS["units"]) >= 100
    for entry in VECTORS["units"]:
        slot = oracle.xxh64(f"{entry['unit']}:{VECTORS['salt']}".encode()) % 10_000
        assert slot == entry["slot"], entry["unit"]
        for weight_pct in VECTORS["weights_pct"]:
            wanted = slot >= 10_000 - round(weight_pct * 100)
            assert oracle.is_canary(entry["unit"], VECTORS["salt"], weight_pct) is wanted


def test_envoy_follows_the_vectors_and_is_monotone(plane: Any) -> None:
    """At each weight Envoy assigns each unit as the file says; who is in at 5 % is in at 25 % and 50 %."""
    plane.canary("b", salt=VECTORS["salt"])
    before: set[str] = set()
    with httpx.Client() as client:
        for weight_pct in VECTORS["weights_pct"]:
            plane.grant(weight_pct)
            units = [entry["unit"] for entry in VECTORS["units"]]
            canary = {unit for unit in units if assigned(plane, client, unit) == "canary"}
            limit = 10_000 - round(weight_pct * 100)
            assert canary == {entry["unit"] for entry in VECTORS["units"] if entry["slot"] >= limit}
            assert before <= canary
            before = canary
    assert plane.admin.rejected_files() == ()


def test_weight_zero_is_a_hard_exclude(plane: Any) -> None:
    """At weight 0 the canary receives nothing, whatever the unit."""
    plane.canary("b")
    plane.grant(0.0)
    seen = len(plane.upstreams["b"].seen())
    answers = plane.load(200, 1.5)
    assert {answer.name for answer in answers} == {"a"}
    assert len(plane.upstreams["b"].seen()) == seen


def test_without_a_unit_stable_and_no_evidence(plane: Any) -> None:
    """Without a unit id, or with an empty one: stable with assigned "none", at any weight."""
    plane.canary("b")
    plane.grant(100.0)
    assert plane.decide("u1").json()["name"] == "b"
    for unit in (None, ""):
        answer = plane.decide(unit).json()
        assert (answer["name"], answer["headers"]["x-trimtab-assigned"]) == ("a", "none")


def test_a_new_salt_is_a_new_draw(plane: Any, oracle: ModuleType, wait: Callable[..., Any]) -> None:
    """With the next rollout's salt another set of units is on the canary, as the formula says."""
    plane.canary("b", salt="first")
    plane.grant(50.0)
    units = [f"n{number}" for number in range(80)]
    with httpx.Client() as client:
        first = {unit for unit in units if assigned(plane, client, unit) == "canary"}
        plane.slots(canary="b", salt="second")
        wait(lambda: plane.admin.route_salt() == "second", what="the new salt")
        second = {unit for unit in units if assigned(plane, client, unit) == "canary"}
    assert first == {unit for unit in units if oracle.is_canary(unit, "first", 50.0)}
    assert second == {unit for unit in units if oracle.is_canary(unit, "second", 50.0)}
    assert first != second

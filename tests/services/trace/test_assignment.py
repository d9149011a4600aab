"""Why a unit is the canary's: the formula that Envoy follows, and the weight that was in force."""

import json
from pathlib import Path

import pytest

from services.trace.assignment import WeightChange, explain_assignment, first_canary_slot, slot_of, xxh64

TRAFFIC = Path(__file__).parents[1] / "traffic"
VECTORS = json.loads((TRAFFIC / "assignment_vectors.json").read_text(encoding="utf-8"))
SALT = VECTORS["salt"]
WEIGHTS = (WeightChange(100.0, 5.0), WeightChange(200.0, 50.0), WeightChange(300.0, 0.0))


@pytest.mark.parametrize(
    ("text", "digest"),
    [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)],
)
def test_the_hash_is_xxh64(text: str, digest: int) -> None:
    """The published XXH64 digests."""
    assert xxh64(text.encode()) == digest


def test_slots_are_envoys() -> None:
    """The vector file, which Envoy itself is held to, gives every unit's slot and variant at every weight."""
    for entry in VECTORS["units"]:
        unit = entry["unit"].encode().decode("latin-1")  # as serving reads a header
        assert slot_of(unit, SALT) == entry["slot"]
        for weight_pct in VECTORS["weights_pct"]:
            variant = "canary" if entry["slot"] >= 10_000 - round(weight_pct * 100) else "stable"
            weights = (WeightChange(1.0, weight_pct),)
            found = explain_assignment(variant, unit=unit, salt=SALT, at=50.0, weights=weights)
            assert (found.slot, found.agrees) == (entry["slot"], True)


def test_the_weight_in_force_is_told() -> None:
    """Slot 8,433 is stable's at 5 % and the canary's at 50 %, and the words say from which slot on."""
    unit = "c00004"
    early = explain_assignment("stable", unit=unit, salt=SALT, at=150.0, weights=WEIGHTS)
    late = explain_assignment("canary", unit=unit, salt=SALT, at=250.0, weights=WEIGHTS)
    assert (early.slot, early.weight_pct, early.first_canary_slot) == (8433, 5.0, 9500)
    assert (late.slot, late.weight_pct, late.first_canary_slot) == (8433, 50.0, 5000)
    assert late.why == "slot 8,433 of 10,000; at 50 % the canary has those from 5,000 on: canary"
    assert first_canary_slot(12.34) == 8766


@pytest.mark.parametrize("at", [198.0, 201.0])
def test_around_a_change_either_weight_explains(at: float) -> None:
    """A weight is published just before it is on record: both variants of the unit are explained within 3 s of it."""
    for variant, weight_pct in (("stable", 5.0), ("canary", 50.0)):
        found = explain_assignment(variant, unit="c00004", salt=SALT, at=at, weights=WEIGHTS)
        assert (found.agrees, found.weight_pct) == (True, weight_pct)


def test_what_the_weight_does_not_explain_is_said() -> None:
    """On record as stable although the slot was the canary's: the grant had lapsed, and nothing is glossed over."""
    found = explain_assignment("stable", unit="c00004", salt=SALT, at=250.0, weights=WEIGHTS)
    assert found.agrees is False
    assert "the grant had lapsed or was revoked just then" in found.why


def test_without_unit_or_rollout_there_is_nothing_to_draw() -> None:
    """No unit id, or no rollout: stable, and the words say why."""
    assert "no unit id" in explain_assignment("none", unit=None, salt=SALT, at=1.0, weights=WEIGHTS).why
    found = explain_assignment("stable", unit="c1", salt=None, at=1.0, weights=())
    assert (found.agrees, found.slot) == (True, None)
    assert "no rollout was under way" in found.why

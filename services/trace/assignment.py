"""Why a unit was given to the canary or to stable: its slot, and the weight that was in force.

slot = xxh64(unit + ":" + salt, seed 0) % 10,000; the canary has the slots from 10,000 - 100 x weight on. That is what
Envoy does (facts: 0 mismatches; tests/services/traffic/assignment_vectors.json).
Source: the xxHash specification, XXH64 (doc/xxhash_spec.md of Cyan4973/xxHash). Must never import: anything that acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLOTS = 10_000
PUBLISHED_WITHIN_S = 3.0
"""A weight is published within a second and recorded after it is read back: so long either may have been in force."""

_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class WeightChange:
    """The canary's weight, read back at an instant (epoch s)."""

    at: float
    weight_pct: float


@dataclass(frozen=True)
class Assignment:
    """Which variant a request was given, and why. first_canary_slot: from there on the slots are the canary's.

    agrees: the formula gives the variant on record; None where there is nothing to compute.
    """

    variant: str
    why: str
    salt: str | None = None
    slot: int | None = None
    weight_pct: float | None = None
    first_canary_slot: int | None = None
    agrees: bool | None = None


def slot_of(unit: str, salt: str) -> int:
    """The unit's slot, 0 to 9,999. unit: as the decision log holds it, a character for each byte of the header."""
    return xxh64(f"{unit}:{salt}".encode("latin-1")) % SLOTS


def first_canary_slot(weight_pct: float) -> int:
    """The first slot of the canary at this weight."""
    return SLOTS - round(weight_pct * 100)


def explain_assignment(
    variant: str, *, unit: str | None, salt: str | None, at: float, weights: Sequence[WeightChange]
) -> Assignment:
    """Why this unit was given this variant at `at` (epoch s). salt and weights are those of the rollout then under way,
    None and empty where there was none."""
    if unit is None or variant == "none":
        why = "no unit id came with the request: stable answers, and it is no evidence"
        return Assignment(variant, why)
    if salt is None:
        return Assignment(
            variant, "no rollout was under way: all units are stable's", agrees=variant == "stable"
        )
    slot = slot_of(unit, salt)
    possible = _weights_at(weights, at)
    fitting = [
        pct for pct in possible if ("canary" if slot >= first_canary_slot(pct) else "stable") == variant
    ]
    weight_pct = (fitting or possible)[0]
    first = first_canary_slot(weight_pct)
    return Assignment(
        variant,
        _words(slot, weight_pct, variant, is_explained=bool(fitting)),
        salt,
        slot,
        weight_pct,
        first,
        bool(fitting),
    )


def _words(slot: int, weight_pct: float, variant: str, *, is_explained: bool) -> str:
    if weight_pct == 0:
        has = "the canary has no slot"
    else:
        has = f"the canary has those from {first_canary_slot(weight_pct):,} on"
    found = f"slot {slot:,} of {SLOTS:,}; at {weight_pct:g} % {has}: {variant}"
    if is_explained:
        return found
    return f"{found} is on record, which that weight does not give: the grant had lapsed or was revoked just then"


def _weights_at(weights: Sequence[WeightChange], at: float) -> list[float]:
    """The weights that may have been in force, the one on record first; 0 before the first."""
    before = [change for change in weights if change.at <= at]
    found = [before[-1].weight_pct if before else 0.0]
    if before and at - before[-1].at < PUBLISHED_WITHIN_S:
        found.append(before[-2].weight_pct if len(before) > 1 else 0.0)
    found += [change.weight_pct for change in weights if at < change.at <= at + PUBLISHED_WITHIN_S]
    return found


def xxh64(data: bytes, seed: int = 0) -> int:
    """The 64-bit hash of `data`."""
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed & _MASK, (seed - _P1) & _MASK]
        while size - at >= 32:
            for index in range(4):
                lanes[index] = _round(lanes[index], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        value = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + size) & _MASK
    while size - at >= 8:
        value ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        value = (_rotate(value, 27) * _P1 + _P4) & _MASK
        at += 8
    if size - at >= 4:
        value ^= int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK
        value = (_rotate(value, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        value = _rotate(value ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    value = (value ^ (value >> 33)) * _P2 & _MASK
    value = (value ^ (value >> 29)) * _P3 & _MASK
    return value ^ (value >> 32)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotate((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK

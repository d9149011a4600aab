"""The blocks of evidence that a poll can bring for a metric: counts, payoffs, pairs, groups, assigned units.

Each holds both arms where the metric has two, each unit once, and refuses what cannot be when it is made.
Source: gates.md semantics 7 to 9 and 11. Must never import: anything that reads a clock, a file or a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class EvidenceError(ValueError):
    """Evidence that cannot be: negative counts, more events than trials, arrays of the wrong shape, a foreign form."""


@dataclass(frozen=True)
class CountBlock:
    """Events among trials of one poll. Where a gate compares with a bound, only the canary half counts."""

    canary_events: int
    canary_n: int
    stable_events: int = 0
    stable_n: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        _check_counts("canary", self.canary_events, self.canary_n)
        _check_counts("stable", self.stable_events, self.stable_n)


@dataclass(frozen=True, eq=False)
class UtilityBlock:
    """Payoffs of matured units, new since the last poll, in time order: canary (n,) and stable (m,) float.

    Where a gate compares on disagreement only, every unit on which both releases take the same action has payoff 0
    here, and `plain` holds the same units' full payoffs. Equal actions have equal expected payoffs in both arms, so
    the difference of the means, and the margin per unit, are what they were; only the noise is gone.
    """

    canary: FloatArray
    stable: FloatArray
    plain: UtilityBlock | None = None

    def __post_init__(self) -> None:
        """Refuse arrays of the wrong shape; values are judged by the gate, which knows their range."""
        for name in ("canary", "stable"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.ndim != 1:
                raise EvidenceError(f"'{name}' payoffs must have shape (n,): {array.shape}")
            object.__setattr__(self, name, array)
        if self.plain is not None:
            sizes, plain = _sizes(self), _sizes(self.plain)
            if self.plain.plain is not None or plain != sizes:
                raise EvidenceError(f"'plain' must hold the same {sizes} units' full payoffs: {plain}")


@dataclass(frozen=True, eq=False)
class RatioBlock:
    """(numerator, denominator) of each matured unit, in time order: canary (n, 2) and stable (m, 2) float."""

    canary: FloatArray
    stable: FloatArray

    def __post_init__(self) -> None:
        """Refuse arrays of the wrong shape; values are judged by the gate."""
        for name in ("canary", "stable"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.size == 0:
                array = array.reshape(0, 2)
            if array.ndim != 2 or array.shape[1] != 2:
                raise EvidenceError(f"'{name}' pairs must have shape (n, 2): {array.shape}")
            object.__setattr__(self, name, array)


@dataclass(frozen=True)
class GapBlock:
    """Action counts of two groups among the candidate's decisions of one poll."""

    group_a_events: int
    group_a_n: int
    group_b_events: int
    group_b_n: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        _check_counts("group_a", self.group_a_events, self.group_a_n)
        _check_counts("group_b", self.group_b_events, self.group_b_n)


@dataclass(frozen=True)
class GapArmsBlock:
    """The two groups' action counts in both arms; a gate that compares with a bound reads the canary's."""

    canary: GapBlock
    stable: GapBlock


@dataclass(frozen=True)
class AssignmentBlock:
    """Units assigned to each variant in one poll, at the weight in force (per cent) during all of it."""

    canary_units: int
    stable_units: int
    weight_pct: float

    def __post_init__(self) -> None:
        """Refuse counts and weights that cannot be."""
        if min(self.canary_units, self.stable_units) < 0:
            raise EvidenceError(f"assigned units must be ≥ 0: {self.canary_units}, {self.stable_units}")
        if not 0 <= self.weight_pct <= 100:
            raise EvidenceError(f"'weight_pct' must be in [0, 100]: {self.weight_pct}")


Block = CountBlock | UtilityBlock | RatioBlock | GapBlock | GapArmsBlock | AssignmentBlock


def _check_counts(name: str, events: int, n: int) -> None:
    if not 0 <= events <= n:
        raise EvidenceError(f"'{name}_events' must be in [0, {name}_n]: {events} of {n}")


def _sizes(block: UtilityBlock) -> tuple[int, int]:
    return len(block.canary), len(block.stable)


def block_to_json(block: Block) -> dict[str, object]:
    """JSON-safe and exact; payoffs that are not finite stand as the texts "nan", "inf" and "-inf"."""
    if isinstance(block, UtilityBlock):
        arms: dict[str, object] = {"canary": _numbers(block.canary), "stable": _numbers(block.stable)}
        return {
            "kind": "utility",
            **arms,
            "plain": None if block.plain is None else block_to_json(block.plain),
        }
    if isinstance(block, RatioBlock):
        pairs = {
            name: [_numbers(column) for column in arm.T]
            for name, arm in (("canary", block.canary), ("stable", block.stable))
        }
        return {"kind": "ratio", **pairs}
    if isinstance(block, GapArmsBlock):
        return {
            "kind": "gap_arms",
            "canary": _plain_counts(block.canary),
            "stable": _plain_counts(block.stable),
        }
    return {"kind": _KINDS[type(block)], **_plain_counts(block)}


def block_from_json(obj: Mapping[str, object]) -> Block:
    """Read back what `block_to_json` wrote. Raises KeyError, TypeError or ValueError (EvidenceError is one)."""
    rest = {name: value for name, value in obj.items() if name != "kind"}
    read = _READ.get(str(obj["kind"]))
    if read is None:
        raise EvidenceError(f"'kind' must be one of {', '.join(_READ)}: {obj['kind']!r}")
    return read(rest)


def _read_utility(obj: Mapping[str, object]) -> UtilityBlock:
    plain = obj["plain"]
    return UtilityBlock(
        _array(obj["canary"]),
        _array(obj["stable"]),
        None if plain is None else _read_utility(stored_mapping(plain)),
    )


def _read_ratio(obj: Mapping[str, object]) -> RatioBlock:
    arms = [
        np.stack([_array(column) for column in stored_list(obj[name])], axis=1)
        for name in ("canary", "stable")
    ]
    return RatioBlock(*arms)


def _read_gap(obj: Mapping[str, object]) -> GapBlock:
    return GapBlock(**_counts(obj))


def _read_gap_arms(obj: Mapping[str, object]) -> GapArmsBlock:
    return GapArmsBlock(_read_gap(stored_mapping(obj["canary"])), _read_gap(stored_mapping(obj["stable"])))


def _read_counts(obj: Mapping[str, object]) -> CountBlock:
    return CountBlock(**_counts(obj))


def _read_assignment(obj: Mapping[str, object]) -> AssignmentBlock:
    units = _counts({name: value for name, value in obj.items() if name != "weight_pct"})
    return AssignmentBlock(**units, weight_pct=float(str(obj["weight_pct"])))


_KINDS: Mapping[type, str] = {CountBlock: "counts", GapBlock: "gap", AssignmentBlock: "assignment"}
_READ: Mapping[str, Callable[[Mapping[str, object]], Block]] = {
    "counts": _read_counts,
    "utility": _read_utility,
    "ratio": _read_ratio,
    "gap": _read_gap,
    "gap_arms": _read_gap_arms,
    "assignment": _read_assignment,
}


def _plain_counts(block: CountBlock | GapBlock | AssignmentBlock) -> dict[str, object]:
    """Counts may come as numpy's integers, which JSON does not know."""
    return {name: float(value) if name == "weight_pct" else int(value) for name, value in vars(block).items()}


def _numbers(values: FloatArray) -> list[float | str]:
    """repr gives "nan", "inf" and "-inf", which `float` reads back."""
    return [value if math.isfinite(value) else repr(value) for value in values.tolist()]


def _array(obj: object) -> FloatArray:
    return np.array([float(str(value)) for value in stored_list(obj)], dtype=np.float64)


def _counts(obj: Mapping[str, object]) -> dict[str, int]:
    return {name: int(str(value)) for name, value in obj.items()}


def stored_mapping(obj: object) -> Mapping[str, object]:
    """The mapping that a stored form must have here. Raises TypeError."""
    if not isinstance(obj, Mapping):
        raise TypeError(f"must be a mapping: {obj!r}")
    return obj


def stored_list(obj: object) -> list[object]:
    """The list that a stored form must have here. Raises TypeError."""
    if not isinstance(obj, list):
        raise TypeError(f"must be a list: {obj!r}")
    return obj


def stored_counts(obj: Mapping[str, object], events: str, trials: str) -> tuple[int, int]:
    """Events and trials of a stored form. Raises KeyError, or ValueError unless 0 <= events <= trials."""
    found, n = int(str(obj[events])), int(str(obj[trials]))
    if not 0 <= found <= n:
        raise ValueError(f"'{events}' must be in [0, {trials}]: {found} of {n}")
    return found, n


def stored_number(obj: Mapping[str, object], name: str, *, at_least: float = -math.inf) -> float:
    """A finite number of a stored form. Raises KeyError, or ValueError where it is none or too small."""
    value = float(str(obj[name]))
    if not (math.isfinite(value) and value >= at_least):
        bound = "" if at_least == -math.inf else f" and >= {at_least:g}"
        raise ValueError(f"'{name}' must be finite{bound}: {value}")
    return value


def stored_count(obj: Mapping[str, object], name: str) -> int:
    """A count of a stored form. Raises KeyError, or ValueError where it is none."""
    value = int(str(obj[name]))
    if value < 0:
        raise ValueError(f"'{name}' must be >= 0: {value}")
    return value

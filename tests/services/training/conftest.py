"""A small job with a known answer: a number and a category decide the outcome, a heavy tail the payoff."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.utility.utility import UtilitySpec, load_utility
from services.data.contract import Column

UTILITY = """
service: toy
version: 1
owner: Test
reviewBy: 2027-06-30
unit: EUR
actions: [leave, call]
outcomes: [no_sale, sale]
defaultAction: leave
outcomeKnownAfter: [call]
range: {low: -1, high: 9}
stakeholders:
  - name: shop
    weight: 1
    why: A call costs 1 EUR, a sale brings a share of the size.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: "clip(size, 0, 10) - 1"}
  - name: customer
    weight: 0
    why: Minds an unwanted call.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: 0}
domains:
  - {name: compliance, owner: Test}
constraints:
  - name: gap_by_age
    kind: action_rate_gap
    domain: compliance
    action: call
    groups: {field: age, upTo: 30}
    atMost: 0.5
    rationale: Test.
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""


@dataclass(frozen=True)
class ToyContract:
    """What training reads of a contract, and no more."""

    columns: tuple[Column, ...]
    label: str
    label_outcomes: Mapping[str, str]

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role == "feature")


def make_columns(rows: int, *, seed: int) -> dict[str, NDArray[Any]]:
    """P(sale) = sigmoid(warmth + 1.5 if region is north − 1); size and age say nothing about the sale."""
    draw = np.random.default_rng(seed)
    warmth = draw.normal(size=rows)
    region = draw.choice(["north", "south", "west"], size=rows).astype(object)
    chance = 1 / (1 + np.exp(-(warmth + 1.5 * (region == "north") - 1)))
    return {
        "warmth": warmth,
        "size": np.exp(draw.normal(size=rows) + 0.5),
        "region": region,
        "age": draw.integers(18, 80, size=rows),
        "chance": chance,
        "sold": np.where(draw.random(rows) < chance, "y", "n").astype(object),
    }


def make_contract() -> ToyContract:
    """Features warmth, size, region; age is for the audit only."""
    kept = (
        Column("warmth", "number", True, "feature"),
        Column("size", "number", True, "feature"),
        Column("region", "category", True, "feature"),
        Column("age", "integer", True, "audit", sensitive=True, allowed_uses=("audit",)),
        Column("sold", "category", False, "label"),
    )
    return ToyContract(kept, "sold", {"n": "no_sale", "y": "sale"})


@pytest.fixture(scope="session")
def toy_utility() -> UtilitySpec:
    return load_utility(UTILITY, "toy.yaml")


@pytest.fixture(scope="session")
def toy_utility_text() -> str:
    return UTILITY


@pytest.fixture(scope="session")
def toy_contract() -> ToyContract:
    return make_contract()


@pytest.fixture(scope="session")
def toy_columns() -> Callable[..., dict[str, NDArray[Any]]]:
    return make_columns

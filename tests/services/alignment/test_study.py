"""Promises of the alignment stage's whole study: measured for gates, recorded for the ledger, drawn for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rfc8785

from policies.operating.operating_point import OperatingPoint
from policies.utility.scenarios import load_scenarios
from policies.utility.utility import load_utility
from services.alignment.scenario_rows import Bench, served_fields
from services.alignment.study import VARIED_ROWS, AlignmentStudy, study, vary
from services.data.contract import load_contract
from services.reports.panels import Table, Tornado
from services.reports.scenario_panels import study_panels
from services.reports.sensitivity_panels import tornado_of
from services.reports.tornado_plot import write_html, write_png

FOLDER = Path(__file__).parents[3] / "policies" / "telemarketing"
CONTRACT = load_contract((FOLDER / "contract.yaml").read_text(encoding="utf-8"), "contract.yaml")
UTILITY = load_utility((FOLDER / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml")
SCENARIOS = load_scenarios((FOLDER / "scenarios.yaml").read_text(encoding="utf-8"), "scenarios.yaml")
N = 3000
BAYES = OperatingPoint((0.0, 0.0))


def chances(balance: np.ndarray, seed: int = 0) -> np.ndarray:
    sold = np.random.default_rng(seed).beta(1, 12, len(balance)) + np.clip(balance, 0, 5000) / 1e5
    return np.column_stack([1 - sold, sold])


@pytest.fixture(scope="module")
def found() -> AlignmentStudy:
    """The shipped policies on made-up customers, against a champion that calls those with a balance above 1000."""
    draw = np.random.default_rng(2)
    columns = {
        "balance": draw.lognormal(6.5, 1.3, N),
        "age": draw.integers(18, 80, N).astype(float),
        "pdays": draw.integers(-1, 400, N).astype(float),
        "previous": draw.integers(0, 5, N).astype(float),
    }
    for name in ("poutcome", "contact", "job"):
        known = CONTRACT.column(name).categories
        assert known is not None
        columns[name] = draw.choice(np.array(known, dtype=object), N)
    probabilities = chances(columns["balance"])
    bench = Bench(
        utility=UTILITY,
        columns=columns,
        outcomes=(draw.random(N) < probabilities[:, 1]).astype(np.int64),
        times=np.arange(N) * 3600.0,
        probabilities=probabilities,
        operating_point=BAYES,
        score=lambda rows: chances(rows["balance"]),
        fields=served_fields(CONTRACT, UTILITY),
    )
    champion = (columns["balance"] > 1000).astype(np.intp)
    return study(bench, champion=champion, scenarios=SCENARIOS, seed=7)


def test_gates_see_the_report_and_the_scenarios(found: AlignmentStudy) -> None:
    """What the report measures, unchanged, and how many scenarios failed; without scenarios it is not there."""
    measured = found.measured()
    assert found.scenarios is not None
    assert measured["failed_scenarios"].value == len(found.scenarios.failed)
    assert measured["gain_over_champion"] == found.report.measured()["gain_over_champion"]
    without = AlignmentStudy(found.report, None, None)
    assert without.measured() == found.report.measured()


def test_the_ledger_can_keep_it(found: AlignmentStudy) -> None:
    """Plain JSON, numpy's own types and bare NaN excluded."""
    rfc8785.dumps(found.record())  # type: ignore[arg-type]
    assert found.scenarios is not None
    assert found.record()["scenarios"] == found.scenarios.record()


def test_panels_show_every_scenario_and_every_number(found: AlignmentStudy) -> None:
    """One row a scenario with its hypothesis and owner; one bar a number in doubt; nothing of what was not studied."""
    table, tornado, numbers, *_ = study_panels(found.sensitivity, found.scenarios)
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [one.name for one in SCENARIOS.scenarios]
    assert all(one.hypothesis in {row[2] for row in table.rows} for one in SCENARIOS.scenarios)
    assert isinstance(tornado, Tornado)
    assert {name.split(" = ")[0] for name in tornado.names} == {
        "call_cost",
        "margin",
        "deposited_share",
        "cap",
        "weight of customer",
    }
    assert isinstance(numbers, Table)
    assert "champion" in numbers.rows[0][-1] + tornado.note
    assert study_panels(None, None) == ()


def test_the_tornado_is_a_picture_and_a_page_without_network(found: AlignmentStudy, tmp_path: Path) -> None:
    """A PNG, and one HTML file that loads nothing."""
    assert found.sensitivity is not None
    drawn = tornado_of(found.sensitivity, title="toy")
    write_png(tmp_path / "t.png", drawn)
    write_html(tmp_path / "t.html", drawn)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "call_cost" in page
    assert '<script src="http' not in page


def test_many_rows_are_sampled_by_the_seed() -> None:
    """Above the limit the study draws as many rows as it says, the same ones for the same seed."""
    n = VARIED_ROWS + 500
    balance = np.random.default_rng(1).lognormal(6.5, 1.3, n)
    probabilities = chances(balance)
    outcomes = (np.random.default_rng(2).random(n) < probabilities[:, 1]).astype(np.int64)
    columns = {"balance": balance}
    few = load_utility(
        (FOLDER / "utility.yaml")
        .read_text(encoding="utf-8")
        .replace("    sensitivity: {low: 0.5, high: 2}\n", ""),
        "utility.yaml",
    )
    both = [
        vary(
            few,
            columns,
            probabilities=probabilities,
            outcomes=outcomes,
            operating_point=BAYES,
            champion=None,
            seed=seed,
        )
        for seed in (1, 1)
    ]
    assert both[0] == both[1]
    assert both[0] is not None
    assert both[0].n == VARIED_ROWS

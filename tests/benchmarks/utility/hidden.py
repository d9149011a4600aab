"""Payoffs known in training, hidden when the decision is taken: the columns they come from are no inputs either.

Trimtab's way, as a release has it: the hidden costs are predicted beside the outcome, and the row is priced with them
(services/training/hidden_fields.py). Beside it: cross-entropy with the one threshold that is best on validation rows,
and direct utility regression (services/training/hidden_payoffs.py), whose best predicted action needs no threshold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from peers import Entry, tuned_threshold
from real_data import DataSet, random_split
from trimtab_side import COSTS, columns_of, contract_of, train_split, utility_of

from services.training.hidden_payoffs import fit_utilities

HIDDEN = {"bank": ("balance",), "gmsc": ("MonthlyIncome", "DebtRatio"), "pakdd": ("PERSONAL_NET_INCOME",)}
TUNED, REGRESSION = "cross-entropy, one tuned threshold", "utility regression"
PREDICTED = "Trimtab, predicted payoffs"


def hidden_entries(data: DataSet, *, seed: int) -> Iterator[Entry]:
    """All three, on the random split of `seed`."""
    features = {name: values for name, values in data.features.items() if name not in HIDDEN[data.name]}
    split = random_split(replace(data, features=features), seed)
    varying = tuple(name for name, cost in zip(COSTS, split.fit.costs.T, strict=True) if np.ptp(cost) > 0)
    trained = train_split(split, seed=seed, candidates=("cross_entropy",), hidden=varying)
    p_validation, p = (trained.probabilities(part)[:, 1] for part in (split.validation, split.test))
    yield Entry(PREDICTED, trained.actions(split.test), trained.fit_s)
    threshold = tuned_threshold(split.validation, p_validation)
    yield Entry(TUNED, (p >= threshold).astype(int), trained.fit_s)
    started = time.perf_counter()
    regressor = fit_utilities(
        columns_of(split.fit),
        columns_of(split.validation),
        contract=contract_of(split.fit),
        utility=utility_of(split.fit),
        seed=seed,
    )
    yield Entry(REGRESSION, regressor.choose(columns_of(split.test)), time.perf_counter() - started)

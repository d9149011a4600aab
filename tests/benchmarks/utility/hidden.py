"""Payoffs known in training, hidden when the decision is taken: the columns they come from are no inputs either.

Cross-entropy with the one threshold that is best on validation rows, against direct utility regression
(services/training/hidden_payoffs.py), whose best predicted action needs no threshold; and whichever of the two earned
more on the validation rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from peers import Entry, tuned_threshold
from real_data import DataSet, random_split
from trimtab_side import columns_of, contract_of, train_split, utility_of

from services.training.hidden_payoffs import fit_utilities

HIDDEN = {"bank": ("balance",), "gmsc": ("MonthlyIncome", "DebtRatio"), "pakdd": ("PERSONAL_NET_INCOME",)}
TUNED, REGRESSION, CHOSEN = "cross-entropy, one tuned threshold", "utility regression", "better on validation"


def hidden_entries(data: DataSet, *, seed: int) -> Iterator[Entry]:
    """Both, and the choice between them, on the random split of `seed`."""
    features = {name: values for name, values in data.features.items() if name not in HIDDEN[data.name]}
    split = random_split(replace(data, features=features), seed)
    trained = train_split(split, seed=seed, candidates=("cross_entropy",))
    p_validation, p = (trained.probabilities(part)[:, 1] for part in (split.validation, split.test))
    threshold = tuned_threshold(split.validation, p_validation)
    tuned = Entry(TUNED, (p >= threshold).astype(int), trained.fit_s)
    yield tuned
    started = time.perf_counter()
    regressor = fit_utilities(
        columns_of(split.fit),
        columns_of(split.validation),
        contract=contract_of(split.fit),
        utility=utility_of(split.fit),
        seed=seed,
    )
    regression = Entry(REGRESSION, regressor.choose(columns_of(split.test)), time.perf_counter() - started)
    yield regression
    on_validation = (
        split.validation.savings(p_validation >= threshold),
        split.validation.savings(regressor.choose(columns_of(split.validation))),
    )
    chosen = regression if on_validation[1] > on_validation[0] else tuned
    yield Entry(CHOSEN, chosen.actions, tuned.fit_s + regression.fit_s)

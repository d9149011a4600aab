"""The usual rollout gates, written anew from their documentation: what Argo Rollouts, Flagger and Kayenta users run.

Each takes counts (runs, polls) of both arms and says at which polls it would have rolled back, (runs, polls) bool.
None holds an error rate by design but the group-sequential ones, and those need the horizon.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from policies.what_if.paths import CountRuns

Alarms = NDArray[np.bool_]
Floats = NDArray[np.float64]
MINUTE = 6  # polls


def threshold(counts: CountRuns, *, above: float, window: int, failures: int) -> Alarms:
    """A rate over the last `window` polls above a bound, looked at every poll; fails at so many failed looks.

    Argo Rollouts' `failureCondition: result > …` with `failureLimit`, over a query of `rate(...[60s])`.
    """
    events, n = (_rolling(one, window) for one in (counts.canary_events, counts.canary_n))
    bad = events / np.maximum(n, 1) > above
    bad[:, : window - 1] = False  # the query's range is not filled yet
    return np.cumsum(bad, axis=1) >= failures


def success_rate(counts: CountRuns, *, at_least: float, every: int, failures: int) -> Alarms:
    """A success rate per interval; each one below the bound is a failed check. Flagger's `request-success-rate`."""
    events, n = (_intervals(one, every) for one in (counts.canary_events, counts.canary_n))
    failed = np.cumsum(1 - events / n < at_least, axis=1) >= failures
    return _at_ends(failed, every, counts)


def mann_whitney(counts: CountRuns, *, every: int, growing: bool) -> Alarms:
    """Kayenta's judge: the location shift of the rates of 10 s, or of minutes so far, at 98 % and beyond a quarter.

    growing False: each minute on its own six polls, failed at the first that is "High". True: one sample a minute,
    all minutes so far.
    """
    rates = (counts.canary_events / counts.canary_n, counts.stable_events / counts.stable_n)
    minutes = rates[0].shape[1] // every
    if growing:
        canary, stable = (
            _intervals(e, every) / _intervals(n, every)
            for e, n in (
                (counts.canary_events, counts.canary_n),
                (counts.stable_events, counts.stable_n),
            )
        )
        looks = [_shift(canary[:, : k + 1], stable[:, : k + 1]) for k in range(minutes)]
    else:
        cut = [slice(k * every, (k + 1) * every) for k in range(minutes)]
        looks = [_shift(rates[0][:, one], rates[1][:, one]) for one in cut]
    return _at_ends(np.stack(looks, axis=1), every, counts)


def _shift(canary: Floats, stable: Floats, *, tolerance: float = 0.25, confidence: float = 0.98) -> Alarms:
    """Whether the whole interval of the shift lies above a quarter of stable's mean: Mann–Whitney's U, normal."""
    moved = canary - tolerance * stable.mean(axis=1, keepdims=True)
    above = (moved[:, :, None] > stable[:, None, :]).sum(axis=(1, 2))
    ties = (moved[:, :, None] == stable[:, None, :]).sum(axis=(1, 2))
    n = canary.shape[1]
    z = (above + ties / 2 - n * n / 2 - 0.5) / np.sqrt(n * n * (2 * n + 1) / 12)
    found: Alarms = z > norm.ppf((1 + confidence) / 2)
    return found


def z_scores(counts: CountRuns) -> Floats:
    """The pooled two-sample z of all that was seen up to each poll."""
    ec, nc, es, ns = (
        np.cumsum(one, axis=1)
        for one in (counts.canary_events, counts.canary_n, counts.stable_events, counts.stable_n)
    )
    pooled = (ec + es) / (nc + ns)
    error = np.sqrt(pooled * (1 - pooled) * (1 / nc + 1 / ns))
    return np.divide(ec / nc - es / ns, error, out=np.zeros_like(ec), where=error > 0)


def z_every_poll(counts: CountRuns, *, alpha: float) -> Alarms:
    """A one-sided z test at every poll, as if each were the only one."""
    found: Alarms = z_scores(counts) > norm.ppf(1 - alpha)
    return found


def group_sequential(counts: CountRuns, bounds: Floats) -> Alarms:
    """z against a spending boundary at evenly spaced looks, the last at the horizon."""
    looks = np.linspace(0, counts.canary_n.shape[1], len(bounds) + 1)[1:].astype(int) - 1
    z, alarms = z_scores(counts), np.zeros(counts.canary_n.shape, dtype=bool)
    alarms[:, looks] = z[:, looks] > bounds
    return alarms


def _rolling(values: Floats, window: int) -> Floats:
    total = np.cumsum(values, axis=1)
    total[:, window:] = total[:, window:] - total[:, :-window].copy()
    return total


def _intervals(values: Floats, every: int) -> Floats:
    runs, polls = values.shape
    sums: Floats = values.reshape(runs, polls // every, every).sum(axis=2)
    return sums


def _at_ends(found: Alarms, every: int, counts: CountRuns) -> Alarms:
    """Looks at the ends of intervals, as polls."""
    alarms = np.zeros(counts.canary_n.shape, dtype=bool)
    alarms[:, every - 1 :: every] = found
    return alarms

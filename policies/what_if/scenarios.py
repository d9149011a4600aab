"""Scenarios for a what-if: the set that a policy itself suggests, and effects as people write them.

The baseline is what planning reckons with: a gate's `expected`, else a fifth of the way to its bound. From it, each
gate is put at its tolerance, at its margin and beyond, at its bound and at twice its bound; the rest stays as in the
A/A run. Source: gates.md semantics 2, 4. Must never import: anything that does I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policies.language.quantities import percents_of
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import Gate, RolloutPolicy
from policies.what_if.payoffs import AssumptionError, Payoffs
from policies.what_if.traffic import Effect, Rates

SAME = "same as stable"
_SHARE_OF_BOUND = 0.2


@dataclass(frozen=True, eq=False)
class Baseline:
    """What is assumed of both releases where a scenario says nothing else: shares by metric, payoffs or None."""

    rates: Mapping[str, float] = field(default_factory=dict)
    payoffs: Payoffs | None = None

    def effect(
        self, name: str, rates: Mapping[str, float] | None = None, *, difference: float = 0.0
    ) -> Effect:
        """The canary with these rates and this difference of utility; stable stays as it is. Raises AssumptionError."""
        given = rates or {}
        for metric in given:
            self.check_known(metric)
        if difference:
            self._check_difference(difference)
        payoffs = None if self.payoffs is None else replace(self.payoffs, difference=difference)
        both = {metric: Rates(given.get(metric, rate), rate) for metric, rate in self.rates.items()}
        return Effect(name, both, payoffs)

    def check_known(self, metric: str) -> None:
        """Raises AssumptionError for a metric that no live gate judges as a share; it names those that are."""
        if metric not in self.rates:
            known = ", ".join(sorted(self.rates)) or "none"
            raise AssumptionError(
                f"no live gate of this policy judges {metric!r}; shares it judges: {known}"
                + ("; and it compares utility" if self.payoffs is not None else "")
            )

    def _check_difference(self, difference: float) -> None:
        if self.payoffs is None:
            raise AssumptionError("no live gate of this policy compares utility")
        low, high = self.payoffs.low, self.payoffs.high
        if not abs(difference) < high - low:  # also NaN
            raise AssumptionError(
                f"'utility' must be a difference within {high - low:g} either way, the width of the payoff range "
                f"[{low:g}, {high:g}] in utility.yaml: {difference:g}"
            )


def baseline_of(
    policy: RolloutPolicy,
    payoff_range: tuple[float, float],
    *,
    rates: Mapping[str, float] | None = None,
) -> Baseline:
    """What the policy's gates expect; `rates` by metric go before it. payoff_range: the utility spec's, inclusive."""
    found: dict[str, float] = {}
    payoffs = None
    for gate in policy.live_gates:
        kind = METRICS[gate.metric].kind
        if kind == "proportion":
            if gate.expected_rate is not None:
                found[gate.metric] = gate.expected_rate
            elif gate.bound is not None:
                found.setdefault(gate.metric, _towards_bound(gate))
        elif kind == "utility" and gate.expected_sd is not None:
            share = 1.0 if gate.expected_variance_left is None else gate.expected_variance_left
            payoffs = Payoffs(0.0, gate.expected_sd, *payoff_range, disagreement=share)
    baseline = Baseline(found, payoffs)
    baseline.effect("checked", rates)
    return Baseline({**found, **(rates or {})}, payoffs)


def _towards_bound(gate: Gate) -> float:
    if gate.max is not None:
        return _SHARE_OF_BOUND * gate.max
    return 1 - _SHARE_OF_BOUND * (1 - (gate.min or 0.0))


def scenarios_of(policy: RolloutPolicy, baseline: Baseline) -> tuple[Effect, ...]:
    """The scenarios that the policy's own gates suggest, the A/A run first, none twice."""
    found = [baseline.effect(SAME)]
    if "canary_errors" in baseline.rates:
        silent = replace(baseline, rates={**baseline.rates, "canary_errors": 0.0})
        found.append(silent.effect("no errors at all"))
    for gate in policy.live_gates:
        if gate.dry_run:
            continue
        if gate.metric in baseline.rates:
            for what, rate in _rates_worth_trying(gate, baseline.rates[gate.metric]):
                if 0 <= rate <= 1:
                    found.append(baseline.effect(f"{gate.name} {what}", {gate.metric: rate}))
        elif METRICS[gate.metric].kind == "utility" and baseline.payoffs is not None:
            for what, difference in _differences_worth_trying(gate):
                found.append(baseline.effect(f"{gate.name} {what}", difference=difference))
    return tuple({effect.name: effect for effect in found}.values())


def _rates_worth_trying(gate: Gate, base: float) -> Iterator[tuple[str, float]]:
    if gate.compare_to == "bound":
        bound = gate.bound or 0.0
        worse = 2 * bound if gate.max is not None else 2 * bound - 1
        yield f"at its bound, {_percent(bound)}", bound
        yield f"far beyond it, {_percent(max(worse, 0.0))}", max(worse, 0.0)
        return
    tolerance, margin = gate.tolerance or 0.0, gate.ni_margin or 0.0
    if gate.scale == "ratio":
        rates = (base * tolerance, base * margin, base * (2 * margin - 1))
        is_worse = tolerance > 1
    else:
        rates = (base + tolerance, base + margin, base + 2 * margin)
        is_worse = tolerance > 0
    if is_worse:
        yield f"at tolerance, {_percent(rates[0])}", rates[0]
    yield f"at niMargin, {_percent(rates[1])}", rates[1]
    yield f"twice the margin, {_percent(rates[2])}", rates[2]


def _differences_worth_trying(gate: Gate) -> Iterator[tuple[str, float]]:
    tolerance, margin = gate.tolerance or 0.0, gate.ni_margin or 0.0
    yield f"better by the margin, {margin:+g}", margin
    if tolerance > 0:
        yield f"at tolerance, {-tolerance:+g}", -tolerance
    yield f"at niMargin, {-margin:+g}", -margin
    yield f"twice the margin, {-2 * margin:+g}", -2 * margin


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g}%"


def effects_from(texts: Sequence[str], baseline: Baseline) -> tuple[Effect, ...]:
    """Own scenarios, one per text: `canary_errors=2%`, `utility=-0.3`, several with commas. Raises AssumptionError."""
    found = []
    for text in texts:
        rates, difference = _read(text, baseline)
        found.append(baseline.effect(text, rates, difference=difference))
    return tuple(found)


def rates_from(texts: Sequence[str]) -> dict[str, float]:
    """Baseline shares as people write them: `canary_errors=0.2%`. Raises AssumptionError."""
    rates: dict[str, float] = {}
    for text in texts:
        rates.update(_read(text, None)[0])
    return rates


def _read(text: str, baseline: Baseline | None) -> tuple[dict[str, float], float]:
    """Shares by metric, and the difference of utility; without a baseline, shares of any metric only."""
    rates: dict[str, float] = {}
    difference = 0.0
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        try:
            if not sign:
                raise ValueError("must be written METRIC=VALUE")
            if name == "utility" and baseline is not None:
                difference = float(value)
            else:
                if baseline is not None:
                    baseline.check_known(name)
                rates[name] = percents_of(value) / 100
        except AssumptionError:
            raise
        except ValueError as error:
            raise AssumptionError(f"{part.strip()!r}: {error}") from error
    return rates, difference

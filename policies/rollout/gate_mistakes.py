"""What one gate must not say though each of its keys is well formed.

A gate that cannot pass, cannot fail, or that judges by something else than its author thinks, is refused.
Source: gates.md semantics 2, 4, 5 and its table of tests. Must never import: anything that reads a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from policies.language.other_words import METRIC_WORDS
from policies.language.yaml_mistakes import did_you_mean
from policies.rollout.metrics import METRICS, Metric
from policies.rollout.rollout_file import GateFile, MarginFile

Mistake = tuple[str, str]
"""The key, dotted where it lies deeper (`niMargin.ratio`), and what is wrong with it."""

_LIVE_KEYS = ("window", "requiredFrom", "runsIn", "weight", "where", "budget", "expected")
_ABSOLUTE_ONLY = {
    "utility": "a utility may be 0 or negative, and a ratio of it means nothing",
    "ratio": "a utility may be 0 or negative, and a ratio of it means nothing",
    "gap": "a gap may be 0, and a ratio of it means nothing",
}


def gate_mistakes(gate: GateFile) -> Iterator[Mistake]:
    """Every mistake of meaning in one gate."""
    metric = METRICS.get(gate.metric)
    if metric is None:
        ours = METRIC_WORDS.get(gate.metric)
        hint = did_you_mean(gate.metric, list(METRICS)) if ours is None else f": {ours}"
        yield (
            "metric",
            f"unknown metric '{gate.metric}'{hint} (known: {', '.join(METRICS)})",
        )
        return
    if gate.compare_to == "champion" and not metric.champion:
        yield "compareTo", f"must be 'bound' for metric '{metric.name}': 'champion'"
        return
    if gate.compare_to == "bound" and not metric.bound:
        yield "compareTo", f"must be 'champion' for metric '{metric.name}': 'bound'"
        return
    if gate.compare_to == "bound":
        yield from _bound_mistakes(gate, metric)
    else:
        yield from _margin_mistakes(gate, metric)
    yield from (_live_mistakes(gate, metric) if metric.is_live else _offline_mistakes(gate, metric))


def _bound_mistakes(gate: GateFile, metric: Metric) -> Iterator[Mistake]:
    for key, value in (("tolerance", gate.tolerance), ("niMargin", gate.ni_margin)):
        if value is not None:
            yield key, "belongs to `compareTo: champion` only"
    said = [key for key in ("min", "max", "when") if getattr(gate, key) is not None]
    if "when" in said and metric.is_live:
        yield (
            "when",
            "belongs to offline gates only: a condition on a live metric would be a peek at every poll, and peeking "
            "rolls back sound releases; write `min` or `max`, or `compareTo: champion`",
        )
        return
    if len(said) > 1:
        yield said[-1], f"'{said[0]}' and '{said[-1]}' exclude each other; write one gate for each"
    if not said:
        yield "max", "is missing: `compareTo: bound` needs 'min' or 'max'"
    if len(said) == 1 and said[0] != "when":
        yield from _end_mistakes(said[0], float(getattr(gate, said[0])), metric)


def _end_mistakes(key: str, bound: float, metric: Metric) -> Iterator[Mistake]:
    """A bound on the wrong side, or one that every value keeps, or none does."""
    right = {"more": "max", "less": "min"}.get(metric.worse)
    if right is not None and key != right:
        yield key, f"must be '{right}' for '{metric.name}', of which {metric.worse} is worse: '{key}'"
        return
    low, high = metric.low, metric.high
    if metric.is_live:  # its test weighs odds, which need room on both sides
        if not low < bound < high:
            yield key, f"must be > {low:g} and < {high:g} for a {metric.kind}: {bound:g}"
        return
    always = bound >= high if key == "max" else bound <= low
    never = bound < low if key == "max" else bound > high
    if always and math.isfinite(bound):
        yield key, f"can never fail: '{metric.name}' is always {'<=' if key == 'max' else '>='} {bound:g}"
    if never:
        what = f">= {low:g}" if key == "max" else f"<= {high:g}"
        yield key, f"can never pass: '{metric.name}' is always {what}: {bound:g}"


def _margin_mistakes(gate: GateFile, metric: Metric) -> Iterator[Mistake]:
    for key in ("min", "max", "when"):
        if getattr(gate, key) is not None:
            yield key, "belongs to `compareTo: bound` only"
    said: dict[str, tuple[str, float]] = {}
    for key, margin in (("tolerance", gate.tolerance), ("niMargin", gate.ni_margin)):
        if margin is None:
            yield key, "is missing: `compareTo: champion` needs it"
            continue
        form, mistake = _form(margin, metric)
        if mistake is not None:
            yield f"{key}{form}", mistake
        else:
            said[key] = (form, float(getattr(margin, form)))
    if gate.expected is None:
        yield "expected", f"is missing: planning needs it where `compareTo: champion`; {_expected(metric)}"
    if len(said) == 2:
        yield from _size_mistakes(said["tolerance"], said["niMargin"], metric)


def _form(margin: MarginFile, metric: Metric) -> tuple[str, str | None]:
    """The form of a margin; or where its mistake stands, and the mistake."""
    if (margin.ratio is None) == (margin.absolute is None):
        return "", "must say one of 'ratio' and 'absolute', like {ratio: 1.5} or {absolute: 0.30}"
    if margin.ratio is None:
        return "absolute", None
    if metric.kind in _ABSOLUTE_ONLY:
        return ".ratio", f"must be 'absolute' for '{metric.name}': {_ABSOLUTE_ONLY[metric.kind]}"
    return "ratio", None


def _size_mistakes(
    tolerance: tuple[str, float], ni_margin: tuple[str, float], metric: Metric
) -> Iterator[Mistake]:
    form, least = tolerance
    if ni_margin[0] != form:
        yield "niMargin", f"must be of the same form as tolerance, '{form}': '{ni_margin[0]}'"
        return
    floor = 1.0 if form == "ratio" else 0.0
    if least < floor:
        what = "1, a ratio of rates" if form == "ratio" else "0"
        yield f"tolerance.{form}", f"must be >= {what}: {least:g}"
    if ni_margin[1] <= least:
        yield f"niMargin.{form}", f"must be > tolerance {least:g}: {ni_margin[1]:g}"
    if form == "absolute" and metric.kind in ("proportion", "gap") and ni_margin[1] >= 1:
        yield (
            f"niMargin.{form}",
            f"must be < 1, a difference of shares (0.02 is two points): {ni_margin[1]:g}; no gate could fail",
        )


def _live_mistakes(gate: GateFile, metric: Metric) -> Iterator[Mistake]:
    for key, value in (("estimate", gate.estimate), ("appliesTo", gate.applies_to)):
        if value is not None:
            yield key, f"belongs to offline metrics only, not to '{metric.name}'"
    if metric.name == "slow_share" and gate.budget is None:
        yield "budget", "is missing: 'slow_share' needs the time above which a request is slow, like 250ms"
    if metric.name != "slow_share" and gate.budget is not None:
        yield "budget", "belongs to metric 'slow_share' only"
    if metric.name != "utility" and gate.where is not None:
        yield "where", "belongs to metric 'utility' only"
    if gate.dry_run and gate.required_from is not None:
        yield "requiredFrom", "must go where `dryRun: true`: a gate on a dry run is required nowhere"
    yield from _expected_mistakes(gate, metric)


def _offline_mistakes(gate: GateFile, metric: Metric) -> Iterator[Mistake]:
    written = {GateFile.model_fields[name].alias for name in gate.model_fields_set}
    for key in _LIVE_KEYS:
        if key in written:
            why = ": an offline gate is always required" if key == "requiredFrom" else ""
            yield key, f"belongs to live gates only, not to '{metric.name}'{why}"
    if gate.applies_to is None:
        yield "appliesTo", f"is missing: an offline gate says it (metric '{metric.name}')"
    if gate.when is not None and gate.estimate is not None:
        yield "estimate", "must go where `when` stands: the condition names `.lower` or `.upper` itself"
    if gate.when is None and gate.estimate is None:
        yield "estimate", f"is missing: an offline gate says it (metric '{metric.name}')"
    if metric.name == "gain_over_champion" and gate.applies_to not in (None, "challenger"):
        yield "appliesTo", f"must be 'challenger' for metric 'gain_over_champion': '{gate.applies_to}'"


_EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "proportion": (("rate",), (), "write stable's rate, like {rate: 0.002}"),
    "utility": (("sd",), (), "write the spread of one unit's payoff, like {sd: 5.2}"),
    "ratio": (
        ("sd", "rate"),
        (),
        "write the spread of one acted-on unit's payoff and the share acted on, like {sd: 13, rate: 0.1}",
    ),
    "gap": (
        ("rate", "groupShare"),
        (),
        "write the action rate and the smaller group's share, like {rate: 0.1, groupShare: 0.2}",
    ),
}


def _expected(metric: Metric) -> str:
    return _EXPECTED[metric.kind][2]


def _expected_mistakes(gate: GateFile, metric: Metric) -> Iterator[Mistake]:
    expected = gate.expected
    if expected is None:
        return
    needed, says = set(_EXPECTED[metric.kind][0]), _expected(metric)
    allowed = set(needed)
    if gate.where == "disagreement":
        allowed |= {"varianceLeft"}
    values = {
        "rate": expected.rate,
        "sd": expected.sd,
        "varianceLeft": expected.variance_left,
        "groupShare": expected.group_share,
    }
    for key, value in values.items():
        if value is None and key in needed:
            yield f"expected.{key}", f"is missing for '{metric.name}': {says}"
        if value is not None and key not in allowed:
            why = (
                "belongs to `where: disagreement` only"
                if key == "varianceLeft"
                else f"tells nothing of '{metric.name}'; {says}"
            )
            yield f"expected.{key}", why

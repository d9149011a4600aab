"""The drawings of a trace's page, as inline SVG: no script, no font, nothing to load.

Rule: no number is computed here beyond places and formatting; every drawing has its numbers in words beside it. Colours
come from the page's style, so that both light and dark are served. Must never import: anything of a framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from services.serving.explanation import Explanation
from services.trace.assignment import SLOTS, Assignment, WeightChange
from services.trace.traced import ActionValue, JudgedStage

HALF, FULL = 530, 1100
_LEFT, _RIGHT = 120, 80
_LABEL_ROWS, _LABEL_WIDTH = 3, 84


def utilities(actions: Sequence[ActionValue], unit: str) -> str:
    """A bar per action from 0 to its expected utility; the one taken is filled, a priced value is a tick."""
    values = [
        0.0,
        *(one.expected for one in actions),
        *(one.priced for one in actions if one.priced is not None),
    ]
    scale = _Scale(min(values), max(values), _LEFT, HALF - _RIGHT)
    parts = []
    for index, one in enumerate(actions):
        y = 14 + 34 * index
        kind = "taken" if one.is_taken else "off" if one.is_off else "other"
        left, right = sorted((scale(0.0), scale(one.expected)))
        name = f"{one.action}{' (off)' if one.is_off else ''}"
        parts += [
            _text(_LEFT - 10, y + 15, name, "end strong" if one.is_taken else "end"),
            f'<rect class="bar {kind}" x="{left:.1f}" y="{y}" width="{max(right - left, 2):.1f}" height="22" rx="3"/>',
            _text(max(right, scale(0.0)) + 8, y + 15, signed(one.expected)),
        ]
        if one.priced is not None and abs(one.priced - one.expected) > 1e-9:
            x = scale(one.priced)
            parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 26}"/>')
    height = 20 + 34 * len(actions)
    zero = scale(0.0)
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="4" y2="{height - 4}"/>')
    return _svg(height, parts, f"Expected utility of each action in {unit}")


def probability(score: float, threshold: float | None, outcome: str) -> str:
    """The chance of the outcome on a line from 0 to 1, and the threshold at which the action changes."""
    scale = _Scale(0.0, 1.0, 20, HALF - 20)
    parts = [f'<rect class="track" x="20" y="26" width="{HALF - 40}" height="10" rx="5"/>']
    if threshold is not None and 0 <= threshold <= 1:
        x = scale(threshold)
        parts += [
            f'<rect class="beyond" x="{x:.1f}" y="26" width="{HALF - 20 - x:.1f}" height="10" rx="5"/>',
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="42"/>',
            _text(_inside(x), 58, f"threshold {threshold:.3f}", "middle muted"),
        ]
    x = scale(min(max(score, 0.0), 1.0))
    parts += [
        f'<circle class="mark" cx="{x:.1f}" cy="31" r="7"/>',
        _text(_inside(x), 15, f"{outcome} {score:.3f}", "middle strong"),
    ]
    return _svg(66, parts, f"Probability of {outcome}")


def features(found: Explanation) -> str:
    """A step per feature from the baseline's log-odds to the row's."""
    steps = [(part.name, part.value, part.contribution) for part in found.features]
    if abs(found.others) > 5e-4:
        steps.append(("others", None, found.others))
    start, end = found.attribution.at_baseline, found.attribution.at_row
    levels = [start]
    for _, _, contribution in steps:
        levels.append(levels[-1] + contribution)
    scale = _Scale(min(*levels, end), max(*levels, end), 190, HALF - _RIGHT)
    parts = [_row_mark(scale(start), 10, "baseline", f"{start:+.3f}")]
    for index, (name, value, contribution) in enumerate(steps):
        y = 34 + 24 * index
        left, right = sorted((scale(levels[index]), scale(levels[index + 1])))
        label = name if value is None else f"{name} = {value}"
        parts += [
            _text(180, y + 13, _short(label, 25), "end"),
            f'<rect class="bar {"up" if contribution > 0 else "down"}" x="{left:.1f}" y="{y}" '
            f'width="{max(right - left, 1.5):.1f}" height="17" rx="2"/>',
            _text(right + 6, y + 13, signed(contribution), "muted"),
        ]
    y = 34 + 24 * len(steps)
    parts.append(_row_mark(scale(end), y + 4, "this row", f"{end:+.3f}"))
    return _svg(y + 30, parts, f"What moved the log-odds of {found.outcome}")


def slots(found: Assignment) -> str:
    """All slots on a line: the canary's part of it, and the unit's own slot."""
    if found.slot is None or found.first_canary_slot is None:
        return ""
    scale = _Scale(0.0, float(SLOTS), 20, HALF - 20)
    first, at = scale(found.first_canary_slot), scale(found.slot)
    parts = [
        f'<rect class="stable" x="20" y="26" width="{first - 20:.1f}" height="14" rx="3"/>',
        f'<rect class="canary" x="{first:.1f}" y="26" width="{max(HALF - 20 - first, 0):.1f}" height="14" rx="3"/>',
        f'<circle class="mark" cx="{at:.1f}" cy="33" r="7"/>',
        _text(_inside(at), 15, f"slot {found.slot:,}", "middle strong"),
        _text(20, 60, "0", "muted"),
        _text(HALF - 20, 60, f"{SLOTS:,}", "end muted"),
    ]
    if 60 < first < HALF - 90:
        parts.append(_text(first, 60, f"canary from {found.first_canary_slot:,}", "middle muted"))
    return _svg(68, parts, found.why)


def timeline(
    weights: Sequence[WeightChange],
    stages: Sequence[JudgedStage],
    *,
    began_at: float,
    ended_at: float,
    at: float,
) -> str:
    """The canary's weight over the rollout, the verdicts that ended its stages, and when the decision was taken."""
    time = _Scale(min(began_at, at), max(ended_at, at), 50, FULL - 30)
    top = max([1.0, *(change.weight_pct for change in weights)])
    level = _Scale(0.0, top, 130, 40)
    points, before = [f"{time(began_at):.1f},{level(0.0):.1f}"], 0.0
    for change in weights:
        x = time(change.at)
        points += [f"{x:.1f},{level(before):.1f}", f"{x:.1f},{level(change.weight_pct):.1f}"]
        before = change.weight_pct
    points.append(f"{time(ended_at):.1f},{level(before):.1f}")
    area = " ".join(
        [f"{time(began_at):.1f},{level(0.0):.1f}", *points, f"{time(ended_at):.1f},{level(0.0):.1f}"]
    )
    parts = [
        f'<line class="axis" x1="50" x2="{FULL - 30}" y1="130" y2="130"/>',
        _text(44, 134, "0 %", "end muted"),
        _text(44, 44, f"{top:g} %", "end muted"),
        f'<polygon class="area" points="{area}"/>',
        f'<polyline class="line" points="{" ".join(points)}"/>',
    ]
    ends = [float("-inf")] * _LABEL_ROWS
    for stage in stages:
        x = time(stage.verdict.at)
        row = next((at for at, end in enumerate(ends) if x - end > _LABEL_WIDTH), 0)
        ends[row] = x
        kind = stage.verdict.decision.value.lower()
        parts += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="40" y2="{134 + 15 * row}"/>',
            f'<circle class="dot {kind}" cx="{x:.1f}" cy="130" r="4.5"/>',
            _text(x, 150 + 16 * row, stage.verdict.stage, "middle muted"),
        ]
    x = time(at)
    parts += [
        f'<line class="now" x1="{x:.1f}" x2="{x:.1f}" y1="24" y2="130"/>',
        _text(_inside(x, FULL), 16, "this decision", "middle strong"),
    ]
    return _svg(190, parts, "The canary's weight over the rollout, and this decision", width=FULL)


def signed(value: float) -> str:
    """With its sign, or a plain 0."""
    return f"{value:+.3f}" if abs(value) >= 5e-4 else "0"


class _Scale:
    """From a number to a place, linear; a span of nothing is widened."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) / self._span * (self._stop - self._start)


def _row_mark(x: float, y: float, name: str, value: str) -> str:
    line = f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4:.1f}" y2="{y + 14:.1f}"/>'
    return _text(180, y + 9, name, "end strong") + line + _text(x + 6, y + 9, value, "strong")


def _inside(x: float, width: int = HALF) -> float:
    """A place for a centred label that does not leave the drawing."""
    return min(max(x, 70.0), width - 70.0)


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _svg(height: int, parts: Sequence[str], label: str, *, width: int = HALF) -> str:
    inner, words = "".join(parts), escape(label, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{inner}</svg>'

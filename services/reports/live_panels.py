"""Candidate against stable on live (or mirrored) decisions: the numbers and pictures of a canary's report.

Descriptive only: what a gate decided stands in the verdict, by its own anytime-valid test; the intervals
here are plain 95 % intervals of a mean at one look and say so. Must never import: evidently, plotly.

A frame has one row per unit's first decision: `score` (float), `action` (text), `took_ms` (float), and
where known `utility` (float, NaN while the outcome is not mature), `failed` (boolean), `at` (epoch s),
`request_id` (text, joins shadow pairs), `agrees` (boolean: both releases would take the same action on the
row; there where a gate compares utility on the other units only), and a column for each of the `gaps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.reports.gap_panels import WatchedGap, gap_panels
from services.reports.panels import Curve, Line, Panel, Table

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

LIVE_COLUMNS = ("score", "action", "took_ms")
_Z95 = 1.959964


def live_panels(
    candidate: pd.DataFrame,
    stable: pd.DataFrame | None,
    *,
    unit: str,
    gaps: Sequence[WatchedGap] = (),
) -> tuple[Panel, ...]:
    """Every panel that the columns allow; `stable` may be None (nobody is assigned to it any more)."""
    panels: list[Panel] = [_summary(candidate, stable, unit=unit)]
    utility = _running_utility(candidate, stable, unit=unit)
    if utility is not None:
        panels.append(utility)
    if stable is not None and "agrees" in candidate and "agrees" in stable:
        panels.extend(_where_they_differ(candidate, stable, unit=unit))
    panels.append(_latency(candidate, stable))
    if stable is not None and "request_id" in candidate and "request_id" in stable:
        panels.extend(_disagreement(candidate, stable))
    return (*panels, *gap_panels(candidate, stable, gaps))


def _summary(candidate: pd.DataFrame, stable: pd.DataFrame | None, *, unit: str) -> Table:
    if stable is None:
        rows = tuple(_arm(candidate).items())
        note = "No unit is assigned to the former release any more: there is nothing to compare with here."
        return Table("The release on its own", ("", "candidate"), rows, float(len(candidate)), note)
    arms = [_arm(candidate), _arm(stable)]
    names = list(dict.fromkeys([*arms[0], *arms[1]]))
    compared = tuple((name, arms[0].get(name, "–"), arms[1].get(name, "–")) for name in names)
    mine, theirs = _mature(candidate), _mature(stable)
    gap = float("nan")
    note = "Utility is compared once outcomes are mature."
    if mine.size > 1 and theirs.size > 1:
        gap = float(mine.mean() - theirs.mean())
        half = _Z95 * float(np.sqrt(mine.var(ddof=1) / mine.size + theirs.var(ddof=1) / theirs.size))
        note = (
            f"Candidate minus stable: {gap:+.4f} {unit} a decision, plain 95 % interval at this one look "
            f"{gap - half:+.4f} … {gap + half:+.4f}. The gates above decide, by tests that allow many looks."
        )
    return Table(
        title="Candidate against stable",
        header=("", "candidate", "stable"),
        rows=compared,
        value=gap if np.isfinite(gap) else float(len(candidate)),
        note=note,
    )


def _arm(frame: pd.DataFrame) -> dict[str, str]:
    rows = {"decisions": f"{len(frame):,}"}
    shares = frame["action"].astype(str).value_counts(normalize=True).sort_index()
    rows |= {f"share '{action}'": f"{share:.2%}" for action, share in shares.items()}
    rows["mean score"] = _number(frame["score"].mean())
    if "utility" in frame:
        mature = _mature(frame)
        rows["mature outcomes"] = f"{mature.size:,}"
        if mature.size > 1:
            half = _Z95 * float(mature.std(ddof=1)) / np.sqrt(mature.size)
            rows["utility per decision"] = f"{mature.mean():+.4f} ± {half:.4f}"
    took = _finite(frame["took_ms"])
    for quantile in (50, 95, 99):
        rows[f"latency p{quantile}, ms"] = f"{np.percentile(took, quantile):.1f}" if took.size else "–"
    if "failed" in frame:
        rows["failed"] = f"{int(frame['failed'].sum()):,} ({frame['failed'].mean():.2%})"
    return rows


def _running_utility(candidate: pd.DataFrame, stable: pd.DataFrame | None, *, unit: str) -> Curve | None:
    """Mean utility so far against units matured, with a plain 95 % band: shows how it settled."""
    lines = []
    for name, frame, role in (("stable", stable, "stable"), ("candidate", candidate, "candidate")):
        mature = _mature(frame)
        if mature.size < 20:
            continue
        n = np.arange(1, mature.size + 1, dtype=np.float64)
        mean = np.cumsum(mature) / n
        spread = np.sqrt(np.maximum(np.cumsum(mature**2) / n - mean**2, 0.0) / n)
        keep = np.unique(np.geomspace(20, mature.size, 160).astype(np.int64)) - 1
        lines.append(
            Line(
                name,
                n[keep],
                mean[keep],
                role,
                low=(mean - _Z95 * spread)[keep],
                high=(mean + _Z95 * spread)[keep],
            )
        )
    if not lines:
        return None
    return Curve(
        title="Realised utility, mean so far",
        x_label="units with a mature outcome",
        y_label=f"utility per decision, {unit}",
        lines=tuple(lines),
        value=float(lines[-1].y[-1]),
        note="Band: plain 95 % interval of the mean at each n, from 20 units on.",
    )


def _where_they_differ(candidate: pd.DataFrame, stable: pd.DataFrame, *, unit: str) -> tuple[Table, ...]:
    """The same mean difference from all units and from those on which the releases differ; none before outcomes."""
    full, differing = (_mature(candidate), _mature(stable)), (_differing(candidate), _differing(stable))
    if min(arm.size for arm in full) < 2:
        return ()
    rows, spreads = [], []
    for name, (mine, theirs) in (("all units", full), ("where the releases differ", differing)):
        spreads.append(float(mine.var(ddof=1) / mine.size + theirs.var(ddof=1) / theirs.size))
        gap, half = mine.mean() - theirs.mean(), _Z95 * float(np.sqrt(spreads[-1]))
        rows.append((name, f"{mine.size + theirs.size:,}", f"{gap:+.4f} ± {half:.4f}"))
    share = 1 - float(np.concatenate([candidate["agrees"], stable["agrees"]]).mean())
    saved = f"{spreads[0] / spreads[1]:.1f} times as many units" if spreads[1] > 0 else "many more units"
    note = (
        f"The releases would act differently on {share:.2%} of the decisions. On the others both arms get the same "
        "action and earn the same on average, so the gate counts them as 0: the difference per unit stays what it is, "
        f"and its noise goes. All payoffs together would need {saved} for the same precision."
    )
    header = ("candidate minus stable", "units", f"{unit} a decision, ± plain 95 %")
    return (Table("Utility where the releases differ", header, tuple(rows), share, note),)


def _latency(candidate: pd.DataFrame, stable: pd.DataFrame | None) -> Curve:
    lines, p99 = [], 0.0
    for name, frame, role in (("stable", stable, "stable"), ("candidate", candidate, "candidate")):
        took = _finite(frame["took_ms"]) if frame is not None else np.empty(0)
        if not took.size:
            continue
        shares = np.concatenate([np.linspace(0.0, 0.99, 100), [0.995, 0.999, 1.0]])
        lines.append(Line(name, np.quantile(took, shares), 100.0 * shares, role))
        p99 = float(np.percentile(took, 99))
    return Curve(
        title="Latency",
        x_label="milliseconds (log scale)",
        y_label="% of decisions answered within",
        lines=tuple(lines),
        value=p99,
        is_log_x=True,
    )


def _disagreement(candidate: pd.DataFrame, stable: pd.DataFrame) -> tuple[Table, ...]:
    """Paired by request: what stable did against what the candidate would have done; none where nothing
    pairs.
    """
    import pandas as pd

    pairs = stable[["request_id", "action"]].merge(
        candidate[["request_id", "action"]], on="request_id", suffixes=("_stable", "_candidate")
    )
    if pairs.empty:
        return ()
    counts = pd.crosstab(pairs["action_stable"].astype(str), pairs["action_candidate"].astype(str))
    share = float((pairs["action_stable"].astype(str) != pairs["action_candidate"].astype(str)).mean())
    rows = tuple(
        (f"stable '{action}'", *(f"{int(count):,} ({count / len(pairs):.1%})" for count in row))
        for action, row in zip(counts.index, counts.to_numpy(), strict=True)
    )
    table = Table(
        title="Disagreement on the same requests",
        header=("", *(f"candidate '{action}'" for action in counts.columns)),
        rows=rows,
        value=share,
        note=f"{len(pairs):,} pairs; a different action on {share:.2%}.",
    )
    return (table,)


def _mature(frame: pd.DataFrame | None) -> NDArray[np.float64]:
    if frame is None or "utility" not in frame:
        return np.empty(0)
    ordered = frame.sort_values("at") if "at" in frame else frame
    return _finite(ordered["utility"])


def _differing(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Mature payoffs, 0 where both releases take the same action."""
    return _mature(
        frame.assign(utility=frame["utility"].where(~frame["agrees"] | frame["utility"].isna(), 0.0))
    )


def _finite(values: object) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"

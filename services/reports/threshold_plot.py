"""A picture of what a utility spec implies: the best action by probability, over each field that payoffs read.

Above it, how often the field has such values. Draws what policies/utility/thresholds.py found; computes only a
histogram. matplotlib, a PNG. Must never import: evidently, torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.utility.thresholds import ThresholdMap, TypicalRow, number
from policies.utility.utility import UtilitySpec

_INK, _LINE, _MUTED = "#24292f", "#d97706", "#b6bcc4"
_REGIONS = ("#eef1f5", "#cfe0f7", "#9fc1ec", "#6f9fdd", "#4a7fc6")


def write_png(
    path: Path,
    maps: Sequence[ThresholdMap],
    *,
    utility: UtilitySpec,
    rows: Sequence[TypicalRow],
    seen: Mapping[str, NDArray[np.float64]],
) -> None:
    """Draw one panel a field, at 150 dots an inch. `seen` (n,) by field are the values that rows have, if known."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    drawn = Figure(figsize=(max(8.5, 6.0 * len(maps)), 6.0), dpi=150, layout="constrained")
    parts = drawn.subplots(2, len(maps), sharex="col", height_ratios=(1, 4), squeeze=False)
    colours = ListedColormap([_REGIONS[i % len(_REGIONS)] for i in range(len(utility.actions))])
    handles = [Patch(color=colours(i), label=name) for i, name in enumerate(utility.actions)]
    for column, found in enumerate(maps):
        above, axes = parts[0, column], parts[1, column]
        axes.pcolormesh(
            found.values,
            found.chances,
            found.best.T,
            cmap=colours,
            vmin=0,
            vmax=len(utility.actions) - 1,
            shading="nearest",
            rasterized=True,
        )
        if found.threshold is not None:
            (line,) = axes.plot(found.values, found.threshold, color=_LINE, linewidth=2.2, label="threshold")
            lines = [line]
            if found.band_low is not None and found.band_high is not None:
                for edge in (found.band_low, found.band_high):
                    (line,) = axes.plot(
                        found.values,
                        np.minimum(edge, 2.0),
                        color=_LINE,
                        linewidth=1.1,
                        linestyle="--",
                        label="in 90 of 100 cases between, if the numbers in doubt are anywhere in their ranges",
                    )
                lines.append(line)
            handles = handles[: len(utility.actions)] + lines
        _marks(axes, found, rows)
        axes.set(xlabel=found.field, ylim=(0, 1), xlim=(found.values[0], found.values[-1]))
        axes.spines[["top", "right"]].set_visible(False)
        above.set_axis_off()
        if found.field in seen:
            above.hist(seen[found.field], bins=60, range=(found.values[0], found.values[-1]), color=_MUTED)
    parts[1, 0].set_ylabel(f"P({utility.outcomes[1]})")
    drawn.suptitle(f"{utility.service}: the best action, version {utility.version}", color=_INK, fontsize=12)
    drawn.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)
    drawn.savefig(path)


def _marks(axes, found: ThresholdMap, rows: Sequence[TypicalRow]) -> None:  # type: ignore[no-untyped-def]
    """The typical rows that differ in this field only, each with the probability at which its action turns."""
    medians = rows[1].values if len(rows) > 1 else rows[0].values
    for row in rows:
        if any(value != medians[name] for name, value in row.values.items() if name != found.field):
            continue
        if len(row.regions) < 2:
            continue
        at, chance = row.values[found.field], row.regions[1].start
        axes.plot([at], [chance], marker="o", color=_INK, markersize=6, zorder=3)
        text = f"{found.field} {number(at)}: P = {chance:.3f}"
        axes.annotate(text, (at, chance), (7, 6), textcoords="offset points", fontsize=9, color=_INK)

"""The issue's targets, each judged by the numbers of the tables: what was asked, what was found, met or not."""

from __future__ import annotations

import constrained
import hidden as hidden_payoffs
import numpy as np
import over_time
from score_table import Line, Table, Target, standard_error
from trimtab_side import OURS, OURS_BOOSTED, OURS_TUNED

MARGIN = "Trimtab, price with margin"
TUNED_POINTS, HIDDEN_POINTS, BOUND_POINTS = 10.0, 2.0, 3.0
HINDSIGHT_POINTS = 0.5


def against_peers(table: Table) -> list[Target]:
    """Not below the best peer beyond one standard error of the paired difference; and over one tuned threshold."""
    found = []
    best = best_peer(table)
    for name in (OURS_BOOSTED, OURS):
        mean, se = ahead(table.lines[name], best)
        asked = f"{table.title}: {name} not below the best peer beyond one standard error"
        found.append(Target(asked, f"{mean:+.2f} ± {se:.2f} to {best.name}", mean >= -se))
    if table.title.startswith(("bank", "pakdd")):
        mean, se = ahead(table.lines[OURS], table.lines[OURS_TUNED])
        asked = f"{table.title}: at least {TUNED_POINTS:g} points over one tuned threshold"
        found.append(Target(asked, f"{mean:+.2f} ± {se:.2f}", mean >= TUNED_POINTS))
    return found


def across(tables: list[Table]) -> list[Target]:
    """Above the best peer on at least one data set."""
    differences = {t.title: ahead(t.lines[OURS_BOOSTED], best_peer(t)) for t in tables}
    text = ", ".join(
        f"{title.split(',')[0]} {mean:+.2f} ± {se:.2f}" for title, (mean, se) in differences.items()
    )
    return [
        Target(
            f"{OURS_BOOSTED} above the best peer on at least one data set, beyond one standard error",
            text,
            any(mean > se for mean, se in differences.values()),
        )
    ]


def over_deciles(results: list[over_time.DecileResult]) -> list[Target]:
    """Whoever adapts is nowhere below the best trivial policy beyond one standard error."""
    found = []
    deciles = sorted({one.decile for one in results})
    for policy in dict.fromkeys(one.policy for one in results):
        cells = [over_time.summary(results, policy, decile) for decile in deciles]
        worst = min(cells, key=lambda cell: cell[0] + cell[1])
        if policy != over_time.POLICIES[0][0]:
            asked = f"bank over time, {policy}: not below the best trivial policy beyond one se in any decile"
            found.append(Target(asked, f"at worst {worst[0]:+.1f} ± {worst[1]:.1f}", worst[0] >= -worst[1]))
    return found


def hidden(table: Table) -> list[Target]:
    """Predicted payoffs over tuned cross-entropy."""
    mean, se = ahead(table.lines[hidden_payoffs.PREDICTED], table.lines[hidden_payoffs.TUNED])
    asked = f"{table.title}: at least {HIDDEN_POINTS:g} points over tuned cross-entropy"
    return [Target(asked, f"{mean:+.2f} ± {se:.2f}", mean >= HIDDEN_POINTS)]


def bounds(table: Table, bound: float) -> list[Target]:
    """Held on the test rows of every split, at no more than three points, and near what hindsight could do."""
    line = table.lines[MARGIN]
    rates = line.more["rate on test"]
    mean, se = ahead(line, table.lines[f"Trimtab, {constrained.FREELY}"])
    held = sum(rate <= bound for rate in rates)
    behind, its_se = ahead(line, table.lines[f"Trimtab, {constrained.HINDSIGHT}"])
    return [
        Target(f"{table.title}: held on test", f"in {held} of {len(rates)} splits", held == len(rates)),
        Target(
            f"{table.title}: at a loss of at most {BOUND_POINTS:g} points",
            f"{mean:+.2f} ± {se:.2f}; the best price in hindsight loses {in_hindsight(table)}",
            mean >= -BOUND_POINTS,
        ),
        Target(
            f"{table.title}: at most {HINDSIGHT_POINTS:g} points below its own best price in hindsight",
            f"{behind:+.2f} ± {its_se:.2f}",
            behind >= -HINDSIGHT_POINTS,
        ),
    ]


def in_hindsight(table: Table) -> str:
    """What the least price that keeps the bound on the test rows takes from each model's own savings."""
    found = []
    for name, line in table.lines.items():
        model, _, rule = name.partition(", ")
        if rule == constrained.HINDSIGHT:
            mean, se = ahead(line, table.lines[f"{model}, {constrained.FREELY}"])
            found.append(f"{model} {mean:+.2f} ± {se:.2f}")
    return ", ".join(found)


def best_peer(table: Table) -> Line:
    """Of the highest mean savings."""
    return max(
        (line for line in table.lines.values() if not line.name.startswith("Trimtab")),
        key=lambda line: line.mean,
    )


def ahead(line: Line, other: Line) -> tuple[float, float]:
    """Mean of the differences on the same splits, and its standard error."""
    differences = np.subtract(line.savings, other.savings).tolist()
    return float(np.mean(differences)), standard_error(differences)

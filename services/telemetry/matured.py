"""What rests on outcomes in a canary stage: payoffs per unit, and per unit acted on, once the cohort has matured.

A unit counts when it is older than the maturity and passed by the outcome feed's watermark and by the shipper,
whatever its action, its arm, and whether the releases differ on it. Where too many outcomes are missing, or a release
cannot be recomputed, all is withheld and not consumed. For a gate that compares `where: disagreement` each unit on
which both releases take the same action has payoff 0 in both arms; the units, and the rules of completeness, are those
of the full payoffs. Answers that are not the release's own (a skew of serving) end the evidence of utility for good.
Source: gates.md, semantics 7 to 9 and 11. Must never import: sqlalchemy, flows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from policies.gates.evidence import RatioBlock, UtilityBlock
from policies.rollout.rollout_policy import Stage
from policies.utility.utility import UtilityError, UtilitySpec
from services.store import decisions as store
from services.store import evidence as queries
from services.store.database import Database
from services.store.evidence import DecidedUnit
from services.store.measurements import measured_values
from services.store.rollouts import RolloutRecord
from services.telemetry.disagreement import Compared, Disagreement, DisagreementError
from services.telemetry.poll import LIMIT, VARIANTS, Limits, Poll
from services.telemetry.realised import Realised, realise

UNRESOLVED_SHARE = 0.01
_UNRESOLVED_IN_ONE_ARM = 3


def add_matured(
    db: Database,
    poll: Poll,
    stage: Stage,
    *,
    record: RolloutRecord,
    maturity_s: float,
    utility: UtilitySpec,
    disagreement: Disagreement | None,
    now: float,
    limits: Limits,
) -> None:
    """Blocks of `utility` and `utility_per_action`, those of them that the stage's gates name."""
    metrics = {gate.metric for gate in stage.gates} & {"utility", "utility_per_action"}
    if not metrics:
        return
    cursor = poll.cursor
    shipped = store.read_mark(db, store.SHIPPED_THROUGH)
    watermark = store.watermark(db)
    feed_s = 2 * maturity_s + 5 if limits.feed_s is None else limits.feed_s
    if watermark is None or now - watermark > feed_s:
        stands = "has never been set" if watermark is None else f"is {now - watermark:.1f} s old"
        why = f"the outcome feed's watermark {stands} (at most {feed_s:g} s)"
        poll.missing.update(dict.fromkeys(metrics, why))
        return
    # The watermark is in the time of outcomes: a decision is complete once its outcome could have come by
    # then.
    through = min(min(now, watermark) - maturity_s, now if shipped is None else shipped)
    window = queries.first_decisions(
        db,
        since=record.created_at,
        settled_at=cursor.settled_at,
        after=cursor.decided_through,
        through=through,
        limit=LIMIT,
    )
    try:
        amounts = measured_values(db, [unit.decision_id for unit in window.rows], names=utility.hidden)
        found = realise(window.rows, utility, amounts=amounts)
    except UtilityError as error:
        poll.missing.update(dict.fromkeys(metrics, f"a decision cannot be priced: {error}"))
        return
    needed, unresolved = found.counts(found.needed), found.counts(found.unresolved)
    needed = {name: cursor.needed.get(name, 0) + needed[name] for name in VARIANTS}
    unresolved = {name: cursor.unresolved.get(name, 0) + unresolved[name] for name in VARIANTS}
    why = _unresolved_fault(needed, unresolved)
    if why:
        poll.missing.update(dict.fromkeys(metrics, why))
        return
    compared = None
    if "utility" in metrics and _compares_where_they_differ(stage) and not cursor.skew:
        try:
            compared = _compare(window.rows, disagreement)
        except DisagreementError as error:
            poll.missing.update(dict.fromkeys(metrics, str(error)))
            return
        cursor = replace(cursor, unscored=cursor.unscored + compared.unscored, skew=compared.skew)
    poll.cursor = replace(
        cursor,
        decided_through=max(cursor.decided_through, window.through),
        needed=needed,
        unresolved=unresolved,
    )
    if "utility_per_action" in metrics:
        pairs = np.column_stack([found.earned, found.has_acted.astype(np.float64)])
        poll.blocks["utility_per_action"] = RatioBlock(*found.arms(pairs))
    if "utility" in metrics and cursor.skew:
        poll.missing["utility"] = cursor.skew
    elif "utility" in metrics:
        poll.blocks["utility"] = _utility_block(found, compared)


def _compares_where_they_differ(stage: Stage) -> bool:
    return any(gate.metric == "utility" and gate.where == "disagreement" for gate in stage.gates)


def _compare(units: Sequence[DecidedUnit], disagreement: Disagreement | None) -> Compared:
    if disagreement is None:
        raise DisagreementError("'where: disagreement' needs both releases, and none were given")
    return disagreement.compare(units)


def _utility_block(found: Realised, compared: Compared | None) -> UtilityBlock:
    """Full payoffs; or, where the releases were compared, those where they differ, with the full ones behind them."""
    plain = UtilityBlock(*found.arms(found.earned))
    if compared is None:
        return plain
    return UtilityBlock(*found.arms(np.where(compared.agrees, 0.0, found.earned)), plain=plain)


def _unresolved_fault(needed: Mapping[str, int], unresolved: Mapping[str, int]) -> str:
    """Whether too many matured decisions lack their outcome: of both arms together, or clearly of one."""
    arms = [("both arms", sum(needed.values()), sum(unresolved.values()))]
    for name in VARIANTS:
        if unresolved[name] >= _UNRESOLVED_IN_ONE_ARM:
            arms.append((name, needed[name], unresolved[name]))
    for name, total, without in arms:
        if without > UNRESOLVED_SHARE * total:
            share = f"{without} of {total} matured decisions of {name}"
            return f"{share} have no outcome (at most {UNRESOLVED_SHARE:.0%})"
    return ""

"""Gathers one poll's evidence of the shadow stage: the same requests decided by both releases, paired.

The shadow sees what needs no outcome: errors, how often the candidate acts and disagrees, how that differs
between groups, how long it takes. Users get the champion's answers throughout. Blocks name the candidate
"canary".
Source: design.md section 6. Must never import: sqlalchemy, flows.
"""

from collections.abc import Sequence
from dataclasses import replace

from policies.gates.evidence import CountBlock, PollEvidence
from policies.rollout.rollout_policy import RolloutPolicy, Stage
from policies.utility.utility import UtilitySpec
from services.store import decisions as store
from services.store import evidence as queries
from services.store.database import Database
from services.store.evidence import ShadowPair
from services.store.rollouts import RolloutRecord
from services.telemetry.actions import NoGroups, count_groups
from services.telemetry.cursor import Cursor
from services.telemetry.evidence import add_host_evidence, read_hosts, slow_budget_ms
from services.telemetry.poll import DEFAULT_LIMITS, LIMIT, Admin, Limits, Poll, shipping_fault

PAIR_WAIT_S = 1.0
"""How much later than the user's answer the shadow's may be logged and still be paired."""


def gather_shadow(
    db: Database,
    admin: Admin,
    *,
    record: RolloutRecord,
    policy: RolloutPolicy,
    utility: UtilitySpec,
    stage: Stage,
    settled_at: float,
    now: float,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[PollEvidence, dict[str, object]]:
    """Evidence of the shadow stage since `record.cursors`, and the cursors to save with it.

    `settled_at`: when the mirror was read back as on, epoch s. `policy` is taken for symmetry with `gather`.
    """
    poll = Poll(Cursor.for_stage(record.cursors, stage.name, settled_at), {}, {}, [])
    metrics = {gate.metric for gate in stage.gates}
    hosts = read_hosts(admin, poll, metrics, now=now)
    if hosts is None:
        return poll.evidence(now, 0.0)
    add_host_evidence(poll, hosts, "shadow", stage, now=now, limits=limits, has_rival=True)
    lag = shipping_fault(db, now=now, limits=limits)
    if lag:
        poll.missing.update(dict.fromkeys(metrics - set(poll.blocks), lag))
        return poll.evidence(now, 0.0)
    shipped = store.read_mark(db, store.SHIPPED_THROUGH)
    window = queries.shadow_pairs(
        db,
        since=record.created_at,
        settled_at=poll.cursor.settled_at,
        after=poll.cursor.decided_through,
        through=(now if shipped is None else shipped) - PAIR_WAIT_S,
        limit=LIMIT,
        candidate=record.candidate,
    )
    poll.cursor = replace(poll.cursor, decided_through=max(poll.cursor.decided_through, window.through))
    _add_pairs(poll, window.rows, metrics, stage=stage, utility=utility)
    return poll.evidence(now, 0.0)


def _add_pairs(
    poll: Poll, pairs: Sequence[ShadowPair], metrics: set[str], *, stage: Stage, utility: UtilitySpec
) -> None:
    n = len(pairs)
    default = utility.default_action
    if "disagreement" in metrics:
        poll.blocks["disagreement"] = CountBlock(sum(p.action != p.shadow_action for p in pairs), n)
    if "action_rate" in metrics:
        acted = sum(p.shadow_action != default for p in pairs)
        poll.blocks["action_rate"] = CountBlock(acted, n, sum(p.action != default for p in pairs), n)
    budget_ms = slow_budget_ms(stage)
    if budget_ms is not None:
        slow = sum(p.shadow_took_ms > budget_ms for p in pairs)
        poll.blocks["slow_share"] = CountBlock(slow, n, sum(p.took_ms > budget_ms for p in pairs), n)
    if "call_rate_gap" in metrics:
        try:
            poll.blocks["call_rate_gap"] = count_groups(
                [pair.row for pair in pairs], [pair.shadow_action for pair in pairs], utility
            )
        except NoGroups as error:
            poll.missing["call_rate_gap"] = str(error)

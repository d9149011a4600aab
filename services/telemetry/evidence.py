"""Gathers one poll's evidence for the gates: what is new since the cursor, by assigned variant, each unit
once.

Rules (gates.md, semantics 6 to 9): a unit's first delivered decision since the rollout began, by ASSIGNED
variant, never a shadow one; only decisions taken while the stage's weight was in force; only matured ones:
older than `maturity_s`, passed by the outcome feed's watermark and by the shipper, for every action alike.
What a source cannot give is named in `missing` with its reason, and is not consumed: when the source is
back, it counts then. What rests on outcomes is gathered in matured.py, what people were given in actions.py.
Nothing is written: the caller saves the new cursors with the gates' state, in one
`rollouts.save`.
Must never import: sqlalchemy, flows.
"""

from collections.abc import Mapping
from dataclasses import replace

from policies.gates.evidence import SAMPLE_RATIO, AssignmentBlock, CountBlock, PollEvidence
from policies.rollout.rollout_policy import RolloutPolicy, Stage
from policies.utility.utility import UtilitySpec
from services.store import evidence as queries
from services.store.database import Database
from services.store.rollouts import RolloutRecord
from services.telemetry.actions import add_actions
from services.telemetry.cursor import Cursor
from services.telemetry.disagreement import Disagreement
from services.telemetry.host_counters import alarm, difference, sickness
from services.telemetry.matured import add_matured
from services.telemetry.poll import DEFAULT_LIMITS, LIMIT, VARIANTS, Admin, Limits, Poll, shipping_fault
from services.traffic.admin import Host
from services.traffic.errors import TrafficError

_WEIGHT_TOLERANCE_PCT = 0.02  # the proxy's weights are hundredths of a percent


def gather(
    db: Database,
    admin: Admin,
    *,
    record: RolloutRecord,
    policy: RolloutPolicy,
    utility: UtilitySpec,
    stage: Stage,
    settled_at: float,
    now: float,
    disagreement: Disagreement | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[PollEvidence, dict[str, object]]:
    """Evidence of a canary or probation stage since `record.cursors`, and the cursors to save with it.

    `settled_at`: when the stage's weight (or, in probation, the repointed endpoints) was read back, epoch s.
    `disagreement`: both releases; without them a gate that compares where they differ has no evidence.
    In probation all users are answered by the new release, so its half of every block is that of all units.
    """
    poll = Poll(Cursor.for_stage(record.cursors, stage.name, settled_at), {}, {}, [])
    is_canary = stage.kind == "canary"
    weight_pct = stage.weight_pct or 0.0
    metrics = {gate.metric for gate in stage.gates}
    if is_canary:
        metrics.add(SAMPLE_RATIO)
    hosts = read_hosts(admin, poll, metrics, now=now)
    if hosts is not None:
        candidate = "canary" if is_canary else "stable"
        add_host_evidence(poll, hosts, candidate, stage, now=now, limits=limits, has_rival=is_canary)
        weight_pct = _check_weight(admin, poll, stage, metrics, now=now)
    if poll.missing:
        return poll.evidence(now, weight_pct)
    lag = shipping_fault(db, now=now, limits=limits)
    if lag:
        poll.missing.update(dict.fromkeys(metrics - set(poll.blocks), lag))
        return poll.evidence(now, weight_pct)
    _add_requests(db, poll, stage, metrics, record=record, weight_pct=weight_pct)
    if is_canary:
        add_actions(db, poll, metrics, record=record, utility=utility)
        add_matured(
            db,
            poll,
            stage,
            record=record,
            maturity_s=policy.maturity_s,
            utility=utility,
            disagreement=disagreement,
            now=now,
            limits=limits,
        )
    return poll.evidence(now, weight_pct)


def read_hosts(
    admin: Admin, poll: Poll, metrics: set[str], *, now: float
) -> Mapping[str, tuple[Host, ...]] | None:
    """The proxy's clusters; None when it does not answer, which then is why everything is missing."""
    try:
        return admin.endpoints()
    except TrafficError as error:
        poll.discard(metrics, f"the proxy does not answer: {error}", now=now)
        return None


def add_host_evidence(
    poll: Poll,
    clusters: Mapping[str, tuple[Host, ...]],
    candidate: str,
    stage: Stage,
    *,
    now: float,
    limits: Limits,
    has_rival: bool,
) -> None:
    """Failed requests of the candidate's hosts (and, beside it, of stable's), and the alarm when it is shut
    out.

    In the cluster `stable` the candidate is the host of the first priority; the old release stands behind it.
    """
    own = clusters.get(candidate, ())
    if candidate == "stable":
        own = tuple(host for host in own if host.priority == 0)
    rival = clusters.get("stable", ()) if has_rival else ()
    mine, totals = difference(poll.cursor.hosts, candidate, own)
    theirs, rival_totals = difference(poll.cursor.hosts, "stable", rival)
    gates = [gate for gate in stage.gates if gate.metric == "canary_errors"]
    if gates:
        block = CountBlock(mine.errors, mine.requests, theirs.errors, theirs.requests)
        if not poll.cursor.has_baseline:
            # The first poll of a stage spans the change of weight: its counts cannot be compared between the arms, but
            # the candidate's own failures are its own at any weight, and a canary is ejected within a few of them.
            has_rival_gate = any(gate.compare_to == "champion" for gate in gates)
            block = CountBlock(0, 0) if has_rival_gate else CountBlock(mine.errors, mine.requests)
        poll.blocks["canary_errors"] = block
    sick = sickness(own)
    since = (poll.cursor.sick_since if poll.cursor.sick_since is not None else now) if sick else None
    found = alarm(sick, since, now=now, after_s=limits.eject_after_s)
    if found is not None:
        poll.alarms.append(found)
    poll.cursor = replace(poll.cursor, sick_since=since)
    if gates:  # a stage that judges no failures leaves them to the next one
        # The canary's are held from the shadow stage on: what is excused counts from there.
        _, waiting = difference(poll.cursor.hosts, "canary", clusters.get("canary", ()))
        poll.cursor = replace(poll.cursor, hosts={**waiting, **totals, **rival_totals}, has_baseline=True)


def _check_weight(admin: Admin, poll: Poll, stage: Stage, metrics: set[str], *, now: float) -> float:
    """The weight in force. If it is not the stage's, this poll is discarded and evidence starts anew from
    now."""
    wanted = stage.weight_pct if stage.kind == "canary" and stage.weight_pct is not None else None
    try:
        weight_pct = admin.weight_pct()
        why = f"the canary's weight is {weight_pct:g} %, not {wanted:g} %" if wanted is not None else ""
        is_right = wanted is None or abs(weight_pct - wanted) <= _WEIGHT_TOLERANCE_PCT
    except TrafficError as error:
        weight_pct, is_right, why = stage.weight_pct or 0.0, False, f"the weight cannot be read back: {error}"
    if not is_right:
        poll.discard(metrics, why, now=now)
    return weight_pct


def _add_requests(
    db: Database, poll: Poll, stage: Stage, metrics: set[str], *, record: RolloutRecord, weight_pct: float
) -> None:
    """Sample ratio and share of slow requests, over units whose first request is new."""
    cursor = poll.cursor
    found, seq = queries.first_requests(
        db,
        since=record.created_at,
        settled_at=cursor.settled_at,
        after_seq=cursor.requests_seq,
        limit=LIMIT,
    )
    poll.cursor = replace(cursor, requests_seq=seq)
    by_variant = {name: [one for one in found if one.assigned == name] for name in VARIANTS}
    if stage.kind == "canary":
        sizes = {name: len(by_variant[name]) for name in VARIANTS}
        poll.blocks[SAMPLE_RATIO] = AssignmentBlock(sizes["canary"], sizes["stable"], weight_pct)
    else:
        by_variant = {"canary": list(found), "stable": []}
    budget_ms = slow_budget_ms(stage)
    if budget_ms is not None:
        slow = {name: sum(one.duration_ms > budget_ms for one in by_variant[name]) for name in VARIANTS}
        poll.blocks["slow_share"] = CountBlock(
            slow["canary"], len(by_variant["canary"]), slow["stable"], len(by_variant["stable"])
        )


def slow_budget_ms(stage: Stage) -> float | None:
    """The latency budget of the stage's gates on `slow_share` (a policy has one); None without such a
    gate."""
    budgets = [gate.budget_ms for gate in stage.gates if gate.metric == "slow_share"]
    return budgets[0] if budgets else None

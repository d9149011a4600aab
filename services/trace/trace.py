"""Everything behind one decision, gathered from the store, the ledger and the release: who, why, by what, who agreed,
and what came of it.

What cannot be told is said with its reason, never left out. The unit's id is given hashed, with the home's own key:
equal units stay equal, and nobody without the key can try ids out.
Must never import: sqlalchemy, Prefect, torch, bentoml.
"""

from __future__ import annotations

import hmac
import json

import orjson

from policies.language.yaml_source import PolicyError
from policies.rollout.rollout_policy import load_rollout
from policies.rollout.verdict import Verdict
from policies.utility.utility import UtilitySpec
from services.control.switch import switched_off
from services.home import Home
from services.ledger.ledger import LedgerEntry, entries, verify
from services.serving.log_mask import load_or_create_key
from services.serving.release import Release, ReleaseError, find_release
from services.signing.keys import SignatureError
from services.signing.release_signature import verify_in_home
from services.store import rollouts
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.rollouts import RolloutRecord
from services.store.traced_decision import StoredDecision, stage_at
from services.trace.assignment import Assignment, WeightChange, explain_assignment
from services.trace.offline_verdicts import offline_verdicts
from services.trace.recomputed import NotRecomputed, Recomputed, ReleaseReader
from services.trace.traced import ActionValue, JudgedStage, PersonsWord, Trace, TracedRollout
from services.trace.what_came import find_decision, realise

_BY_PEOPLE = ("order", "order_refused", "kill", "frozen", "throttle")
_NOT_KNOWN = "(not shown: the contract that says which fields are sensitive cannot be read)"


def trace_decision(db: Database, home: Home, decision_id: str) -> Trace:
    """Gather it, from the archive where retention has taken it out of the store.

    Raises UnknownDecision, PolicyError where this version no longer reads a frozen policy.
    """
    found = find_decision(db, home, decision_id)
    row = found.row
    release, trouble = _release(home, row.release)
    reader, recomputed, why = _recomputed(release, row, trouble)
    records = _records(db, row.release.rpartition("-")[0])
    then = _under_way(records, row.at)
    came = next((one for one in records if one.candidate == row.release and one.created_at <= row.at), None)
    rollout = None if then is None else _rollout(db, home, then, at=row.at)
    logged = orjson.loads(row.row)
    spec = None if reader is None else reader.utility
    return Trace(
        decision=row,
        unit_hash=None if row.unit is None else _hashed(home, row.unit),
        request=found.request,
        others=found.others,
        assignment=_assignment(found, then, rollout),
        row=dict.fromkeys(logged, _NOT_KNOWN) if reader is None else reader.shown_row(logged),
        unit="" if spec is None else spec.unit,
        outcomes=() if spec is None else spec.outcomes,
        actions=_actions(row, spec, recomputed),
        recomputed=recomputed,
        not_recomputed=why,
        release=release,
        release_trouble=trouble,
        signed=_signed(home, release),
        made_by=_making(db, home, release),
        switched_off=switched_off(db, row.release.rpartition("-")[0], at=row.at),
        rollout=rollout,
        came_by=None if came is None or came is then else _rollout(db, home, came, at=row.at),
        realised=realise(db, home, found, spec),
        ledger=verify(db),
    )


def _release(home: Home, name: str) -> tuple[Release | None, str]:
    try:
        return find_release(home.releases, name), ""
    except (ReleaseError, OSError) as error:
        return None, str(error)


def _signed(home: Home, release: Release | None) -> str:
    if release is None:
        return ""
    try:
        key = verify_in_home(release, home)
    except (SignatureError, OSError) as error:
        return f"by nobody who is trusted here: {error}"
    return f"by {key.name}, key {key.keyid}"


def _recomputed(
    release: Release | None, row: DecisionRow, trouble: str
) -> tuple[ReleaseReader | None, Recomputed | None, str]:
    if release is None:
        return None, None, f"its release cannot be read: {trouble}"
    reader = None
    try:
        reader = ReleaseReader(release)
        return reader, reader.decide_again(row), ""
    except NotRecomputed as error:
        return reader, None, str(error)


def _records(db: Database, service: str) -> tuple[RolloutRecord, ...]:
    return rollouts.recent(db, service, limit=100_000)


def _under_way(records: tuple[RolloutRecord, ...], at: float) -> RolloutRecord | None:
    return next(
        (one for one in records if one.created_at <= at and (one.ended_at is None or at <= one.ended_at)),
        None,
    )


def _rollout(db: Database, home: Home, record: RolloutRecord, *, at: float) -> TracedRollout:
    own = entries(db, record.id)
    state = record.state.get("state")
    return TracedRollout(
        id=record.id,
        champion=record.champion,
        candidate=record.candidate,
        stage=stage_at(db, record.id, at),
        began_at=record.created_at,
        ended_at=record.ended_at,
        phase=str(state.get("phase")) if isinstance(state, dict) else "",
        policy_digest=load_rollout(record.policy_text, f"{record.id}/rollout.yaml").digest,
        weights=tuple(
            _weight(entry)
            for entry in own
            if entry.kind == "effect" and entry.body.get("action") == "set_weight"
        ),
        stages=tuple(
            _stage(home, entry) for entry in own if entry.kind == "verdict" and "report" in entry.body
        ),
        people=tuple(_word(entry) for entry in own if entry.kind in _BY_PEOPLE),
    )


def _weight(entry: LedgerEntry) -> WeightChange:
    seen = entry.body.get("read_back")
    return WeightChange(entry.at, float(str(seen["weight_pct"])) if isinstance(seen, dict) else 0.0)


def _stage(home: Home, entry: LedgerEntry) -> JudgedStage:
    stored = entry.body["verdict"]
    verdict = Verdict.from_json(stored if isinstance(stored, dict) else {})
    return _judged(home, verdict, entry.seq, str(entry.body["report"]))


def _judged(home: Home, verdict: Verdict, entry: int, report: str | None) -> JudgedStage:
    file = None if report is None else home.root / report
    return JudgedStage(
        verdict, entry, None if file is None else str(file), file is not None and file.is_file()
    )


def _making(db: Database, home: Home, release: Release | None) -> tuple[JudgedStage, ...]:
    """The verdicts of the stages that the release came from."""
    if release is None:
        return ()
    try:
        file = release.folder / "rollout.yaml"
        policy = load_rollout(file.read_text(encoding="utf-8"), str(file))
    except PolicyError:
        return ()
    found = offline_verdicts(db, candidate=release.id, policy=policy)
    return tuple(_judged(home, one.recorded, one.entry, one.report) for one in found)


def _word(entry: LedgerEntry) -> PersonsWord:
    body = entry.body
    verb = str(body.get("verb") or entry.kind)
    reason = str(body.get("reason") or body.get("why") or "")
    refused = f"; refused: {body.get('why')}" if entry.kind == "order_refused" else ""
    return PersonsWord(
        entry.seq, entry.kind, entry.at, str(body.get("by") or ""), f"{verb}: {reason}{refused}"
    )


def _assignment(
    found: StoredDecision, then: RolloutRecord | None, rollout: TracedRollout | None
) -> Assignment:
    row = found.row
    assigned = explain_assignment(
        row.assigned,
        unit=row.unit,
        salt=None if then is None else then.salt,
        at=row.at if found.request is None else found.request.at,
        weights=() if rollout is None else rollout.weights,
    )
    notes = []
    if row.shadow:
        notes.append(
            "this is the shadow's decision: the request was mirrored to it, and nobody was given its answer"
        )
    elif rollout is not None and row.assigned != "canary" and row.release == rollout.candidate:
        notes.append("the candidate was stable by then")
    if row.attempt > 1:
        notes.append(f"answered at attempt {row.attempt}, because the attempt before failed")
    later = [one for one in found.others if not one.shadow and one.attempt > row.attempt]
    if later and not row.shadow:
        notes.append(
            f"not what the user was given: attempt {later[-1].attempt} answered ({later[-1].release})"
        )
    why = "; ".join([assigned.why, *notes])
    return Assignment(**{**vars(assigned), "why": why})


def _actions(
    row: DecisionRow, spec: UtilitySpec | None, recomputed: Recomputed | None
) -> tuple[ActionValue, ...]:
    expected = orjson.loads(row.expected_utility)
    off = () if row.gated is None else tuple(json.loads(row.gated)["off"])
    if spec is None or not isinstance(expected, list) or len(expected) != len(spec.actions):
        return ()
    return tuple(
        ActionValue(
            name,
            float(expected[at]),
            None if recomputed is None else recomputed.priced[at],
            name == row.action,
            name in off,
        )
        for at, name in enumerate(spec.actions)
    )


def _hashed(home: Home, unit: str) -> str:
    digest = hmac.digest(load_or_create_key(home.log_key_file), f"unit:{unit}".encode(), "sha256")
    return f"hmac-sha256:{digest.hex()[:32]}"

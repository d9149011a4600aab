"""Puts a new rollout on record, with the rules that it will be judged by frozen. Nothing is done to the world yet.

Must never import Prefect.
"""

from __future__ import annotations

import secrets

from policies.gates.gates import GateBook
from policies.rollout.rollout import initial
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility
from services.ledger.ledger import append, latest
from services.rollout.effects import World
from services.rollout.frozen_rules import file_digests
from services.rollout.record_forms import state_json
from services.store import rollouts
from services.store.rollouts import RolloutRecord


class ChampionReplaced(RuntimeError):
    """The release to be challenged does not serve (any more); nothing was started."""


def begin_rollout(
    world: World, *, service: str, champion: str, candidate: str, policy_text: str, utility_text: str
) -> RolloutRecord:
    """Put a new rollout on record with its rules frozen. Raises RolloutExists, ChampionReplaced."""
    now = world.clock()
    slots = world.traffic.read_slots()
    if slots is None or slots.stable[0] != champion:
        serves = "no release" if slots is None else slots.stable[0]
        raise ChampionReplaced(f"'champion' must be the release that serves all users, {serves}: {champion}")
    policy = load_rollout(policy_text, "rollout.yaml")
    utility = load_utility(utility_text, "utility.yaml")
    state, steps = initial(policy, now)
    book = GateBook.start(policy, payoff_range=utility.range)
    book.enter_stage(state.stage)
    with world.moment("begin record"):
        record = rollouts.create(
            world.db,
            RolloutRecord(
                id=f"{service}-{secrets.token_hex(4)}",
                service=service,
                champion=champion,
                candidate=candidate,
                policy_text=policy_text,
                utility_text=utility_text,
                salt=secrets.token_hex(8),
                state=state_json(state, steps),
                gates=book.to_json(),
                cursors={},
                weight_pct=0.0,
                version=0,
                created_at=now,
                updated_at=now,
            ),
        )
    note_start(world, record)
    return record


def note_start(world: World, record: RolloutRecord) -> None:
    """Say on the ledger that this rollout began, by which rules and against whom, unless it stands there already."""
    if latest(world.db, record.id, "rollout_started") is not None:
        return
    folder = None if world.policies is None else world.policies / record.service
    body = {
        "champion": record.champion,
        "candidate": record.candidate,
        "policy": load_rollout(record.policy_text, f"{record.id}/rollout.yaml").digest,
        "utility": load_utility(record.utility_text, f"{record.id}/utility.yaml").digest,
        "salt": record.salt,
        "policy_files": file_digests(folder),
    }
    with world.moment("begin ledger"):
        append(
            world.db,
            "rollout_started",
            body,
            service=record.service,
            rollout_id=record.id,
            at=record.created_at,
        )

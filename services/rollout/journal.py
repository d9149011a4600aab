"""What a conductor puts on record of its rollout: ledger entries, and the rollout's row in the store.

Rule 1: every write stands between two moments (`World.moment`), so that a rehearsal can kill the conductor at each.
Rule 2: what a successor would say again after a crash (an order, an end) stands on the ledger once.
Must never import Prefect.
"""

from __future__ import annotations

from dataclasses import replace

from policies.gates.gates import GateBook
from policies.rollout.rollout import RolloutState, Step
from policies.rollout.verdict import Verdict
from services.ledger.ledger import append, latest
from services.rollout.effects import World
from services.rollout.frozen_rules import RULES_DIFFER, difference_on_record, differing_files
from services.rollout.record_forms import place_of, read_state, state_json
from services.store import rollouts
from services.store.json_text import JsonObject
from services.store.orders import Order
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord


class Journal:
    """The record of one rollout; `record` is the row as last saved."""

    def __init__(self, world: World, record: RolloutRecord) -> None:
        self._world = world
        self.record = record
        self._last_note: tuple[str, str] | None = None
        self._rules_differ = difference_on_record(world.db, record.id)

    def enter(self, kind: str, body: JsonObject, at: float) -> None:
        """Append to the ledger."""
        with self._world.moment(f"{self.where} ledger {kind}"):
            append(
                self._world.db,
                kind,
                body,
                service=self.record.service,
                rollout_id=self.record.id,
                at=at,
            )

    def enter_order(self, kind: str, given: Order, at: float, *, why: str | None = None) -> float:
        """Say what became of an order, unless a conductor that died has said so already; when it was said, epoch s."""
        said = latest(self._world.db, self.record.id, kind)
        if said is not None and said.body.get("order") == given.id:
            return said.at
        body: JsonObject = {"order": given.id, "verb": given.verb, "by": given.by, "reason": given.reason}
        self.enter(kind, body if why is None else {**body, "why": why}, at)
        return at

    def enter_end(self, phase: str, at: float) -> None:
        """Say that the rollout has ended, once."""
        if latest(self._world.db, self.record.id, "rollout_ended") is None:
            self.enter("rollout_ended", {"phase": phase}, at)

    def note(self, verdict: Verdict) -> None:
        """A hold is put on the ledger when its reason changes, not at every poll."""
        note = (verdict.stage, verdict.reason.value)
        if note != self._last_note:
            self._last_note = note
            self.enter("verdict", {"verdict": verdict.to_json()}, verdict.at)

    def mind_the_rules(self, at: float) -> None:
        """Say on the ledger when a policy file is no longer what it was at the start, and when it is again."""
        found = differing_files(self._world.db, self.record.id)
        if found != self._rules_differ:
            self._rules_differ = found
            self.enter(RULES_DIFFER, {"files": found, "rules": "those frozen at the start"}, at)

    def save(
        self,
        state: RolloutState,
        pending: tuple[Step, ...],
        book: GateBook,
        cursors: JsonObject,
        *,
        ended_at: float | None = None,
        poll: JudgedPoll | None = None,
        taken_order: int | None = None,
    ) -> None:
        """State, steps still to do, gates, cursors, the poll's evidence and the order taken: all of it or nothing.

        Raises StaleRollout.
        """
        fresh = replace(
            self.record,
            state=state_json(state, pending),
            gates=book.to_json(),
            cursors=cursors,
            ended_at=ended_at,
        )
        before, _ = read_state(self.record.state)
        is_moved = (state.phase, state.stage) != (before.phase, before.stage)
        with self._world.moment(f"{self.where} save{' transition' if is_moved else ''}"):
            self.record = rollouts.save(
                self._world.db, fresh, at=self._world.clock(), poll=poll, taken_order=taken_order
            )

    def weigh(self, weight_pct: float) -> None:
        """The canary's weight as read back; saved with what is saved next."""
        self.record = replace(self.record, weight_pct=weight_pct)

    @property
    def where(self) -> str:
        """The place of a moment: the step that is to be done next, or the stage that is polled."""
        return place_of(self.record.state)

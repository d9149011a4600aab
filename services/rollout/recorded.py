"""A rollout as it stands on record: its frozen policy, its utility spec, and every poll that judged it.

Must never import Prefect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from policies.gates.evidence import PollEvidence
from policies.gates.history import LoggedPoll
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, ReasonCode
from policies.utility.utility import UtilitySpec, load_utility
from services.store import poll_evidence, rollouts
from services.store.database import Database
from services.store.poll_evidence import JudgedPoll
from services.store.rollouts import RolloutRecord


@dataclass(frozen=True)
class RecordedPolls(Collection[LoggedPoll]):
    """A rollout's polls in order, read from the store anew each time: a week of them need not fit into memory."""

    db: Database
    rollout_id: str

    def __iter__(self) -> Iterator[LoggedPoll]:
        return (_logged(poll) for poll in poll_evidence.of_rollout(self.db, self.rollout_id))

    def __len__(self) -> int:
        return poll_evidence.size_of(self.db, self.rollout_id)[0]

    def __contains__(self, poll: object) -> bool:
        return any(poll == one for one in self)


@dataclass(frozen=True, eq=False)
class RecordedRollout:
    """A rollout's record with its rules read, and its polls."""

    record: RolloutRecord
    policy: RolloutPolicy
    utility: UtilitySpec
    polls: RecordedPolls


def recorded_rollout(db: Database, rollout_id: str) -> RecordedRollout:
    """Read it. Raises UnknownRollout, and PolicyError where this version no longer reads the frozen policy."""
    record = rollouts.load(db, rollout_id)
    return RecordedRollout(
        record,
        load_rollout(record.policy_text, f"{record.id}/rollout.yaml"),
        load_utility(record.utility_text, f"{record.id}/utility.yaml"),
        RecordedPolls(db, rollout_id),
    )


def _logged(poll: JudgedPoll) -> LoggedPoll:
    return LoggedPoll(
        stage=poll.stage,
        entered_at=poll.entered_at,
        evidence=PollEvidence.from_json(poll.evidence),
        extended=poll.extended,
        held=poll.held,
        decision=Decision(poll.decision),
        reason=ReasonCode(poll.reason),
    )

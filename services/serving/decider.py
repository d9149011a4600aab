"""Decides the rows of one request: check, score, choose, log, and only then answer.

The order is the promise: what was answered is in the decision log. What could not be logged is not answered where
another release still can (the canary's first try); stable answers it with `logged: false`, and counts it.
Clock, timer and ids are arguments. Must never import bentoml or torch; the HTTP edge is decide_endpoint.py.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.operating.operating_point import OperatingPoint
from services.data.contract import DataContract, load_contract
from services.serving.decision_log import (
    DecisionLog,
    DecisionLogError,
    Gated,
    RowFields,
    SharedFields,
    as_line,
)
from services.serving.explanation import Explainer, Explanation
from services.serving.fault import Fault
from services.serving.log_mask import LogMask
from services.serving.many_rows import ManyRows
from services.serving.release import Release
from services.serving.request_mark import RequestMark
from services.serving.row_check import MANY_ROWS, MAX_ROWS, Columns, RowCheck
from services.serving.scorer import Decisions, Scorer, ScorerError
from services.serving.single_row import SingleRow
from services.serving.switches import Gate, Switches

WARM_UP_ROUNDS = 20

LOGGER = logging.getLogger("trimtab.serving")


@dataclass(frozen=True)
class Stamps:
    """Where times and ids come from: `clock` epoch seconds, `timer_ms` monotonic milliseconds, fresh ids."""

    clock: Callable[[], float]
    timer_ms: Callable[[], float]
    new_id: Callable[[], str]


class Decider:
    """One release, ready to decide; `log` gets every decision before its caller does."""

    def __init__(
        self,
        release: Release,
        *,
        log: DecisionLog,
        stamps: Stamps,
        fault: Fault | None = None,
        switches_file: Path | None = None,
        log_key_file: Path | None = None,
    ) -> None:
        contract_file = release.folder / "contract.yaml"
        contract = load_contract(contract_file.read_text(encoding="utf-8"), str(contract_file))
        self.release_id = release.id
        self.stamps = stamps
        self._scorer = Scorer.load(release)
        self._single = SingleRow.of(self._scorer)
        self._check = RowCheck(contract.columns, payoff_fields=self._scorer.needed_fields)
        self._contract = contract
        self._log = log
        mask = LogMask(contract.columns, log_key_file)
        self._mask = None if mask.hides_nothing else mask
        self._fault = fault
        self._operating_point = _shown(self._scorer.operating_point)
        self._switches = Switches(
            switches_file,
            actions=self._scorer.utility.actions,
            default_action=self._scorer.operating_point.default_action,
            timer_ms=stamps.timer_ms,
        )
        self._explainer = Explainer(self._scorer, unnamed={c.name for c in contract.columns if c.sensitive})

    def show_switches(self) -> dict[str, object]:
        """Which actions are off in this process now; `entry` None: its file could not be read since it started."""
        gate, known = self._switches.gate(), self._switches.known
        return {
            "release": self.release_id,
            "off": [] if gate is None else list(gate.off),
            "entry": None if known is None else known.entry,
        }

    def warm_up(self) -> None:
        """Decide made-up rows, one and many at a time, without logging them.

        Raises: ScorerError when not one of the made-up rows can be decided: then no real row may be tried;
        ReleaseError when its default action is switched off.
        """
        self._switches.start()
        row = self._row_that_can_be_decided()
        for size in (*(1,) * WARM_UP_ROUNDS, MAX_ROWS):
            self._scorer.decide(self._check.to_columns([row] * size))
        if self._single is not None and not self._agrees(self._single):
            LOGGER.warning(
                "event=single_row_differs release=%s: every row goes by the reference", self.release_id
            )
            self._single = None

    def _agrees(self, single: SingleRow) -> bool:
        """Whether single rows are decided to the last bit as by the Scorer: made-up rows, of which some cannot be."""
        for number in range(WARM_UP_ROUNDS + 1):
            row = sample_row(self._contract, share=number / WARM_UP_ROUNDS)
            with suppress(ScorerError):
                if not single.agrees(row, self._check.to_columns([row])):
                    return False
        return True

    def _row_that_can_be_decided(self) -> dict[str, object]:
        # A payoff such as log(amount) has no price at amount = 0, so one made-up row is not proof of a fault.
        failure: ScorerError | None = None
        for share in (0.5, 0.0, 1.0):
            row = sample_row(self._contract, share=share)
            try:
                self._scorer.decide(self._check.to_columns([row]))
            except ScorerError as error:
                failure = error
            else:
                return row
        raise ScorerError(f"no made-up row can be decided: {failure}") from failure

    async def decide(
        self, mark: RequestMark, rows: Sequence[object], *, is_explained: bool = False
    ) -> list[dict[str, object]] | orjson.Fragment:
        """Decide, log and return one answer per row (1 to 1000 rows), with its explanation where asked for.

        The answers are a list; of MANY_ROWS and more, with no action off and not explained, they are that list's JSON
        (many_rows.py). A shadow's answer has no reader, so it is not explained. `took_ms` of the log is without the
        explaining.

        Raises: RowRefused, ScorerError, InjectedFault, and DecisionLogError where `mark` says that it may.
        """
        started_ms = self.stamps.timer_ms()
        gate = self._switches.gate()
        # A drill is about what users feel, so it spares the shadow.
        fault = None if mark.is_shadow else self._fault
        is_plain = gate is None and fault is None and not is_explained
        decisions = self._of_single(rows) if is_plain else None
        columns: Columns = {}
        if decisions is None:
            columns = self._check.columns(rows)
            if fault is not None:
                await fault.misbehave()
            probabilities = self._scorer.probabilities(columns)
            if fault is not None:
                probabilities = fault.spoil(probabilities)
            decisions = self._scorer.choose(
                columns, probabilities, allowed=None if gate is None else gate.allowed
            )
            if fault is not None:
                decisions = replace(decisions, actions=fault.misdirect(decisions.actions))
        gated = self._gated(gate, columns, decisions)
        shared = self._shared(mark, took_ms=self.stamps.timer_ms() - started_ms)
        if gate is None and not is_explained and len(rows) >= MANY_ROWS:
            return self._answer_many(mark, rows, decisions, shared)
        decided = self._decided(rows, decisions, gated)
        explanations: list[Explanation] = []
        if is_explained and not mark.is_shadow:
            for explanation in self._explainer.explain(rows, columns, decisions):
                explanations.append(explanation)
                await asyncio.sleep(0)  # whoever asks for no explanation waits for one row's at most
        is_logged = self._write(mark, [as_line({**shared, **one}) for one in decided], at=shared["at"])
        answers = self._answers(decided, decisions)
        if not is_logged:
            for answer in answers:
                answer["logged"] = False
        for answer, explanation in zip(answers, explanations, strict=False):
            answer["explanation"] = explanation.to_json()
        return answers

    def _of_single(self, rows: Sequence[Any]) -> Decisions | None:
        """The decision where there is but one row; None where the Scorer decides. Raises: RowRefused."""
        if self._single is None or len(rows) != 1:
            return None
        self._check.check(rows)
        return self._single.decide(rows[0])

    def log_status(self) -> dict[str, object]:
        """What the decision log has written and missed; services/serving/decision_log.py."""
        return self._log.status()

    def _answer_many(
        self, mark: RequestMark, rows: Sequence[Any], decisions: Decisions, shared: SharedFields
    ) -> orjson.Fragment:
        ids = (self.stamps.new_id() for _ in rows)
        many = ManyRows(decisions, ids=ids, actions=self._scorer.utility.actions)
        lines = many.lines(rows if self._mask is None else map(self._mask.hide, rows), shared)
        is_logged = self._write(mark, lines, at=shared["at"])
        return many.answers(self._operating_point, release_id=self.release_id, is_logged=is_logged)

    def _write(self, mark: RequestMark, lines: Sequence[bytes], *, at: float) -> bool:
        """Whether the decisions are logged. Raises DecisionLogError where the request can go to another release."""
        try:
            self._log.append(lines)
        except DecisionLogError as error:
            if mark.can_be_refused:
                raise
            self._log.count_missed(error.missing, at=at)
            return False
        return True

    def _gated(
        self, gate: Gate | None, columns: Mapping[str, NDArray[Any]], decisions: Decisions
    ) -> Sequence[Gated | None]:
        """What the switches did to each row; one None for all while nothing is off."""
        if gate is None:
            return [None] * len(decisions.actions)
        free = self._scorer.choose(columns, decisions.probabilities).actions
        actions = self._scorer.utility.actions
        return [
            Gated(gate.off, actions[wanted] if wanted != taken else None)
            for wanted, taken in zip(free.tolist(), decisions.actions.tolist(), strict=True)
        ]

    def _shared(self, mark: RequestMark, *, took_ms: float) -> SharedFields:
        return {
            "v": 1,
            "request_id": mark.request_id,
            "attempt": mark.attempt,
            "at": self.stamps.clock(),
            "unit": mark.unit,
            "assigned": mark.assigned,
            "shadow": mark.is_shadow,
            "release": self.release_id,
            "took_ms": round(took_ms, 3),
        }

    def _decided(
        self, rows: Sequence[Any], decisions: Decisions, gated: Sequence[Gated | None]
    ) -> list[RowFields]:
        actions = self._scorer.utility.actions
        numbers = zip(
            decisions.actions.tolist(),
            decisions.scores.tolist(),
            decisions.expected_utility.tolist(),
            decisions.probabilities.tolist(),
            gated,
            rows if self._mask is None else map(self._mask.hide, rows),
            strict=True,
        )
        new_id = self.stamps.new_id
        return [
            {
                "decision_id": new_id(),
                "action": actions[action],
                "score": score,
                "expected_utility": expected,
                "probabilities": probabilities,
                "gated": one_gated,
                "row": row,
            }
            for action, score, expected, probabilities, one_gated, row in numbers
        ]

    def _answers(self, decided: Sequence[RowFields], decisions: Decisions) -> list[dict[str, object]]:
        actions = self._scorer.utility.actions
        points = [self._operating_point] * len(decided)
        if decisions.thresholds is not None:
            # A threshold is not finite where no probability changes the action; JSON says null then.
            finite = np.isfinite(decisions.thresholds).tolist()
            points = [
                {**self._operating_point, "threshold": threshold if known else None}
                for threshold, known in zip(decisions.thresholds.tolist(), finite, strict=True)
            ]
        answers: list[dict[str, object]] = [
            {
                "decision_id": one["decision_id"],
                "action": one["action"],
                "score": one["score"],
                "expected_utility": dict(zip(actions, one["expected_utility"], strict=True)),
                "operating_point": point,
                "release": self.release_id,
            }
            for one, point in zip(decided, points, strict=True)
        ]
        for answer, one in zip(answers, decided, strict=True):
            if one["gated"] is not None:
                answer["gated"] = one["gated"]
        return answers


def _shown(point: OperatingPoint) -> dict[str, object]:
    """The rule as an answer shows it: without the proof, and without the band's tables."""
    shown: dict[str, object] = point.without_proof().to_json()
    if point.abstention is not None:
        band = point.abstention
        shown["abstention"] = {"action": band.action, "least_stake": band.least_stake}
    return shown


def sample_row(contract: DataContract, *, share: float) -> dict[str, object]:
    """A made-up row for warming up: numbers at `share` of their range (0 least, 1 greatest), categories likewise.

    A range that is open on a side ends 100 from the other, or at 0 and 100. Text is not made to fit a
    pattern.
    """
    row: dict[str, object] = {}
    for column in contract.columns:
        if column.kind in ("number", "integer"):
            low, high = column.minimum, column.maximum
            least = low if low is not None else (0.0 if high is None else high - 100.0)
            most = high if high is not None else least + 100.0
            value = least + share * (most - least)
            row[column.name] = int(value) if column.kind == "integer" else float(value)
        elif column.kind == "boolean":
            row[column.name] = False
        else:
            known = column.categories or ("unknown",)
            row[column.name] = known[int(share * (len(known) - 1))]
    return row

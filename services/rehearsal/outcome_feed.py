"""Outcomes that come due some seconds after their decision, posted in batches with a watermark, none lost.

The watermark W sent with a batch says: every outcome due at or before W (epoch seconds, on the outcomes'
time axis, that is request sent + delay) is in this batch or was accepted before. So a decision taken at t
is complete once t + maturity <= W, for any maturity of at least the delay. W never passes an outcome that
is not yet accepted, nor a request that is still in flight. Must never import: prefect, bentoml, torch.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

BATCH_OUTCOMES = 1_000


@dataclass(frozen=True)
class Due:
    """One outcome and when it becomes known (epoch s)."""

    decision_id: str
    outcome: str
    at: float


class OutcomeFeed:
    """Holds outcomes until they are due and the control service has accepted them.

    `capacity` bounds what is held; a sender asks `has_room` before it sends another request, so a control
    service that is away for long slows the replay down instead of losing outcomes.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        read_token: Callable[[], str],
        clock: Callable[[], float],
        delay_s: float,
        capacity: int = 200_000,
        timeout_s: float = 5.0,
    ) -> None:
        self._session, self._url, self._read_token, self._clock = session, url, read_token, clock
        self._delay_s, self._capacity = delay_s, capacity
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._waiting: list[tuple[float, int, Due]] = []
        self._order = itertools.count()
        self._in_flight: dict[int, float] = {}
        self.posted = 0
        self.retries = 0
        self.last_error = ""
        self.watermark: float | None = None

    @property
    def waiting(self) -> int:
        """Outcomes held: not yet due, or due and not yet accepted."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        return len(self._waiting) + len(self._in_flight) < self._capacity

    def sent(self, request: int, at: float) -> None:
        """A request left at `at`: until it is settled the watermark stays at or before its outcome."""
        self._in_flight[request] = at

    def settled(self, request: int, *, decision_id: str | None, outcome: str | None) -> None:
        """The request was answered or failed; with both given, its outcome comes due `delay_s` after it was
        sent.
        """
        at = self._in_flight.pop(request) + self._delay_s
        if decision_id is not None and outcome is not None:
            heapq.heappush(self._waiting, (at, next(self._order), Due(decision_id, outcome, at)))

    async def post_due(self) -> bool:
        """Post what is due, and the watermark; True if everything due was accepted. Nothing is dropped on
        failure.
        """
        while True:
            now = self._clock()
            batch: list[tuple[float, int, Due]] = []
            while self._waiting and self._waiting[0][0] <= now and len(batch) < BATCH_OUTCOMES:
                batch.append(heapq.heappop(self._waiting))
            watermark = self._complete_until(now)
            if not await self._post([due for _, _, due in batch], watermark):
                for entry in batch:
                    heapq.heappush(self._waiting, entry)
                self.retries += 1
                return False
            self.posted += len(batch)
            self.watermark = watermark
            if len(batch) < BATCH_OUTCOMES:
                return True

    def _complete_until(self, now: float) -> float:
        pending = [at + self._delay_s for at in self._in_flight.values()]
        if self._waiting:
            pending.append(self._waiting[0][0])
        # Strictly before what is still open: W is inclusive.
        return min([now, *(at - 0.001 for at in pending)])

    async def _post(self, outcomes: Iterable[Due], watermark: float) -> bool:
        body = {
            "outcomes": [
                {"decision_id": due.decision_id, "outcome": due.outcome, "at": due.at} for due in outcomes
            ],
            "watermark": watermark,
        }
        try:
            headers = {"authorization": f"Bearer {self._read_token()}"}
            async with self._session.post(
                self._url, json=body, headers=headers, timeout=self._timeout
            ) as answer:
                if answer.status < 300:
                    self.last_error = ""
                    return True
                self.last_error = f"{answer.status} {(await answer.text())[:200]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.last_error = f"{type(error).__name__}: {error}"
        return False

    async def run(self, *, stop: asyncio.Event, every_s: float = 0.5) -> None:
        """Post every `every_s` until `stop`; after a failure up to four times as seldom."""
        wait_s = every_s
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), timeout=wait_s)
            except TimeoutError:
                wait_s = every_s if await self.post_due() else min(2 * wait_s, 4 * every_s)

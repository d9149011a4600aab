"""Shows a rollout in Prefect, from a thread of its own: a server that is down or hangs costs the page, never a poll.

Rule: whoever conducts waits for nothing here, except for the last words when all is over.
Importing this file imports no Prefect. Measured by tests/chaos/prefect_faults.py.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Queue
from types import TracebackType

import httpx

from policies.rollout.verdict import Verdict

LAST_WORDS_S = 10.0
"""How long Prefect may take to write down the end of a rollout; nobody is served by it any more."""
BROKEN_OFF_S = 5.0
"""The same where conducting was broken off and is to go on."""
LOOK_S = 1.0
ANSWER_S = 5.0


@dataclass(frozen=True)
class StageEntered:
    """The conductor has begun with this stage."""

    stage: str
    kind: str


@dataclass(frozen=True)
class StageLeft:
    """This verdict has ended the stage; where its report stands or will stand."""

    verdict: Verdict
    report: str


@dataclass(frozen=True)
class Ended:
    """Conducting is over: the rollout's phase, or why it was broken off."""

    phase: str
    why: str = ""


Told = Queue[StageEntered | StageLeft | Ended]


class ShownInPrefect:
    """One rollout as Prefect shows it, for the time of a `with` block; an error that leaves it ends the flow run.

    `say`: tells the person who watches, once, that Prefect does not answer.
    """

    def __init__(self, rollout_id: str, candidate: str, say: Callable[[str], None]) -> None:
        self._rollout_id, self._candidate, self._say = rollout_id, candidate, say
        self._told: Told = Queue()
        self._is_over = threading.Event()
        self._lost = ""
        in_context = contextvars.copy_context().run  # settings, and the flow run that this one belongs to
        self._thread = threading.Thread(target=in_context, args=(self._follow,), name="prefect", daemon=True)

    def __enter__(self) -> ShownInPrefect:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._told.put(Ended("", f"{type(error).__name__}: {error}"))
        self._is_over.set()
        self._thread.join(LAST_WORDS_S if error is None else BROKEN_OFF_S)
        if self._thread.is_alive() and error is None:
            self._lost = "it hangs"
        self._say_if_lost()

    def tell(self, what: StageEntered | StageLeft | Ended) -> None:
        """Have it shown; returns at once."""
        self._told.put(what)
        self._say_if_lost()

    def _say_if_lost(self) -> None:
        if self._lost:
            self._say(f"Prefect does not answer ({self._lost}): the rollout goes on without it")
            self._lost = ""

    def _follow(self) -> None:
        from prefect.settings import PREFECT_API_URL

        try:
            if not self._is_answered(PREFECT_API_URL.value()):
                return
            from flows.roll_out import ConductingStopped, roll_out

            with suppress(ConductingStopped):
                roll_out(self._rollout_id, self._candidate, self._told)
        except Exception as error:  # whatever it is, it is Prefect's: nothing of the rollout runs in here
            self._lost = type(error).__name__

    def _is_answered(self, url: str | None) -> bool:
        """Wait for the server while there is something to show; one without a URL is started by Prefect itself."""
        while url is not None:
            try:
                httpx.get(f"{url}/health", timeout=ANSWER_S)
                break
            except httpx.HTTPError as error:
                if self._is_over.wait(LOOK_S):
                    self._lost = type(error).__name__
                    return False
        return True

"""A conductor that finds another at its rollout stops: of two, one loses, and must not come back."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView
from services.store import rollouts
from services.store.rollouts import StaleRollout


def test_the_one_whose_record_was_saved_by_another_stops(simulation: Any) -> None:
    """Somebody else, who does not share this machine's lock, saves the record: StaleRollout leaves `conduct` at the
    next save, although it is a StoreError, which would be waited for."""
    record = simulation.begin()
    others: list[int] = []

    def sleep(seconds: float) -> None:
        simulation.sleep(seconds)
        if not others:
            saved = rollouts.save(simulation.db, rollouts.load(simulation.db, record.id), at=simulation.time)
            others.append(saved.version)

    with ProgressView(Console(quiet=True), []) as view, pytest.raises(StaleRollout, match="'version'"):
        conduct(
            replace(simulation.world, sleep=sleep),
            record,
            view,
            on_verdict=lambda verdict, _: None,
            with_prefect=False,
        )
    assert rollouts.load(simulation.db, record.id).version == others[0]

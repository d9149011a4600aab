"""A store that does not answer stops a rollout for a while; it goes on by itself when the store does."""

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from flows.conduct_rollout import STORE_PATIENCE_S, conduct
from flows.show_progress import ProgressView
from services.ledger.ledger import entries
from services.store.database import StoreError

STAGES = ("shadow", "canary-25", "full", "probation")


def away(simulation: Any, *, from_s: float, for_s: float) -> Callable[[float], None]:
    """The world's sleep; the ledger is away from `from_s` seconds on, for `for_s` seconds."""
    begins = simulation.time + from_s
    is_away = False

    def sleep(seconds: float) -> None:
        nonlocal is_away
        simulation.sleep(seconds)
        if is_away is not (begins <= simulation.time < begins + for_s):
            is_away = not is_away
            old, new = ("ledger", "hidden") if is_away else ("hidden", "ledger")
            with contextlib.closing(sqlite3.connect(simulation.home.root / "trimtab.db")) as connection:
                connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    return sleep


def test_a_rollout_waits_for_its_store(simulation: Any) -> None:
    """In the middle of a rollout the store is away for 30 s: the person who watches is told, the rollout is taken up
    once, and every stage is passed once."""
    record = simulation.begin()
    screen = Console(record=True, width=200)
    world = replace(simulation.world, sleep=away(simulation, from_s=5, for_s=30))

    with ProgressView(screen, []) as view:
        phase = conduct(world, record, view, on_verdict=lambda *_: None, with_prefect=False)
    assert phase == "promoted"
    assert "the canary has no traffic until the rollout can go on" in screen.export_text()
    found = entries(simulation.db, rollout_id=record.id)
    assert [entry.kind for entry in found].count("rollout_resumed") == 1
    passed = [entry.body["verdict"] for entry in found if "report" in entry.body]
    assert [(one["stage"], one["decision"]) for one in passed] == [(stage, "ADVANCE") for stage in STAGES]


def test_patience_ends(simulation: Any) -> None:
    """A store that never answers again is an error after ten minutes, not a wait without end."""
    record = simulation.begin()
    simulation.is_record_honest = False  # nobody can read its ledger any more
    world = replace(simulation.world, sleep=away(simulation, from_s=7, for_s=1e9))
    began = simulation.time
    with ProgressView(Console(quiet=True), []) as view, pytest.raises(StoreError, match="does not answer"):
        conduct(world, record, view, on_verdict=lambda *_: None, with_prefect=False)
    assert STORE_PATIENCE_S <= simulation.time - began < STORE_PATIENCE_S + 60

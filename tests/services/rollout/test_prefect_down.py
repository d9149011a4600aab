"""Prefect shows a rollout and decides nothing: when its API is away or hangs, the rollout goes on."""

import socket
import time
from typing import Any

from rich.console import Console

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView
from policies.rollout.verdict import Decision, Verdict

PREFECT_TIMEOUT_S = 60.0  # its own default for one answer
STAGES = ("shadow", "canary-25", "full", "probation")


def test_a_rollout_outlives_prefect(simulation: Any, free_base: Any) -> None:
    """Nobody answers at PREFECT_API_URL: every stage is passed as ever, each is told once, and the person who watches
    hears that it goes on without Prefect."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    told: list[Verdict] = []
    screen = Console(record=True, width=160)
    away = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_base(1)}/api",
        PREFECT_CLIENT_MAX_RETRIES: 0,
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with temporary_settings(away), ProgressView(screen, []) as view:
        phase = conduct(
            simulation.world, simulation.begin(), view, on_verdict=lambda verdict, _: told.append(verdict)
        )
    assert phase == "promoted"
    assert [(one.stage, one.decision) for one in told] == [(stage, Decision.ADVANCE) for stage in STAGES]
    assert "the rollout goes on without it" in screen.export_text()


def test_a_server_that_hangs_holds_no_poll(simulation: Any) -> None:
    """The server takes connections and never answers: all stages are passed before a single answer is given up."""
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    told: list[float] = []
    screen = Console(record=True, width=160)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        began = time.monotonic()
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}),
            ProgressView(screen, []) as view,
        ):
            record = simulation.begin()
            conduct(simulation.world, record, view, on_verdict=lambda *_: told.append(time.monotonic()))
    assert len(told) == len(STAGES)
    assert max(told) - began < PREFECT_TIMEOUT_S
    assert "the rollout goes on without it" in screen.export_text()

"""Who may give an order may not, by what he writes as its reason, bring down whoever conducts and shows the rollout."""

from dataclasses import replace
from typing import Any

from rich.console import Console

from flows.conduct_rollout import conduct
from flows.show_progress import ProgressView, gate_table
from policies.rollout.verdict import GateResult, GateStatus
from services.store import orders

HOSTILE = "[/red] [bold] [link=http://x]"


def test_a_reason_is_shown_as_it_was_written(simulation: Any) -> None:
    """An abort whose reason looks like the terminal's markup ends the rollout like any other, and is shown whole."""
    record = simulation.begin()

    def sleep(seconds: float) -> None:
        simulation.sleep(seconds)
        if not orders.of_rollout(simulation.db, record.id):
            orders.give(
                simulation.db,
                rollout_id=record.id,
                verb="abort",
                by="mallory",
                reason=HOSTILE,
                at=simulation.time,
            )

    screen = Console(record=True, width=200)
    with ProgressView(screen, []) as view:
        phase = conduct(
            replace(simulation.world, sleep=sleep),
            record,
            view,
            on_verdict=lambda verdict, _: view.conclude(verdict),
            with_prefect=False,
        )
    assert phase == "rolled_back"
    assert HOSTILE in screen.export_text()


def test_a_gates_detail_is_shown_as_it_was_written() -> None:
    """The table of gates takes no markup either."""
    screen = Console(record=True, width=200)
    gate = GateResult("errors", "errors", GateStatus.ERROR, None, None, 0, "all", None, None, HOSTILE)
    screen.print(gate_table([gate]))
    assert HOSTILE in screen.export_text()

"""How the main job ends: every stage's verdict and reasons, where the reports are, and what was shown."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.main_job import JobResult
from flows.show_progress import number
from flows.system import addresses
from policies.rollout.verdict import Decision, Verdict
from services.home import Home

_COLOUR = {Decision.ADVANCE: "green", Decision.HOLD: "yellow", Decision.ROLLBACK: "red"}


def print_closing(console: Console, home: Home, result: JobResult, *, took_s: float, is_up: bool) -> None:
    """The closing table, the traffic's account, the addresses, and the last line: promoted or not."""
    table = Table(
        title="Verdicts, of the first release and of its challenger",
        title_justify="left",
        header_style="bold",
    )
    for column in ("stage", "verdict", "reason", "gates"):
        table.add_column(column, overflow="fold")
    for place, (verdict, _) in enumerate(result.verdicts):
        if place and verdict.stage == result.verdicts[0][0].stage:
            table.add_section()
        table.add_row(
            verdict.stage,
            f"[{_COLOUR[verdict.decision]}]{verdict.decision.value}[/]",
            verdict.reason.value,
            escape(_gates(verdict)),
        )
    console.print(table)
    console.print("reports (`trimtab ui reports` opens them all):", highlight=False)
    for verdict, report in result.verdicts:
        console.print(f"  {verdict.stage:10} {_relative(report)}", highlight=False, soft_wrap=True)
    if result.replay is not None:
        seen = result.replay
        console.print(f"failed user requests: {seen.failed} of {seen.sent}", highlight=False)
    if is_up:
        for name, address in addresses(home).items():
            console.print(f"{name}: {address}", highlight=False, soft_wrap=True)
    else:
        console.print(
            "`trimtab up` serves the stable release again; `trimtab ledger verify` checks the record"
        )
    console.print(f"took {took_s:.0f} s")
    colour = "bold green" if result.phase == "promoted" else "bold red"
    candidate = "" if result.candidate is None else f": {result.candidate.id}"
    console.print(f"[{colour}]{result.phase}{candidate}[/]", highlight=False)


def closing_json(home: Home, result: JobResult, *, took_s: float) -> dict[str, object]:
    """The same for machines."""
    replay = result.replay
    return {
        "phase": result.phase,
        "first": None if result.first is None else result.first.id,
        "candidate": None if result.candidate is None else result.candidate.id,
        "verdicts": [{**verdict.to_json(), "report": report} for verdict, report in result.verdicts],
        "failed_user_requests": None if replay is None else replay.failed,
        "user_requests": None if replay is None else replay.sent,
        "state": str(home.root),
        "took_s": round(took_s, 1),
    }


def _gates(verdict: Verdict) -> str:
    required = [gate for gate in verdict.gates if gate.required]
    if not required:
        return verdict.detail
    lines = []
    for gate in required:
        bound = "" if gate.bound is None else f" against {number(gate.bound)}"
        value = "no value" if gate.observed is None else number(gate.observed)
        lines.append(f"{gate.gate} {gate.status.value}: {value}{bound}, n {gate.n:,}")
    return "\n".join(lines)


def _relative(path: str) -> str:
    return os.path.relpath(Path(path)) if path else ""

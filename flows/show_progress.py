"""What a person sees while work goes on: the stage rail, weights, each gate's line, why it holds and for how long yet.

On a terminal the panel is redrawn in place; elsewhere (CI, a pipe) a line is printed when something changes and every
few seconds. Formats what it is given; decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress as ProgressBar
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from policies.rollout.verdict import Decision, GateResult, GateStatus, Verdict

if TYPE_CHECKING:
    from services.rollout.conductor import Progress
    from services.training.fit import Progress as EpochProgress

LINE_EVERY_S = 4.0
_COLOUR = {Decision.ADVANCE: "green", Decision.HOLD: "yellow", Decision.ROLLBACK: "red"}
_GATE_COLOUR = {
    GateStatus.PASS: "green",
    GateStatus.FAIL: "red",
    GateStatus.INCONCLUSIVE: "yellow",
    GateStatus.NO_DATA: "magenta",
    GateStatus.ERROR: "red",
}


@dataclass
class Rail:
    """The stages in order, those passed, and the one in work."""

    stages: Sequence[str]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    current: str | None = None

    def render(self) -> Text:
        text = Text()
        for number, stage in enumerate(self.stages):
            if number:
                text.append(" ─ ", style="dim")
            verdict = self.verdicts.get(stage)
            if verdict is not None:
                mark = {"ADVANCE": "✓ ", "HOLD": "… ", "ROLLBACK": "✗ "}[verdict.decision.value]
                text.append(mark + stage, style=_COLOUR[verdict.decision])
            elif stage == self.current:
                text.append("▶ " + stage, style="bold cyan")
            else:
                text.append("· " + stage, style="dim")
        return text


class ProgressView:
    """Shows the progress of offline stages (lines) and of a rollout (panel or lines). Use as a context manager."""

    def __init__(self, console: Console, stages: Sequence[str]) -> None:
        self.console = console
        self.rail = Rail(stages)
        self._live: Live | None = None
        self._bar: ProgressBar | None = None
        self._task = TaskID(0)
        self._traffic = ""
        self._last_line_at = float("-inf")
        self._last_key: tuple[str, str] | None = None

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_panel()

    def say(self, text: str) -> None:
        """A line of its own, above the panel where there is one."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def enter(self, stage: str) -> None:
        """The stage that is in work now."""
        self.rail.current = stage
        if self._live is None:
            self.console.print(self.rail.render(), soft_wrap=True)

    def conclude(self, verdict: Verdict) -> None:
        """A stage's final verdict."""
        self.rail.verdicts[verdict.stage] = verdict
        colour = _COLOUR[verdict.decision]
        self.say(
            f"[{colour}]{verdict.decision.value:8}[/] [bold]{verdict.stage}[/] "
            f"{verdict.reason.value}: {escape(verdict.detail)}"
        )
        for gate in verdict.gates:
            if gate.required or gate.status is GateStatus.FAIL:
                self.say(f"           [{_GATE_COLOUR[gate.status]}]{_short(gate)}[/]")

    def epoch(self, progress: EpochProgress) -> None:
        """One epoch of a network; a bar on a terminal, a line at the end of each network elsewhere."""
        if self.console.is_terminal:
            if self._bar is None:
                self._bar = ProgressBar(console=self.console, transient=True)
                self._bar.start()
                self._task = self._bar.add_task(progress.loss_name, total=progress.most_epochs)
            self._bar.update(self._task, completed=progress.epoch, description=f"  {progress.loss_name}")
        if progress.done:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            self.say(
                f"  {progress.loss_name}: {progress.epoch} epochs, best {progress.best_epoch}, "
                f"validation loss {progress.validation_loss:.4f}"
            )

    def traffic(self, text: str) -> None:
        """One line about the replayed traffic, shown with the next poll."""
        self._traffic = text

    def poll(self, progress: Progress) -> None:
        """One poll of a rollout."""
        self.rail.current = progress.stage.name
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, refresh_per_second=4, transient=True)
                self._live.start()
            self._live.update(self._panel(progress))
            return
        key = (progress.stage.name, progress.verdict.reason.value)
        if key != self._last_key or progress.at - self._last_line_at >= LINE_EVERY_S:
            self._last_key, self._last_line_at = key, progress.at
            self.console.print(poll_line(progress, self._traffic), highlight=False, soft_wrap=True)

    def close_panel(self) -> None:
        """Take the panel away; what was said stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _panel(self, progress: Progress) -> RenderableType:
        head = Text(f"{progress.stage.name}  weight {progress.weight_pct:g} %  {bake_text(progress)}")
        verdict = progress.verdict
        why = Text(
            f"{verdict.decision.value} {verdict.reason.value}: {verdict.detail}",
            style=_COLOUR[verdict.decision],
        )
        parts: list[RenderableType] = [self.rail.render(), head, why, gate_table(verdict.gates)]
        if self._traffic:
            parts.append(Text(self._traffic, style="dim"))
        return Panel(Group(*parts), title=f"rollout {progress.rollout_id}", border_style="cyan")


def bake_text(progress: Progress) -> str:
    """`7 s of 15–40 s`, from the stage's own clock."""
    stage = progress.stage
    age_s = max(0.0, progress.at - progress.state.entered_at)
    if stage.bake_max_s is None or stage.bake_max_s <= 0:
        return f"{age_s:.0f} s"
    return f"{age_s:.0f} s of {stage.bake_min_s:g}–{stage.bake_max_s:g} s"


def poll_line(progress: Progress, traffic: str = "") -> str:
    """The poll on one line, for logs."""
    verdict = progress.verdict
    gates = "  ".join(f"[{_GATE_COLOUR[g.status]}]{_short(g)}[/]" for g in verdict.gates)
    colour = _COLOUR[verdict.decision]
    line = (
        f"  {progress.stage.name:10} {progress.weight_pct:3g} %  {bake_text(progress):18} "
        f"[{colour}]{verdict.decision.value}[/] {escape(verdict.detail)}"
    )
    if gates:
        line += f"\n      {gates}"
    return line + (f"\n      {traffic}" if traffic else "")


def gate_table(gates: Sequence[GateResult]) -> Table:
    """Each gate's observed value with its interval, bound, n, evidence against its limit."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("gate", "status", "observed", "interval", "bound", "n", "log E / limit", ""):
        table.add_column(column, overflow="fold")
    for gate in gates:
        interval = "" if gate.interval is None else f"{gate.interval[0]:.3f} … {gate.interval[1]:.3f}"
        evidence = (
            "" if gate.log_e is None or gate.log_limit is None else f"{gate.log_e:.2f} / {gate.log_limit:.2f}"
        )
        table.add_row(
            gate.gate + ("" if gate.required else " (watching)"),
            Text(gate.status.value, style=_GATE_COLOUR[gate.status]),
            number(gate.observed),
            interval,
            number(gate.bound),
            f"{gate.n:,}",
            evidence,
            Text(gate.detail),
        )
    return table


def _short(gate: GateResult) -> str:
    text = f"{gate.gate} {gate.status.value}"
    if gate.observed is not None:
        text += f" {number(gate.observed)}"
    if gate.bound is not None:
        text += f" (bound {number(gate.bound)})"
    text += f" n {gate.n:,}"
    if gate.log_e is not None and gate.log_limit is not None:
        text += f" logE {gate.log_e:.1f}/{gate.log_limit:.1f}"
    return text


def number(value: float | None) -> str:
    """Four figures; counts in full."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

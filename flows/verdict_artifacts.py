"""Verdicts as Prefect artifacts: one markdown page a stage, so that Prefect's own UI shows what was decided and why.

Formats only. Prefect is imported here, so commands import this file only where a flow runs.
"""

from __future__ import annotations

import re

from prefect.artifacts import create_markdown_artifact

from policies.rollout.verdict import Verdict


def publish_verdict(verdict: Verdict, *, release: str, report: str) -> None:
    """Publish the stage's verdict as artifact `verdict-<stage>` of the running flow."""
    lines = [
        f"## {verdict.stage}: {verdict.decision.value}",
        f"`{verdict.reason.value}` {verdict.detail}",
        "",
        f"Release `{release}` · report `{report}`",
    ]
    if verdict.gates:
        lines += [
            "",
            "| gate | status | observed | bound | n | log E / limit | |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for gate in verdict.gates:
            evidence = "" if gate.log_e is None else f"{gate.log_e:.2f} / {gate.log_limit or 0:.2f}"
            lines.append(
                f"| {gate.gate} | {gate.status.value} | {_cell(gate.observed)} | {_cell(gate.bound)} "
                f"| {gate.n} | {evidence} | {gate.detail} |"
            )
    key = re.sub(r"[^a-z0-9-]", "-", f"verdict-{verdict.stage}".lower())
    create_markdown_artifact(
        key=key, markdown="\n".join(lines), description=f"{verdict.stage} {verdict.decision.value}"
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

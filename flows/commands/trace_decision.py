"""`trimtab trace`: everything behind one decision, as text, JSON or a page of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import HOME_OPTION, JSON_OPTION, console, fail, open_records, print_json, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.trace.traced import JudgedStage, Trace


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trace")(trace)


def trace(
    decision: str = typer.Argument(help="The decision_id of an answer of /decide."),
    html: Path = typer.Option(
        None, "--html", help="Write a page that needs nothing else, and print its place."
    ),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Who was decided about, by which release and rule, why, who agreed, and what came of it.

    Worked out from the store, the ledger and the release's own files; the unit's id is shown hashed.

    Example: trimtab trace 11e401bfbd8c4fdca842dc2ff8c14a02
    Example: trimtab trace 11e401bfbd8c4fdca842dc2ff8c14a02 --html decision.html
    """
    from services.store.traced_decision import UnknownDecision
    from services.trace.trace import trace_decision

    home, db = open_records(name)
    try:
        found = trace_decision(db, home, decision)
    except UnknownDecision as error:
        fail(
            f"{error}, nor is it in the archive; the shipper brings decisions in within a second, "
            'and an answer with "logged": false never was in a log',
            code=2,
        )
    if html is not None:
        from services.trace.page import render_page

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_page(found, folder=html.parent.resolve()), encoding="utf-8")
    if as_json:
        print_json(found.to_json())
    elif html is not None:
        console.print(str(html), highlight=False, soft_wrap=True)
    else:
        for line in _lines(found):
            console.print(visible(line), highlight=False, soft_wrap=True, markup=False)


def _lines(found: Trace) -> Iterator[str]:
    row = found.decision
    yield f"{row.action}  decided {_time(row.at)} by {row.release}, decision {row.decision_id}"
    yield f"  unit      {found.unit_hash or 'none was sent'}"
    yield f"  variant   {found.assignment.variant}: {found.assignment.why}"
    if found.rollout is not None:
        stage = found.rollout.stage or "after its last poll"
        yield f"  rollout   {found.rollout.id}, {stage}; {found.rollout.phase}"
    if found.request is not None:
        request = found.request
        yield f"  request   HTTP {request.status} in {request.duration_ms:g} ms, {request.attempts} attempt(s)"
    for other in found.others:
        kind = "shadow" if other.shadow else f"attempt {other.attempt}"
        yield f"  beside    {kind}: {other.action} by {other.release}"
    yield from _why(found)
    yield from _came_of_it(found)
    yield from _rests_on(found)
    yield from _stages("made", found.made_by)
    for rollout in (found.came_by, found.rollout):
        if rollout is not None:
            yield from _stages(rollout.id, rollout.stages)
            for word in rollout.people:
                yield f"  {_time(word.at)} {word.by}: {word.words} (ledger {word.entry})"
    check = found.ledger
    yield "ledger    " + (
        f"whole, {check.entries} entries" if check.ok else f"BROKEN at {check.first_bad}: {check.why}"
    )


def _why(found: Trace) -> Iterator[str]:
    yield "why"
    for one in found.actions:
        priced = "" if one.priced in (None, one.expected) else f", {one.priced:+.4f} under the prices"
        mark = "taken" if one.is_taken else "off" if one.is_off else ""
        yield f"  {one.action:14} {one.expected:+.4f} {found.unit} expected{priced}  {mark}".rstrip()
    if found.gated is not None:
        instead = found.gated["instead_of"]
        off = ", ".join(str(one.action) for one in found.actions if one.is_off)
        yield f"  gated: {off} switched off for everyone" + (f", else it were {instead}" if instead else "")
        for switch in found.switched_off:
            yield f"  {switch.action} off since {_time(switch.at)} by {switch.by}: {switch.reason}"
    if found.recomputed is None:
        yield f"  not recomputed: {found.not_recomputed}"
        return
    again = found.recomputed
    explanation = again.explanation
    yield f"  recomputed: {'the same decision' if again.agrees else again.action + ' — NOT what was served'}"
    if again.threshold is not None and found.decision.score is not None:
        yield f"  {explanation.outcome} {found.decision.score:.4f}, threshold {again.threshold:.4f}"
    if explanation.lead is not None:
        yield f"  {explanation.lead:.4f} {found.unit} ahead of the next best action"
    parts = [f"{one.name} {one.value} {one.contribution:+.3f}" for one in explanation.features[:5]]
    yield (
        f"  log-odds {explanation.attribution.at_baseline:+.3f} to {explanation.attribution.at_row:+.3f}: "
        + ", ".join(parts)
    )
    for line in again.prices:
        yield f"  {line}"


def _came_of_it(found: Trace) -> Iterator[str]:
    told, realised = found.realised.told, found.realised
    yield "outcome   " + ("not known yet" if told is None else f"{told.outcome}, {_time(told.at)}")
    if told is not None and told.conflicts:
        yield f"  told otherwise {told.conflicts} times; the latest event stands"
    if realised.utility is None:
        yield f"  utility not known: {realised.why}"
    else:
        own = ", ".join(f"{name} {value:+g}" for name, value in realised.by_stakeholder.items())
        yield f"  {realised.utility:+.4f} {found.unit} realised ({own})"


def _rests_on(found: Trace) -> Iterator[str]:
    yield "rests on"
    if found.release is None:
        yield f"  the release cannot be read: {found.release_trouble}"
        return
    made = found.release.provenance
    yield f"  release   {found.release.content_digest}"
    for label, key in (
        ("utility", "utility_digest"),
        ("contract", "contract_digest"),
        ("policy", "rollout_digest"),
        ("snapshot", "snapshot_digest"),
        ("code", "code_version"),
    ):
        yield f"  {label:9} {made.get(key)}"
    yield f"  signed    {found.signed}"


def _stages(title: str, stages: tuple[JudgedStage, ...]) -> Iterator[str]:
    if stages:
        yield title
    for one in stages:
        place = f"  {one.report}" if one.is_written else ""
        yield f"  {one.verdict.sentence()} (ledger {one.entry}){place}"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))

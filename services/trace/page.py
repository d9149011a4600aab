"""A trace as one HTML file that needs nothing else: for an auditor, a complaint, or a printer.

Every text of the record is escaped; links go to the stage reports' files, relative to the page.
Must never import: anything that does I/O.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from services.trace import figures
from services.trace.page_style import STYLE
from services.trace.traced import JudgedStage, Trace, TracedRollout


def render_page(trace: Trace, *, folder: Path) -> str:
    """The page; `folder`: where it will stand, for the links."""
    row = trace.decision
    made = _stages(
        "How the release was made", trace.made_by, folder, "no verdict of its making is on this ledger"
    )
    came = "" if trace.came_by is None else _came_by(trace.came_by, folder)
    first = _columns(
        [_why_action(trace), _explanation(trace)], [_why_variant(trace), _came_of_it(trace), _people(trace)]
    )
    second = _columns([made, came, _row(trace)], [_rests_on(trace)])
    body = f"""<header><div><div class="over">Trimtab · decision trace</div><h1>{escape(row.action)}</h1></div>
<div class="facts">{_time(row.at)}<br>decision <code>{escape(row.decision_id)}</code><br>
unit <code>{escape(trace.unit_hash or "none was sent")}</code></div></header>
<ul class="badges">{"".join(_badges(trace))}</ul>
{first}{_rollout(trace, folder)}{second}
<footer>{escape(_ledger_words(trace))} The unit's id is hashed with the home's key.</footer>"""
    title = f"{row.action}: decision {row.decision_id}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _badges(trace: Trace) -> Iterable[str]:
    row = trace.decision
    if row.shadow:
        yield _badge("shadow: nobody was given this answer", "blue")
    else:
        yield _badge(f"assigned to {row.assigned}", "amber" if row.assigned == "canary" else "blue")
    yield _badge(row.release)
    if trace.rollout is not None:
        yield _badge(f"{trace.rollout.stage or 'after the last poll'} of {trace.rollout.id}")
    if trace.recomputed is None:
        yield _badge("not recomputed", "amber")
    elif trace.recomputed.agrees:
        yield _badge("recomputed: the same decision", "good")
    else:
        close = ", within rounding of a tie" if trace.recomputed.is_close else ""
        yield _badge(f"recomputed: {trace.recomputed.action}{close}", "amber" if close else "bad")
    if trace.gated is not None:
        yield _badge("gated", "amber")
    if trace.request is not None:
        yield _badge(f"HTTP {trace.request.status} in {trace.request.duration_ms:g} ms")


def _why_action(trace: Trace) -> str:
    row, again = trace.decision, trace.recomputed
    words = []
    if again is not None and again.explanation.lead is not None:
        others = "in doubt" if again.is_close else "ahead of the next best action"
        words.append(f"<strong>{again.explanation.lead:.3f} {escape(trace.unit)}</strong> {others}")
    if trace.gated is not None:
        instead = trace.gated["instead_of"]
        off = ", ".join(one.action for one in trace.actions if one.is_off)
        would = (
            f"else it were <strong>{escape(str(instead))}</strong>"
            if instead
            else "which changed nothing here"
        )
        words.append(f"{escape(off)} is switched off for everyone, {would}")
    drawn = figures.utilities(trace.actions, trace.unit)
    if len(trace.outcomes) == 2 and row.score is not None:
        drawn += figures.probability(row.score, None if again is None else again.threshold, trace.outcomes[1])
    prices = () if again is None else again.prices
    trouble = "" if again is not None else f"<p>Not recomputed: {escape(trace.not_recomputed)}</p>"
    proof = (
        "" if again is None else _details(f"{len(again.proof)} bounds, and how they were kept", again.proof)
    )
    return _section(
        f"Why {escape(row.action)}",
        f"Expected utility in {escape(trace.unit)}; {'; '.join(words)}." if words else "Expected utility.",
        f"{drawn}{trouble}{_lines('Operating point', prices)}{proof}",
    )


def _why_variant(trace: Trace) -> str:
    found = trace.assignment
    pairs = {
        "salt": found.salt,
        "weight": None if found.weight_pct is None else f"{found.weight_pct:g} %",
        "formula": None if found.slot is None else "xxh64(unit : salt) mod 10,000",
    }
    table = _pairs({name: value for name, value in pairs.items() if value is not None})
    others = "".join(
        f"<tr><td>{'shadow' if one.shadow else f'attempt {one.attempt}'}</td><td>{escape(one.action)}</td>"
        f"<td><code>{escape(one.release)}</code></td></tr>"
        for one in trace.others
    )
    beside = f"<table><tr><th>Same request</th><th></th><th></th></tr>{others}</table>" if others else ""
    return _section(f"Why {escape(found.variant)}", escape(found.why), figures.slots(found) + table + beside)


def _explanation(trace: Trace) -> str:
    if trace.recomputed is None:
        return _section("What moved the score", f"Not recomputed: {escape(trace.not_recomputed)}.", "")
    found = trace.recomputed.explanation
    method = found.attribution.method.replace("_", " ")
    what = f"Log-odds of {escape(found.outcome)}, from a baseline row to this one; {method}."
    return _section("What moved the score", what, figures.features(found))


def _came_of_it(trace: Trace) -> str:
    found = trace.realised
    told = found.told
    pairs: dict[str, object] = {"outcome": "not known yet" if told is None else told.outcome}
    if told is not None:
        pairs |= {"happened": _time(told.at), "told": _time(told.received_at)}
        if told.conflicts:
            pairs["told otherwise"] = f"{told.conflicts} times; the latest event stands"
    pairs |= {f"for {name}": figures.signed(value) for name, value in found.by_stakeholder.items()}
    if found.utility is not None:
        expected = next((one.expected for one in trace.actions if one.is_taken), None)
        beside = "" if expected is None else f"; {figures.signed(expected)} was expected"
        words = f"<strong>{figures.signed(found.utility)} {escape(trace.unit)}</strong> realised{beside}."
    else:
        words = f"Realised utility: {escape(found.why)}."
    return _section("What came of it", words, _pairs(pairs))


def _rollout(trace: Trace, folder: Path) -> str:
    found = trace.rollout
    if found is None:
        return _section("The rollout around it", "No rollout was under way.", "")
    end = found.ended_at if found.ended_at is not None else max(trace.decision.at, found.began_at)
    drawn = figures.timeline(
        found.weights, found.stages, began_at=found.began_at, ended_at=end, at=trace.decision.at
    )
    words = (
        f"<code>{escape(found.candidate)}</code> against <code>{escape(found.champion or 'nobody')}</code>, "
        f"{escape(found.phase)}; this decision fell into <strong>{escape(found.stage or 'its end')}</strong>."
    )
    return _section(
        f"The rollout around it: {escape(found.id)}", words, drawn + _stage_table(found.stages, folder)
    )


def _people(trace: Trace) -> str:
    rollouts = [one for one in (trace.came_by, trace.rollout) if one is not None]
    words = [(one.at, one.by, one.words, one.entry) for found in rollouts for one in found.people]
    words += [
        (one.at, one.by, f"{one.action} switched off for everyone: {one.reason}", one.entry)
        for one in trace.switched_off
    ]
    if not words:
        none = "No person ordered anything: the gates alone decided every stage."
        return _section("Who had a say", none, "")
    rows = "".join(
        f"<tr><td>{_time(at)}</td><td>{escape(by)}</td><td>{escape(what)}</td><td>{entry}</td></tr>"
        for at, by, what, entry in sorted(words)
    )
    head = "<tr><th>when</th><th>who</th><th>what</th><th>ledger</th></tr>"
    return _section("Who had a say", "Orders, approvals, kills and switches.", f"<table>{head}{rows}</table>")


def _stages(title: str, stages: Sequence[JudgedStage], folder: Path, none: str) -> str:
    what = "Verdicts of the policy, each with its report."
    return _section(title, escape(what if stages else none), _stage_table(stages, folder) if stages else "")


def _came_by(rollout: TracedRollout, folder: Path) -> str:
    words = f"{escape(rollout.phase)} by rollout <code>{escape(rollout.id)}</code>."
    return _section("How the release came to serve", words, _stage_table(rollout.stages, folder))


def _stage_table(stages: Sequence[JudgedStage], folder: Path) -> str:
    rows = []
    for one in stages:
        verdict = one.verdict
        report = ""
        if one.report is not None:
            link = escape(os.path.relpath(one.report, folder), quote=True)
            report = f'<a href="{link}">report</a>' if one.is_written else "not written"
        rows.append(
            f'<tr><td class="name">{escape(verdict.stage)}</td><td class="{verdict.decision.value.lower()}">'
            f"{verdict.decision.value}</td><td>{escape(verdict.detail)}</td><td>{one.entry}</td><td>{report}</td></tr>"
        )
    head = "<tr><th>stage</th><th>verdict</th><th>why</th><th>ledger</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _rests_on(trace: Trace) -> str:
    release = trace.release
    if release is None:
        return _section(
            "What it rests on", f"The release cannot be read: {escape(trace.release_trouble)}.", ""
        )
    made = release.provenance
    pairs: dict[str, object] = {
        "release": release.content_digest,
        "weights": release.digests["weights.safetensors"],
        "operating point": release.digests["operating_point.json"],
        "utility spec": made.get("utility_digest"),
        "data contract": made.get("contract_digest"),
        "rollout policy": made.get("rollout_digest"),
        "data snapshot": made.get("snapshot_digest"),
        "code": made.get("code_version"),
        "sources": made.get("sources_digest"),
        "packed": _time(release.created_at),
        "signed": trace.signed,
    }
    if trace.rollout is not None and trace.rollout.policy_digest != made.get("rollout_digest"):
        pairs["policy of the rollout"] = trace.rollout.policy_digest
    return _section(
        "What it rests on", "Digests of the content; every file is verified against them.", _pairs(pairs)
    )


def _row(trace: Trace) -> str:
    return _section("What was known", "The row as it stands in the decision log.", _pairs(trace.row))


def _pairs(pairs: Mapping[str, object]) -> str:
    rows = "".join(
        f'<tr><td class="key">{escape(name)}</td><td><code>{escape(str(value))}</code></td></tr>'
        for name, value in pairs.items()
    )
    return f"<table>{rows}</table>"


def _lines(head: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    rows = "".join(f"<tr><td>{escape(line)}</td></tr>" for line in lines)
    return f"<table><tr><th>{escape(head)}</th></tr>{rows}</table>"


def _details(summary: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>{escape(summary)}</summary><ul>{items}</ul></details>"


def _columns(left: Sequence[str], right: Sequence[str]) -> str:
    return f'<div class="grid"><div>{"".join(left)}</div><div>{"".join(right)}</div></div>'


def _section(title: str, words: str, body: str) -> str:
    """A card; title and words are HTML already."""
    return f"<section><h2>{title}</h2><p>{words}</p>{body}</section>"


def _badge(words: str, kind: str = "") -> str:
    return f'<li class="{kind}">{escape(words)}</li>'


def _ledger_words(trace: Trace) -> str:
    check = trace.ledger
    if check.ok:
        return f"Ledger whole: {check.entries} entries, head {check.head.hash[:16]}."
    return f"LEDGER BROKEN at entry {check.first_bad}: {check.why}."


def _time(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"

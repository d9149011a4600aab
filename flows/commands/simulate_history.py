"""The `--history` half of `trimtab policy simulate`: a recorded rollout, or a file of decisions, judged again.

A rollout on record is judged by the policy that ran, whose verdicts must be those on record, and beside it by another
one; a file of decisions by the service's rollout.yaml, and beside it by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands.output import PIPE_WIDTH, console, fail, open_records, print_json, print_table

if TYPE_CHECKING:
    from policies.gates.history import Said, Story, Timeline
    from policies.rollout.rollout_policy import RolloutPolicy
    from services.rollout.policy_set import PolicySet

FILES = (".csv", ".parquet")
MOST_ROWS = 60
LAST = "last"
AS_IT_RAN = "as it ran"


@dataclass(frozen=True)
class Judged:
    """What one or more policies said over one history, in words for people. mismatches: None where none can be."""

    source: str
    polls: int
    found: tuple[tuple[str, Timeline], ...]
    notes: tuple[str, ...]
    mismatches: tuple[Said, ...] | None = None


def simulate_history(
    policies: PolicySet,
    rivals: Sequence[tuple[str, RolloutPolicy]],
    source: str,
    *,
    out: Path | None,
    home_name: str,
    as_json: bool,
) -> None:
    """Judge a history by each policy, print the timelines and their differences, and draw them.

    source: a file of decisions (.csv, .parquet), the id of a rollout in the home, or `last`. Exit status 1 where the
    policy that ran does not give the verdicts on record.
    """
    payoff_range = policies.utility.range
    if source.endswith(FILES):
        judged = _judge_file(Path(source), rivals, payoff_range, is_quiet=as_json)
    else:
        judged = _judge_rollout(source, rivals, home_name, is_quiet=as_json)
    if not judged.found[0][1].said:
        fail(f"{source}: no poll of it can be judged")
    if as_json:
        print_json(_json(judged))
    else:
        _print(judged)
    if out is not None:
        _draw(judged, out, service=policies.service, is_quiet=as_json)
    if judged.mismatches:
        raise SystemExit(1)


def _judge_file(
    path: Path,
    rivals: Sequence[tuple[str, RolloutPolicy]],
    payoff_range: tuple[float, float],
    *,
    is_quiet: bool,
) -> Judged:
    from policies.gates.history import rehearse
    from services.rehearsal.history_file import read_history
    from services.rehearsal.history_polls import polls_of

    history = read_history(path)
    notes = [f"{len(history.at):,} units, {history.rows:,} rows, {100 * history.share:.2f} % canary"]
    if history.unused:
        notes.append(f"columns without a meaning here: {', '.join(history.unused)}")
    found, polls = [], 0
    for name, policy in rivals:
        one = polls_of(history, policy, payoff_range)
        label = name or "rollout.yaml"
        with _progress(label, is_quiet=is_quiet) as progress:
            timeline = rehearse(
                one.policy, one.polls, payoff_range, recorded_by=one.policy, progress=progress
            )
        found.append((label, timeline))
        notes += [f"{label}: {note}" if name else note for note in one.notes]
        polls = max(polls, len(one.polls))
    return Judged(str(path), polls, tuple(found), tuple(notes))


def _judge_rollout(
    rollout_id: str, rivals: Sequence[tuple[str, RolloutPolicy]], home_name: str, *, is_quiet: bool
) -> Judged:
    from policies.gates.history import mismatches, rehearse, replay
    from services.rollout.recorded import recorded_rollout
    from services.store.rollouts import UnknownRollout, recent

    _, db = open_records(home_name)
    known = [record.id for record in recent(db)]
    if rollout_id == LAST and known:
        rollout_id = known[0]
    try:
        kept = recorded_rollout(db, rollout_id)
    except UnknownRollout:
        fail(f"no history file and no rollout {rollout_id!r}; rollouts here: {', '.join(known) or 'none'}")
    payoff_range = kept.utility.range
    with _progress(AS_IT_RAN, is_quiet=is_quiet) as progress:
        ran = replay(kept.policy, kept.polls, payoff_range, progress=progress)
    found, notes = [(AS_IT_RAN, ran)], []
    for name, policy in rivals:
        label = name or "rollout.yaml"
        if policy.digest == kept.policy.digest:
            notes.append(f"{label} is the policy that ran")
            continue
        with _progress(label, is_quiet=is_quiet) as progress:
            timeline = rehearse(policy, kept.polls, payoff_range, recorded_by=kept.policy, progress=progress)
        found.append((label, timeline))
        for stage, lacks in timeline.unknown.items():
            notes += [f"{label}, {stage}: {metric} {why}" for metric, why in lacks.items()]
    return Judged(f"rollout {rollout_id}", len(kept.polls), tuple(found), tuple(notes), mismatches(ran))


@contextmanager
def _progress(label: str, *, is_quiet: bool) -> Iterator[Callable[[float], object]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, width=None if console.is_terminal else PIPE_WIDTH),
        transient=True,
        disable=is_quiet,
    )
    with bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _print(judged: Judged) -> None:
    for note in judged.notes:
        _say(f"[dim]{_plain(note)}[/]")
    start = judged.found[0][1].said[0].poll.entered_at
    for label, timeline in judged.found:
        changes = timeline.changes()
        title = f"{judged.source}, {label}: what it says, wherever that changes"
        rows = [_row(said, start) for said in changes[:MOST_ROWS]]
        print_table(title, ("at", "stage", "verdict", "reason", "why"), rows)
        if len(changes) > MOST_ROWS:
            _say(f"[dim]… and {len(changes) - MOST_ROWS} changes more; --json has them all[/]")
    if len(judged.found) > 1:
        _print_differences(judged, start)
    if judged.mismatches:
        _say(f"[red]{len(judged.mismatches)} of {judged.polls} verdicts are not those on record[/]")
        for said in judged.mismatches[:5]:
            was = f"{said.poll.decision} ({said.poll.reason})"
            _say(f"  {said.poll.at - start:.1f} s: on record {was}, now {_plain(said.verdict.sentence())}")
    elif judged.mismatches is not None:
        _say(f"[green]all {judged.polls:,} verdicts are those on record[/]")


def _row(said: Said, start: float) -> tuple[str, ...]:
    verdict = said.verdict
    decision = verdict.decision.value + (" →" if said.moves else "")
    return (
        f"{said.poll.at - start:,.1f} s",
        verdict.stage,
        decision,
        verdict.reason.value,
        _plain(verdict.detail),
    )


def _print_differences(judged: Judged, start: float) -> None:
    labels = [label for label, _ in judged.found]
    print_table(
        "What each policy makes of each stage: when it would leave it, else what it said last",
        ("", "stage", *labels),
        [
            ("≠" if differs else "", stage, *(_told(story, start) for story in stories))
            for stage, stories, differs in _stages(judged)
        ],
    )


def _stages(judged: Judged) -> list[tuple[str, list[Story | None], bool]]:
    """Per logged stage every policy's story, and whether one differs from the first policy's."""
    from policies.gates.history import side_by_side

    (_, first), *others = judged.found
    tables = [side_by_side(first, other) for _, other in others]
    found: dict[str, tuple[str, list[Story | None], bool]] = {}
    for index, table in enumerate(tables):
        for row in table:
            _, stories, differs = found.get(row.logged_stage, ("", [row.one, *[None] * len(others)], False))
            stories[index + 1] = row.other
            found[row.logged_stage] = (row.logged_stage, stories, differs or row.differs)
    return list(found.values())


def _told(story: Story | None, start: float) -> str:
    if story is None:
        return "is not there"
    said = story.first
    when = "" if said.moves else "still "
    return (
        f"{when}{said.verdict.decision.value} ({said.verdict.reason.value}) "
        f"at {said.poll.at - start:,.1f} s, {said.after_s:,.1f} s into it"
    )


def _json(judged: Judged) -> dict[str, object]:
    wrong = judged.mismatches
    return {
        "source": judged.source,
        "polls": judged.polls,
        "notes": list(judged.notes),
        "as_recorded": None if wrong is None else not wrong,
        "mismatches": [_said_json(said) for said in wrong or ()],
        "policies": [
            {
                "policy": label,
                "digest": timeline.policy.digest,
                "timeline": [_said_json(said) for said in timeline.changes()],
                "unknown": {stage: dict(lacks) for stage, lacks in timeline.unknown.items()},
            }
            for label, timeline in judged.found
        ],
        "stages": [
            {
                "stage": stage,
                "differs": differs,
                "first": [None if story is None else _said_json(story.first) for story in stories],
            }
            for stage, stories, differs in (_stages(judged) if len(judged.found) > 1 else ())
        ],
    }


def _said_json(said: Said) -> dict[str, object]:
    verdict = said.verdict
    return {
        "at": said.poll.at,
        "after_s": said.after_s,
        "stage": verdict.stage,
        "decision": verdict.decision.value,
        "reason": verdict.reason.value,
        "detail": verdict.detail,
        "leaves_the_stage": said.moves,
        "gates": [gate.sentence() for gate in verdict.gates],
    }


def _draw(judged: Judged, out: Path, *, service: str, is_quiet: bool) -> None:
    import json

    from services.reports.history_plot import write_html, write_png

    out.mkdir(parents=True, exist_ok=True)
    title = f"{service}: {judged.source} judged again"
    write_png(out / "history.png", judged.found, title=title)
    write_html(out / "history.html", judged.found, title=title)
    (out / "history.json").write_text(json.dumps(_json(judged), indent=2), encoding="utf-8")
    if not is_quiet:
        _say(f"written: {out}/history.png, history.html, history.json")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)

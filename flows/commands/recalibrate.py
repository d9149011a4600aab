"""`trimtab recalibrate`: a small release of an old one, whose probabilities and operating point fit what came since."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    SERVICE_OPTION,
    console,
    fail,
    open_records,
    print_json,
)

if TYPE_CHECKING:
    from services.home import Home
    from services.rollout.outcome_rows import OutcomeRows
    from services.rollout.release_job import ReleaseJob
    from services.serving.release import Release
    from services.store.database import Database

SEED = 7
DEFAULT_SINCE = "7d"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recalibrate")(recalibrate)


def recalibrate(
    release: str = typer.Option(
        None, "--release", help="The release to recalibrate; default: the stable one."
    ),
    since: str = typer.Option(
        None,
        "--since",
        help=f"Use the store's decisions of this long, since its weights were made; default: {DEFAULT_SINCE}.",
    ),
    rows: Path = typer.Option(
        None,
        "--rows",
        help="Instead: a file of rows with outcomes (.csv, .parquet); those later than the release's are used.",
    ),
    method: str = typer.Option(
        "calibration",
        "--method",
        help="calibration (slope and bias), prior-shift (the base rate only) or prior-shift-em (the base rate, without "
        "outcomes: from the scores of all rows, where only it has moved).",
    ),
    roll_out: bool = typer.Option(
        False, "--roll-out/--pack", help="Roll it out at once, or only pack it and say how to."
    ),
    name: str = HOME_OPTION,
    service: str = SERVICE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Refit a release's probabilities and operating point on recent outcomes; the weights stay as they are.

    Fitted on the earlier two thirds of the rows in time, judged on the later third by the alignment gates against the
    stable release, and packed as a release of its own. Live, only decisions after an action of `outcomeKnownAfter` have
    an outcome: how many is said.

    Example: trimtab recalibrate --since 14d
    """
    from flows.system import stable_release
    from flows.wiring import code_version
    from services.rollout.policy_set import load_policies
    from services.rollout.recalibration import recalibrate_release
    from services.rollout.release_job import ReleaseJob, StageRefused, Watcher
    from services.serving.release import find_release
    from services.training.recalibrate import METHODS

    wanted = next((one for one in METHODS if one.replace("_", "-") == method), None)
    if wanted is None:
        fail(f"'--method' must be one of {', '.join(one.replace('_', '-') for one in METHODS)}: {method}")
    if rows is not None and since is not None:
        fail("'--since' reads the store, '--rows' a file: say one of them")
    if roll_out and as_json:
        fail("'--json' speaks of the packed release: run `trimtab rollout start --json` for the rollout's")
    home, db = open_records(name)
    stable = stable_release(home)
    if stable is None:
        fail(f"there is no stable release in {home.root}; `trimtab run` makes the first one")
    if roll_out:
        _require_free(home, db, service)
    parent = find_release(home.releases, release or stable)
    if parent.service != service:
        fail(f"{parent.id} is a release of {parent.service!r}: say --service {parent.service}")
    policies = load_policies(service)
    job = ReleaseJob(
        name=f"{service}-recalibrated-{int(time.time())}",
        home=home,
        db=db,
        policies=policies,
        start=0.0,
        stop=1.0,
        seed=SEED,
        champion=find_release(home.releases, stable),
        code_version=code_version(),
        clock=time.time,
        watcher=Watcher(say=lambda text: None if as_json else _say(text)),
    )
    found = _rows(job, rows, since, parent)
    try:
        made = recalibrate_release(job, parent, found, method=wanted)
    except StageRefused as refused:
        if as_json:
            print_json({"release": None, "parent": parent.id, "verdict": refused.verdict.to_json()})
        fail(f"not packed: {refused}")
    order = f"trimtab rollout start --release {made.release.id}"
    if as_json:
        print_json({**made.to_json(), "roll_out": order})
        return
    for sentence in made.sentences():
        _say(sentence)
    _say(f"[bold]{made.release.id}[/] packed, of {parent.id}: same weights, same preprocessing")
    if not roll_out:
        _say(order)
        return
    from flows.commands.operate_rollout import start

    start(release=made.release.id, name=name, service=service, without_prefect=False, as_json=False)


def _require_free(home: Home, db: Database, service: str) -> None:
    """Asked before the work: a release that is packed and cannot be rolled out is not what was asked for."""
    from flows.system import is_up
    from services.store import rollouts

    if (under_way := rollouts.active(db, service)) is not None:
        fail(f"rollout {under_way.id} of {under_way.candidate} is not over; `trimtab status` shows it")
    if not is_up(home):
        fail("the system is down: `trimtab up` first, or leave --roll-out away")


def _rows(job: ReleaseJob, rows: Path | None, since: str | None, parent: Release) -> OutcomeRows:
    from services.rollout.made_of import rows_through, weights_made_at
    from services.rollout.outcome_rows import rows_of_file, rows_of_store

    if rows is None:
        now = job.clock()
        start = max(weights_made_at(parent), now - _seconds(since or DEFAULT_SINCE))
        return rows_of_store(job.db, job.policies, since=start, now=now)
    from flows.read_rows import read_rows

    delivered = read_rows(rows, job.policies.contract)
    folder = job.home.snapshots / job.name
    return rows_of_file(
        delivered, job.policies, folder=folder, source=rows.name, later_than=rows_through(parent)
    )


def _seconds(since: str) -> float:
    from policies.language.quantities import seconds_of

    try:
        return seconds_of(since)
    except ValueError as error:
        fail(f"'--since' {error}")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)

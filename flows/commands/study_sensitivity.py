"""`trimtab utility sensitivity`: how much of what a release decides rests on numbers that may be off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    print_json,
    print_table,
    refuse_policy,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from policies.utility.sensitivity_result import Sensitivity
    from services.home import Home
    from services.rollout.policy_set import PolicySet
    from services.serving.release import Release
    from services.training.preprocessing import Columns

SEED = 7


def study_sensitivity(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    release: str = typer.Option(None, "--release", help="A release's id; default: the newest of the home."),
    champion: str = typer.Option(
        None, "--champion", help="A release to compare with: where does the order turn?"
    ),
    rows: Path = typer.Option(
        None,
        "--rows",
        help="A file of rows with outcomes (.csv, .parquet); default: those of the alignment stage.",
    ),
    out: Path = typer.Option(
        None, "--out", help="Folder for the tornado (PNG and HTML) and the numbers (JSON)."
    ),
    home_name: str = HOME_OPTION,
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Vary each number in doubt of utility.yaml over its range, alone and all at once, on rows with known outcomes.

    Says what is lost if the stated number is wrong, how many decisions flip, and where the order with others turns.

    Example: trimtab utility sensitivity telemarketing --out /tmp/sensitivity
    """
    from flows.wiring import locate_home
    from policies.language.yaml_source import PolicyError
    from services.alignment.study import vary
    from services.rollout.policy_set import POLICIES, load_policies
    from services.serving.release import find_release
    from services.serving.scorer import Scorer
    from services.training.predicted_fields import settled

    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    home = locate_home(home_name)
    of = _newest(home, service) if release is None else find_release(home.releases, release)
    scorer = Scorer.load(of)
    if (scorer.utility.actions, scorer.utility.outcomes) != (
        policies.utility.actions,
        policies.utility.outcomes,
    ):
        fail(f"{of.id} decides between other actions or outcomes than utility.yaml")
    columns, outcomes = _rows(policies, of, rows)
    decided_on = scorer.decided_on(columns)
    columns = settled(columns, decided_on, scorer.predicted_fields)
    rival = None
    if champion is not None:
        rival = Scorer.load(find_release(home.releases, champion)).decide(columns).actions
    found = vary(
        policies.utility,
        columns,
        probabilities=scorer.probabilities(columns),
        outcomes=outcomes,
        operating_point=scorer.operating_point,
        champion=rival,
        decided_on=decided_on,
        seed=SEED,
    )
    if found is None:
        fail(f"no number of {policies.place}/utility.yaml has a sensitivity range")
    if as_json:
        print_json({"release": of.id, **found.to_json()})
    else:
        _print(found, of)
    if out is not None:
        _write(found, service, out, is_quiet=as_json)


def _newest(home: Home, service: str) -> Release:
    from services.serving.release import read_release

    found = (
        [read_release(path) for path in home.releases.glob(f"{service}-*")] if home.releases.is_dir() else []
    )
    if not found:
        fail(f"there is no release of {service} in {home.releases}: `trimtab run` makes some")
    return max(found, key=lambda one: one.created_at)


def _rows(policies: PolicySet, release: Release, file: Path | None) -> tuple[Columns, NDArray[np.int64]]:
    """The rows of the file; else those that the release's alignment stage saw: later than all it was trained on."""
    from flows.read_rows import read_rows
    from services.data.splits import by_event_time, to_arrays
    from services.training.known_rows import known_rows
    from services.training.time_slices import TimePlan, time_slices

    contract, utility = policies.contract, policies.utility
    delivered = read_rows(file, contract)
    if file is None:
        start, stop = (float(str(end)) for end in _pair(release.provenance["span"]))
        span = by_event_time(delivered, contract, start=start, stop=stop)
        columns = time_slices(to_arrays(span, contract), TimePlan()).test
    else:
        columns = to_arrays(delivered, contract)
    return known_rows(columns, contract, utility)


def _pair(value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or len(value) != 2:
        fail(f"the release does not say which span of time it was made of: {value!r}")
    return value


def _print(found: Sensitivity, release: Release) -> None:
    from services.reports.sensitivity_panels import TITLE, brittle_sentence, header, joint_sentence, rows

    print_table(f"{TITLE}: {release.id}, {found.n:,} rows", header(found), rows(found))
    for text in (joint_sentence(found), brittle_sentence(found)):
        console.print(text, highlight=False, soft_wrap=True)


def _write(found: Sensitivity, service: str, out: Path, *, is_quiet: bool) -> None:
    import json

    from services.reports.sensitivity_panels import TITLE, tornado_of
    from services.reports.tornado_plot import write_html, write_png

    out.mkdir(parents=True, exist_ok=True)
    drawn = tornado_of(found, title=f"{service}: {TITLE[0].lower()}{TITLE[1:]}")
    write_png(out / "sensitivity.png", drawn)
    write_html(out / "sensitivity.html", drawn)
    (out / "sensitivity.json").write_text(json.dumps(found.to_json(), indent=2), encoding="utf-8")
    if not is_quiet:
        names = "sensitivity.png, sensitivity.html, sensitivity.json"
        console.print(f"written: {out}/: {names}", highlight=False, soft_wrap=True)

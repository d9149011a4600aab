"""Scores a release on a frozen benchmark: its utility per decision, what it saves, each stakeholder's, and how sure.

The release decides by its own operating point and its own utility spec; what that comes to is priced by the frozen one.
Everything shares rows and resamples, so differences are paired. A release that was made of rows of the benchmark is no
judge of itself: `seen_rows` counts them.
Must never import: torch, bentoml, prefect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.gates.evidence import Measured
from policies.utility.utility import realised_utility
from services.alignment.bootstrap import RESAMPLES, PairedMeans, interval
from services.benchmarks.frozen_rows import BenchmarkError, FrozenRows
from services.rollout.made_of import weights_job
from services.training.predicted_fields import settled
from services.training.time_slices import TimePlan

if TYPE_CHECKING:
    import polars as pl

    from policies.utility.utility import UtilitySpec
    from services.serving.release import Release
    from services.serving.scorer import Scorer

SEED = 7
_OWN, _RIVAL, _HINDSIGHT = "release", "against", "hindsight"


@dataclass(frozen=True)
class Against:
    """Another release on the same rows: `difference` is the scored release's utility less its, paired."""

    release: str
    utility: Measured
    difference: Measured
    disagreement: float


@dataclass(frozen=True)
class Score:
    """A release on a benchmark; utilities per decision in the frozen spec's unit, higher is better.

    `savings` is 1 - regret / the best trivial policy's regret, both to hindsight: 1 decides as one who knows the
    outcome, 0 as the best single action for all; None where that action is the best in hindsight, too. `seen`: rows
    of the benchmark that the release was made of, None where its snapshot is not there to tell.
    """

    release: str
    n: int
    unit: str
    utility: Measured
    best_trivial: str
    gain_over_trivial: Measured
    savings: Measured | None
    stakeholders: Mapping[str, Measured]
    actions: Mapping[str, float]
    is_same_spec: bool
    seen: int | None
    against: Against | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict, JSON-safe."""
        return asdict(self)


def score(
    frozen: FrozenRows,
    scorer: Scorer,
    *,
    release: str,
    seen: int | None,
    rival: tuple[str, Scorer, int | None] | None = None,
    resamples: int = RESAMPLES,
) -> Score:
    """Score one release, and beside another where `rival` gives its id, its scorer, and what it has `seen`.

    Raises BenchmarkError for a release of other actions or outcomes, or one that was made of these rows.
    """
    _refuse_seen(frozen, release, seen)
    if rival is not None:
        _refuse_seen(frozen, rival[0], rival[2])
    utility, outcomes = frozen.utility, frozen.outcomes
    actions = _actions(frozen, scorer, release)
    hidden = [name for name in scorer.predicted_fields if name in utility.hidden]
    columns = settled(frozen.columns, scorer.decided_on(frozen.columns), hidden)
    payoffs = utility.payoffs(columns)
    book = PairedMeans()
    book.add(_OWN, realised_utility(payoffs, actions, outcomes))
    for index, name in enumerate(utility.actions):
        always = np.full(len(outcomes), index, dtype=np.intp)
        book.add(f"always {name}", realised_utility(payoffs, always, outcomes))
    book.add(_HINDSIGHT, payoffs[np.arange(len(outcomes)), :, outcomes].max(axis=1))
    for name, theirs in utility.stakeholder_payoffs(columns).items():
        book.add(f"stakeholder {name}", realised_utility(theirs, actions, outcomes))
    others = None
    if rival is not None:
        others = _actions(frozen, rival[1], rival[0])
        book.add(_RIVAL, realised_utility(payoffs, others, outcomes))
    book.run(seed=SEED, resamples=resamples)
    trivial = max((f"always {name}" for name in utility.actions), key=lambda name: book.means[name])
    against = None
    if rival is not None and others is not None:
        against = Against(
            rival[0],
            book.mean(_RIVAL),
            book.difference(_OWN, _RIVAL),
            float((actions != others).mean()),
        )
    return Score(
        release=release,
        n=book.n,
        unit=utility.unit,
        utility=book.mean(_OWN),
        best_trivial=trivial,
        gain_over_trivial=book.difference(_OWN, trivial),
        savings=_savings(book, trivial),
        stakeholders={one.name: book.mean(f"stakeholder {one.name}") for one in utility.stakeholders},
        actions={name: float((actions == index).mean()) for index, name in enumerate(utility.actions)},
        is_same_spec=scorer.utility.digest == utility.digest,
        seen=seen,
        against=against,
    )


def seen_rows(frozen: FrozenRows, release: Release, snapshots: Path) -> int | None:
    """How many of the frozen rows the release was fitted, selected, calibrated or given its operating point on.

    Told by the entity keys of its snapshots, which must have the digests that the release carries: that of its weights
    and, if it was recalibrated on a file, that of the file. None where none of these rows is known to be among them and
    a snapshot is not there to tell; rows that were served live have none.
    """
    import polars as pl

    contract, provenance = frozen.contract, release.provenance
    key, time = contract.entity_key, contract.event_time
    rows = _snapshot(snapshots / weights_job(release), provenance.get("snapshot_digest"), [key])
    made_of = [None if rows is None else rows.head(round(len(rows) * TimePlan().calibration))]
    newer = provenance.get("recalibration")
    if isinstance(newer, Mapping):
        rows = _snapshot(snapshots / str(provenance.get("job")), newer.get("rows_digest"), [key, time])
        through = 1e6 * float(str(newer.get("fitted_through")))
        made_of.append(None if rows is None else rows.filter(pl.col(time).dt.epoch("us") <= through))
    known = {str(one) for part in made_of if part is not None for one in part.get_column(key)}
    there = pl.read_parquet(frozen.folder / "rows.parquet", columns=[key]).get_column(key)
    seen = sum(str(one) in known for one in there)
    is_told = all(part is not None for part in made_of)
    return seen if seen or is_told else None


def _snapshot(folder: Path, digest: object, columns: list[str]) -> pl.DataFrame | None:
    """These columns of a job's checked rows; None where they are not there, or not those of the digest."""
    import polars as pl

    from services.data.snapshot import snapshot_digest

    file = folder / "snapshot.parquet"
    return (
        pl.read_parquet(file, columns=columns) if file.is_file() and snapshot_digest(file) == digest else None
    )


def _refuse_seen(frozen: FrozenRows, release: str, seen: int | None) -> None:
    if seen:
        raise BenchmarkError(
            f"{release} was made of {seen:,} rows of {frozen.manifest.title}: it cannot be judged by them; "
            "freeze later rows"
        )


def _actions(frozen: FrozenRows, scorer: Scorer, release: str) -> Any:
    own: UtilitySpec = scorer.utility
    if (own.actions, own.outcomes) != (frozen.utility.actions, frozen.utility.outcomes):
        raise BenchmarkError(
            f"{release} decides between other actions or outcomes than {frozen.manifest.title}"
        )
    return scorer.decide(frozen.columns).actions


def _savings(book: PairedMeans, trivial: str) -> Measured | None:
    attainable = book.difference(_HINDSIGHT, trivial).value
    if not attainable > 0:
        return None
    resampled = book.resampled[_HINDSIGHT] - book.resampled[trivial]
    gains = book.resampled[_OWN] - book.resampled[trivial]
    if not (resampled > 0).all():
        return Measured(book.difference(_OWN, trivial).value / attainable, n=book.n)
    ends = interval(gains / resampled)
    return Measured(book.difference(_OWN, trivial).value / attainable, *ends, book.n)

"""Promises of versioned benchmarks: frozen once, refused when a byte is off, numbers that two releases can share."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from policies.utility.utility import realised_utility
from services.benchmarks.frozen_rows import BenchmarkError, Manifest, freeze, manifests, read_frozen
from services.benchmarks.history import check_frozen, record_frozen, record_run, runs
from services.benchmarks.score import score, seen_rows
from services.data.contract import DataContract
from services.ledger.ledger import verify
from services.rehearsal.bank_marketing import read_calls
from services.serving.release import Release
from services.serving.scorer import Scorer
from services.store.database import Database

ROWS = 400


@pytest.fixture(scope="module")
def delivered(contract: DataContract) -> pl.DataFrame:
    """400 of the rehearsal's calls, a minute apart; every tenth has no outcome, the third breaks the contract."""
    at = pl.int_range(ROWS)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        read_calls()
        .tail(ROWS)
        .with_columns(
            (pl.lit(first) + pl.duration(minutes=at)).alias(contract.event_time),
            pl.when(at % 10 == 0).then(None).otherwise(pl.col(contract.label)).alias(contract.label),
            pl.when(at == 2).then(-5).otherwise(pl.col("age")).alias("age"),
        )
    )


@pytest.fixture
def make(delivered: pl.DataFrame, policy_texts: dict[str, str], tmp_path: Path) -> Callable[..., Manifest]:
    def freeze_it(**changed: Any) -> Manifest:
        usual: dict[str, Any] = {"name": "autumn", "version": None, "start": 0.0, "stop": 1.0}
        return freeze(
            tmp_path / "benchmarks",
            delivered,
            texts=policy_texts,
            source="a test",
            at=1000.0,
            **{**usual, **changed},
        )

    return freeze_it


def test_a_frozen_set_holds_the_known_rows_and_says_what_it_left_out(
    make: Callable[..., Manifest], tmp_path: Path
) -> None:
    """Of 400 rows 1 breaks the contract and 40 have no outcome; rows, prices and places are read as frozen."""
    made = make()
    assert (made.rows, made.quarantined, made.unlabelled) == (359, 1, 40)
    found = read_frozen(tmp_path / "benchmarks", "autumn")
    assert found.manifest == made
    assert found.manifest.digest == made.digest
    assert len(found.outcomes) == 359
    assert found.utility.digest == made.utility_digest
    assert list(found.columns["age"][:2]) != [-5, -5]


def test_a_slice_of_time_is_frozen(make: Callable[..., Manifest]) -> None:
    """The second half in the order of time starts at the 200th minute; its first row has no outcome."""
    made = make(start=0.5)
    assert made.rows == 180
    assert made.first_event == datetime(2026, 1, 1, 3, 21, tzinfo=UTC).timestamp()


def test_a_version_is_never_overwritten(make: Callable[..., Manifest], tmp_path: Path) -> None:
    """The same version again is refused and changes nothing; without one the next number is taken."""
    first = make()
    with pytest.raises(BenchmarkError, match="frozen and stays as it is"):
        make(version=1, start=0.5)
    second = make(start=0.5)
    assert [one.title for one in manifests(tmp_path / "benchmarks")] == ["autumn-v1", "autumn-v2"]
    assert read_frozen(tmp_path / "benchmarks", "autumn", 1).manifest == first
    assert read_frozen(tmp_path / "benchmarks", "autumn").manifest == second


@pytest.mark.parametrize("file", ["rows.parquet", "contract.yaml", "utility.yaml"])
def test_a_byte_that_is_off_is_refused(file: str, make: Callable[..., Manifest], tmp_path: Path) -> None:
    """Whichever file it is in, the error names the file."""
    make()
    changed = tmp_path / "benchmarks" / "autumn-v1" / file
    changed.chmod(0o600)
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(BenchmarkError, match=f"{file}: content must be sha256"):
        read_frozen(tmp_path / "benchmarks", "autumn")


def test_a_manifest_rewritten_to_fit_is_found_by_the_ledger(
    make: Callable[..., Manifest], tmp_path: Path, db: Database
) -> None:
    """Rows and manifest that agree with each other, but are not what was frozen; and one that nobody saw frozen."""
    made = make()
    with pytest.raises(BenchmarkError, match="has not seen autumn-v1"):
        check_frozen(db, made)
    record_frozen(db, made, at=1.0)
    check_frozen(db, made)
    file = tmp_path / "benchmarks" / "autumn-v1" / "manifest.json"
    file.chmod(0o600)
    file.write_text(json.dumps({**json.loads(file.read_text()), "made_at": 2000.0}))
    with pytest.raises(BenchmarkError, match="must be the one frozen"):
        check_frozen(db, read_frozen(tmp_path / "benchmarks", "autumn").manifest)


def test_a_score_is_the_mean_over_the_frozen_rows(
    make: Callable[..., Manifest], write: Callable[..., Release], tmp_path: Path
) -> None:
    """Utility, gain, savings and stakeholders against sums by hand; each interval holds its value."""
    make()
    frozen = read_frozen(tmp_path / "benchmarks", "autumn")
    scorer = Scorer.load(write(0.0))
    found = score(frozen, scorer, release="r", seen=0)
    payoffs = frozen.utility.payoffs(frozen.columns)
    actions = scorer.decide(frozen.columns).actions
    own = realised_utility(payoffs, actions, frozen.outcomes).mean()
    always = realised_utility(payoffs, np.ones_like(actions), frozen.outcomes).mean()
    best = payoffs[np.arange(359), :, frozen.outcomes].max(axis=1).mean()
    trivial = max(0.0, always)
    assert found.n == 359
    assert found.utility.value == pytest.approx(own)
    assert found.gain_over_trivial.value == pytest.approx(own - trivial)
    assert found.savings is not None
    assert found.savings.value == pytest.approx((own - trivial) / (best - trivial))
    unwanted = ((actions == 1) & (frozen.outcomes == 0)).mean()
    assert found.stakeholders["customer"].value == pytest.approx(-unwanted)
    assert found.actions["call"] == pytest.approx((actions == 1).mean())
    for one in (found.utility, found.gain_over_trivial, found.savings, found.stakeholders["bank"]):
        assert one.lower is not None
        assert one.upper is not None
        assert one.lower < one.value < one.upper


def test_two_releases_are_compared_row_by_row(
    make: Callable[..., Manifest], write: Callable[..., Release], tmp_path: Path
) -> None:
    """The difference is of paired rows: exactly zero for the same rule, and narrower than two separate intervals."""
    make()
    frozen = read_frozen(tmp_path / "benchmarks", "autumn")
    one, other = Scorer.load(write(0.0)), Scorer.load(write(-0.4))
    same = score(frozen, one, release="a", seen=0, rival=("b", one, 0)).against
    assert same is not None
    assert (same.difference.value, same.difference.lower, same.difference.upper) == (0.0, 0.0, 0.0)
    found = score(frozen, one, release="a", seen=0, rival=("b", other, 0))
    assert found.against is not None
    apart = found.against.difference
    assert apart.value == pytest.approx(found.utility.value - found.against.utility.value)
    assert apart.lower is not None
    assert apart.upper is not None
    assert found.utility.lower is not None
    assert found.utility.upper is not None
    assert apart.upper - apart.lower < found.utility.upper - found.utility.lower


def test_a_release_is_not_judged_by_rows_it_was_made_of(
    make: Callable[..., Manifest],
    write: Callable[..., Release],
    delivered: pl.DataFrame,
    contract: DataContract,
    tmp_path: Path,
) -> None:
    """Of a snapshot of the first 200 rows 170 made the release; without its snapshot nobody can tell."""
    from services.data.checks import check

    make(start=0.25)
    frozen = read_frozen(tmp_path / "benchmarks", "autumn")
    folder = tmp_path / "snapshots" / "job1"
    folder.mkdir(parents=True)
    seen = check(delivered[:200], contract, quarantine=folder / "quarantine.parquet")
    release = write(0.0, job="job1", snapshot_digest=seen.snapshot_digest)
    # 199 rows kept, the first 169 of them made it: calls 0 to 169; frozen are those from 100 on that have an outcome
    assert seen_rows(frozen, release, tmp_path / "snapshots") == 63
    assert seen_rows(frozen, write(0.0, job="job2"), tmp_path / "snapshots") is None
    with pytest.raises(BenchmarkError, match="was made of 63 rows of autumn-v1"):
        score(frozen, Scorer.load(release), release=release.id, seen=63)


def test_a_recalibrated_release_was_made_of_both_files(
    make: Callable[..., Manifest],
    write: Callable[..., Release],
    delivered: pl.DataFrame,
    contract: DataContract,
    tmp_path: Path,
) -> None:
    """Of rows 0 to 199 up to the 170th by its weights, of 200 to 299 up to the time that its map was fitted through;
    each frozen row counts once. Without one of the two snapshots nobody can tell, but where the other has seen some."""
    from services.data.checks import check

    make(start=0.25)
    frozen = read_frozen(tmp_path / "benchmarks", "autumn")
    digests = {}
    for job, part in (("first", delivered[:200]), ("later", delivered[200:300])):
        folder = tmp_path / "snapshots" / job
        folder.mkdir(parents=True)
        digests[job] = check(part, contract, quarantine=folder / "quarantine.parquet").snapshot_digest
    middle = datetime(2026, 1, 1, 4, 9, tzinfo=UTC).timestamp()  # of row 249
    usual = {"job": "later", "weights_job": "first", "snapshot_digest": digests["first"]}
    newer = {"rows_digest": digests["later"], "fitted_through": middle}
    both = write(0.0, **usual, recalibration=newer)
    assert seen_rows(frozen, both, tmp_path / "snapshots") == 63 + 45
    live = write(0.0, **usual, recalibration={**newer, "rows_digest": "sha256:of decisions"})
    assert seen_rows(frozen, live, tmp_path / "snapshots") == 63
    make(start=0.75)
    last = read_frozen(tmp_path / "benchmarks", "autumn")
    assert seen_rows(last, both, tmp_path / "snapshots") == 0
    assert seen_rows(last, live, tmp_path / "snapshots") is None


def test_the_history_of_a_version_is_kept_in_the_ledger(
    make: Callable[..., Manifest], write: Callable[..., Release], tmp_path: Path, db: Database
) -> None:
    """Runs on this very version, oldest first, with their numbers; the chain stays whole."""
    first, second = make(), make(start=0.5)
    for made in (first, second):
        record_frozen(db, made, at=1.0)
    frozen = read_frozen(tmp_path / "benchmarks", "autumn", 1)
    for at, shift in enumerate((0.0, -0.4)):
        release = write(shift)
        found = score(frozen, Scorer.load(release), release=release.id, seen=None)
        record_run(db, first, found, at=2.0 + at)
    past = runs(db, first)
    assert [entry.at for entry in past] == [2.0, 3.0]
    assert len({entry.body["score"]["release"] for entry in past}) == 2  # type: ignore[index,call-overload]
    assert past[-1].body["score"]["utility"]["value"] == found.utility.value  # type: ignore[index,call-overload]
    assert runs(db, second) == ()
    assert verify(db).ok

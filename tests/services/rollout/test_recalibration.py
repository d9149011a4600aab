"""A release made anew on later rows: same weights, its own id and record; and the rows it is made of, counted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.language.yaml_source import load_document
from policies.operating.operating_point import OperatingPoint
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility
from services.home import Home, Ports
from services.ledger.ledger import entries
from services.rehearsal.bank_marketing import read_calls
from services.rollout.made_of import base_rates, weights_job, weights_made_at
from services.rollout.outcome_rows import (
    OLD,
    UNREADABLE,
    UNSETTLED,
    YOUNG,
    OutcomeRows,
    RecalibrationError,
    rows_of_file,
    rows_of_store,
)
from services.rollout.policy_set import PolicySet, load_policies
from services.rollout.recalibration import recalibrate_release
from services.rollout.release_job import ReleaseJob
from services.serving.release import Release, read_release, write_release
from services.store import decisions as store
from services.store.database import Database
from services.store.decisions import DecisionRow
from services.store.measurements import Measurement, record_measurements
from services.store.outcomes import Outcome, record_outcomes
from services.training.calibration import Calibration
from services.training.errors import TrainingError
from services.training.forward import forward
from services.training.time_slices import UNLABELLED

SERVICE = "telemarketing"
BELIEVED = Calibration(2.0, (0.0, 1.0))


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    """Of the service, without the gate on scenarios: they speak of the rehearsal's rows."""
    found = load_policies(SERVICE)
    policy = load_document(found.texts["rollout.yaml"], "r").data
    gates = [gate for gate in policy["gates"] if gate["name"] != "scenarios"]
    return replace(
        found, rollout=load_rollout(json.dumps({**policy, "gates": gates}), "rollout.yaml"), scenarios=None
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", Ports(40_000))


@pytest.fixture
def parent(home: Home, parts: Any, policies: PolicySet) -> Release:
    return parent_in(home, parts, policies, rates={"not_subscribed": 0.6, "subscribed": 0.4})


def parent_in(
    home: Home,
    parts: Any,
    policies: PolicySet,
    *,
    rates: dict[str, float],
    calibration: Calibration = BELIEVED,
) -> Release:
    """A made-up network, sharper than most, that believes in too many subscribers."""
    return write_release(
        home.releases,
        service=SERVICE,
        candidate=replace(parts, calibration=calibration),
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policies.texts,
        provenance={
            "job": "first",
            "span": [0.0, 0.3],
            "seed": 2,
            "made_of": {"through": 900.0, "base_rates": rates},
        },
        created_at=1_000.0,
    )


@pytest.fixture(scope="module")
def later(parts: Any, rows: list[dict[str, Any]]) -> OutcomeRows:
    """3,000 rows of a time in which far fewer subscribe than the parent believes; every outcome is known."""
    columns = {name: np.tile(np.array([row[name] for row in rows]), 3) for name in rows[0]}
    columns["balance"] = np.random.default_rng(4).uniform(0, 1_000, 3_000)
    columns["age"] = np.random.default_rng(5).integers(18, 80, 3_000).astype(float)
    logits = forward(parts.architecture, parts.weights, parts.preprocessing.transform(columns))
    chances = Calibration(2.0, (0.0, -2.0)).apply(logits)[:, 1]
    outcomes = (np.random.default_rng(6).random(3_000) < chances).astype(np.int64)
    return OutcomeRows(columns, outcomes, 2_000.0 + np.arange(3_000), "made up", "sha256:00", {})


def job_in(home: Home, db: Database, policies: PolicySet, champion: Release) -> ReleaseJob:
    return ReleaseJob(
        name=f"{SERVICE}-recalibrated-1",
        home=home,
        db=db,
        policies=policies,
        start=0.0,
        stop=1.0,
        seed=7,
        champion=champion,
        code_version="test",
        clock=lambda: 9_000.0,
    )


def test_the_weights_stay_and_more_is_earned(
    home: Home, db: Database, policies: PolicySet, parent: Release, later: OutcomeRows
) -> None:
    """Weights, network and preprocessing have the parent's digests, calibration and point have not; the later third
    earns more; parent, method, rows and time range are in the provenance, the gates' verdict on the ledger. Every third
    outcome was not seen: that is counted, and said with how many of those rows the release would newly act on."""
    few = replace(later, outcomes=np.where(np.arange(len(later)) % 3 == 0, UNLABELLED, later.outcomes))
    made = recalibrate_release(job_in(home, db, policies, parent), parent, few, method="calibration")
    release = read_release(made.release.folder)
    same = {name for name, digest in parent.digests.items() if release.digests[name] == digest}
    assert {"weights.safetensors", "network.json", "preprocessing.json"} <= same
    assert not {"calibration.json", "operating_point.json"} & same
    assert release.id != parent.id
    assert made.judged.after > made.judged.before + 0.1
    assert made.judged.seen_gain > 0.05
    assert (made.fitted_rows, sum(made.fitted.seen)) == (2_000, 1_333)
    assert (made.judged.rows, made.judged.seen) == (1_000, 667)
    assert made.fitted.calibration.bias[1] == pytest.approx(-2.0, abs=0.4)
    said = " ".join(made.sentences())
    assert "2,000 of them with a known outcome; the outcomes of the other 1,000 were not seen" in said
    assert f"newly acts on {made.judged.unseen_acts:,} rows whose outcome nobody saw" in said
    assert release.created_at == 9_000.0
    assert weights_made_at(release) == weights_made_at(parent) == 1_000.0
    assert (release.provenance["parent"], release.provenance["span"]) == (parent.id, [0.0, 0.3])
    assert release.provenance["recalibration"] == {
        "method": "calibration",
        "rows": 3_000,
        "seen": 2_000,
        "rows_digest": "sha256:00",
        "source": "made up",
        "from": 2_000.0,
        "fitted_through": 3_999.0,
        "to": 4_999.0,
        "base_rates": dict(zip(policies.utility.outcomes, made.fitted.base_rates, strict=True)),
    }
    recorded = [entry.kind for entry in entries(db) if entry.kind != "measured"]
    assert recorded == ["verdict", "aligned", "recalibrated", "release_packed"]
    verdict = entries(db, kind="verdict")[0].body["verdict"]
    assert (verdict["stage"], verdict["decision"]) == ("alignment", "ADVANCE")


def test_a_network_that_was_trained_to_decide_is_refused(
    home: Home, db: Database, policies: PolicySet, parts: Any, later: OutcomeRows
) -> None:
    """Its scores are no probabilities, so that no method fits: it says so, and to retrain."""
    trained = parent_in(home, parts, policies, rates={}, calibration=Calibration.none(2))
    with pytest.raises(RecalibrationError, match="its scores are no probabilities"):
        recalibrate_release(job_in(home, db, policies, trained), trained, later, method="calibration")


def test_too_few_to_judge_is_refused(
    home: Home, db: Database, policies: PolicySet, parent: Release, later: OutcomeRows
) -> None:
    """Enough to fit on, but not one outcome in the later third: refused with the counts, and nothing is packed."""
    early = replace(later, outcomes=np.where(np.arange(len(later)) < 2_000, later.outcomes, UNLABELLED))
    with pytest.raises(
        TrainingError, match=r"to judge the result.* 0 not_subscribed, 0 subscribed among 1,000"
    ):
        recalibrate_release(job_in(home, db, policies, parent), parent, early, method="calibration")
    assert [folder.name for folder in home.releases.iterdir()] == [parent.id]


def decision(number: int, row: dict[str, Any], **changes: Any) -> DecisionRow:
    known: dict[str, Any] = {
        "decision_id": f"d{number}",
        "request_id": f"q{number}",
        "attempt": 1,
        "at": 1_000.0 + number,
        "unit": f"u{number}",
        "assigned": "stable",
        "shadow": False,
        "release": f"{SERVICE}-0123456789ab",
        "action": "call",
        "score": 0.5,
        "took_ms": 4.0,
        "expected_utility": "[]",
        "probabilities": "[]",
        "row": json.dumps(row),
    }
    return DecisionRow(**{**known, **changes})


def test_only_outcomes_after_a_revealing_action_count(
    db: Database, policies: PolicySet, rows: list[dict[str, Any]]
) -> None:
    """A call with its outcome is seen; a customer left alone is not, whatever was posted; a call without an outcome, a
    row that the contract refuses, shadow, a retried attempt, another service, too young and too old are not there."""
    with pytest.raises(RecalibrationError, match="watermark"):
        rows_of_store(db, policies, since=0.0, now=2_000.0)
    row = rows[0]
    decided = [
        decision(1, row),
        decision(2, row, action="leave"),
        decision(3, row),
        decision(4, {**row, "balance": "much"}),
        decision(5, row, shadow=True),
        decision(6, row),
        decision(7, row, request_id="q6", attempt=2),
        decision(8, row, release="lending-0123456789ab"),
        decision(900, row),
        decision(0, row),
    ]
    with db.write() as connection:
        store.upsert_decisions(connection, decided)
    outcomes = [Outcome(one.decision_id, "subscribed", one.at) for one in decided if one.decision_id != "d3"]
    record_outcomes(db, outcomes, received_at=1_500.0)
    store.set_watermark(db, 1_903.0, at=1_903.0)
    found = rows_of_store(db, policies, since=1_001.0, now=2_000.0)
    assert found.times.tolist() == [1_001.0, 1_002.0, 1_007.0]
    assert found.outcomes.tolist() == [1, UNLABELLED, 1]
    assert found.left_out == {UNREADABLE: 1, UNSETTLED: 1}
    assert found.columns["balance"].tolist() == [row["balance"]] * 3


def test_what_the_log_hides_cannot_be_recalibrated_on(db: Database, policies: PolicySet) -> None:
    """A feature that the contract leaves out of the log may be missing by right: no row is scored without it."""
    store.set_watermark(db, 1_900.0, at=1_900.0)
    columns = tuple(
        replace(one, in_log="dropped") if one.name == "job" else one for one in policies.contract.columns
    )
    hidden = replace(policies, contract=replace(policies.contract, columns=columns))
    with pytest.raises(RecalibrationError, match="hides job in the decision log"):
        rows_of_store(db, hidden, since=0.0, now=2_000.0)


def test_a_hidden_field_is_what_was_measured_of_it(
    db: Database, policies: PolicySet, rows: list[dict[str, Any]]
) -> None:
    """Of three subscribers one has its amount, one none, one left alone: the second cannot be priced and is counted."""
    utility = load_utility(
        policies.texts["utility.yaml"]
        .replace(
            "deposited_share * margin * clip(balance, 0, cap)", "deposited_share * margin * min(deposit, cap)"
        )
        .replace("stakeholders:", "hiddenWhenDeciding: [deposit]\nstakeholders:", 1),
        "utility.yaml",
    )
    decided = [decision(1, rows[0]), decision(2, rows[0]), decision(3, rows[0], action="leave")]
    with db.write() as connection:
        store.upsert_decisions(connection, decided)
    record_outcomes(
        db, [Outcome(one.decision_id, "subscribed", one.at) for one in decided], received_at=1_500.0
    )
    record_measurements(db, [Measurement("d1", "deposit", 700.0, 1_400.0)], received_at=1_500.0)
    store.set_watermark(db, 1_903.0, at=1_903.0)
    found = rows_of_store(db, replace(policies, utility=utility), since=0.0, now=2_000.0)
    assert found.outcomes.tolist() == [1, UNLABELLED]
    assert found.left_out == {UNREADABLE: 0, UNSETTLED: 1}
    np.testing.assert_array_equal(found.columns["deposit"], [700.0, np.nan])


def test_a_file_keeps_the_contract(policies: PolicySet, tmp_path: Path) -> None:
    """Rows without a label yet are left out and counted; fewer rows than the contract wants are refused by its rule."""
    import polars as pl

    calls = read_calls().head(1_500)
    young = calls.with_columns(y=pl.when(pl.int_range(pl.len()) < 1_400).then(pl.col("y")))
    found = rows_of_file(young, policies, folder=tmp_path / "snap", source="calls.csv", later_than=None)
    assert (len(found), found.left_out) == (1_400, {UNREADABLE: 0, OLD: 0, YOUNG: 100})
    assert (np.diff(found.times) >= 0).all()
    with pytest.raises(RecalibrationError, match="1000"):
        rows_of_file(calls.head(500), policies, folder=tmp_path / "few", source="calls.csv", later_than=None)


def test_rows_of_a_file_are_later_than_the_releases(policies: PolicySet, tmp_path: Path) -> None:
    """Those up to the instant that the release was made through are left out and counted, that instant included; where
    none is left it is an error."""
    calls = read_calls().head(1_500)
    times = rows_of_file(calls, policies, folder=tmp_path / "a", source="f", later_than=None).times
    found = rows_of_file(calls, policies, folder=tmp_path / "b", source="f", later_than=float(times[999]))
    assert (len(found), found.left_out[OLD]) == (500, 1_000)
    assert found.times[0] > times[999]
    assert found.later_than == times[999]
    with pytest.raises(RecalibrationError, match=r"no row of calls\.csv is later"):
        rows_of_file(calls, policies, folder=tmp_path / "c", source="calls.csv", later_than=float(times[-1]))


@pytest.fixture(scope="module")
def rarer(parts: Any, rows: list[dict[str, Any]]) -> tuple[float, OutcomeRows]:
    """How often customers subscribe as the parent's map has it, and 3,000 rows of a time in which each outcome's rows
    look as they did, but nine in ten of the subscribers are gone; only the last 1,000 outcomes are known."""
    draw = np.random.default_rng(8)
    columns = {name: draw.choice(np.array([row[name] for row in rows]), 12_000) for name in rows[0]}
    columns["balance"] = draw.uniform(0, 1_000, 12_000)
    columns["age"] = draw.integers(18, 80, 12_000).astype(float)
    logits = forward(parts.architecture, parts.weights, parts.preprocessing.transform(columns))
    outcomes = (draw.random(12_000) < BELIEVED.apply(logits)[:, 1]).astype(np.int64)
    kept = np.flatnonzero((outcomes == 0) | (draw.random(12_000) < 0.1))[:3_000]
    seen = np.where(np.arange(3_000) < 2_000, UNLABELLED, outcomes[kept])
    some = {name: values[kept] for name, values in columns.items()}
    rows_of_now = OutcomeRows(some, seen, 2_000.0 + np.arange(3_000), "made up", "sha256:01", {}, 900.0)
    return float(outcomes.mean()), rows_of_now


def test_a_release_is_recalibrated_without_outcomes_to_fit_on(
    home: Home,
    db: Database,
    policies: PolicySet,
    parts: Any,
    rarer: tuple[float, OutcomeRows],
) -> None:
    """`prior_shift_em` finds the base rate from the scores of rows of which none has an outcome; the later third judges
    it and it earns more. The sentences say that nothing was seen, the release how often each outcome comes now."""
    rate, rows = rarer
    parent = parent_in(home, parts, policies, rates={"not_subscribed": 1 - rate, "subscribed": rate})
    made = recalibrate_release(job_in(home, db, policies, parent), parent, rows, method="prior_shift_em")
    truth = rate / 10 / (rate / 10 + 1 - rate)
    assert made.fitted.rate_errors is not None
    assert made.fitted.base_rates[1] == pytest.approx(truth, abs=4 * made.fitted.rate_errors[1])
    assert (made.fitted.seen, made.fitted.loss_before) == ((0, 0), None)
    assert made.judged.after > made.judged.before
    said = " ".join(made.sentences())
    assert "prior_shift_em on the earlier 2,000, none of which has an outcome" in said
    assert "without outcomes: not_subscribed" in said
    assert base_rates(made.release, policies.utility.outcomes) == made.fitted.base_rates
    assert base_rates(parent, policies.utility.outcomes) == (1 - rate, rate)
    assert (weights_job(made.release), made.release.provenance["job"]) == (
        "first",
        "telemarketing-recalibrated-1",
    )


def test_a_shift_that_scores_do_not_show_is_refused_by_later_outcomes(
    home: Home, db: Database, policies: PolicySet, parent: Release, later: OutcomeRows, parts: Any
) -> None:
    """The scores speak of more subscribers, the later outcomes of fewer: refused with both losses."""
    opposite = np.random.default_rng(3).permutation(later.outcomes)
    unseen = replace(later, outcomes=np.where(np.arange(3_000) < 2_000, UNLABELLED, opposite))
    rates = {"not_subscribed": 0.9, "subscribed": 0.1}
    odd = parent_in(home, parts, policies, rates=rates)
    with pytest.raises(RecalibrationError, match="more has changed than the base rates"):
        recalibrate_release(job_in(home, db, policies, parent), odd, unseen, method="prior_shift_em")

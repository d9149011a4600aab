"""Makes a small release of an old one: the same weights, the map to probabilities and the operating point found anew.

The rows are cut in the order of time. On the earlier part the map is fitted and the operating point found; the later
part judges both, by the alignment stage's own gates, against the champion. Where the rows come from live decisions, the
outcomes that nobody saw are drawn, in each part from a map fitted on that part alone (the later one's always on seen
outcomes): what the gates say of a row on which nobody has acted is then the model's word, and how many these are is
said with the result.
Must never import Prefect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.operating.point_search import search_point
from policies.utility.utility import UtilitySpec, realised_utility
from services.ledger.ledger import append
from services.rollout.made_of import base_rates, weights_job, weights_made_at
from services.rollout.offline_stages import judge_point
from services.rollout.outcome_rows import OutcomeRows, RecalibrationError
from services.rollout.recalibrated_release import Judged, RecalibratedRelease, seen_panel
from services.rollout.release_job import ReleaseJob
from services.serving.build import sources_digest
from services.serving.release import Release, write_release
from services.serving.scorer import Scorer
from services.signing.release_signature import sign_in_home
from services.training.calibration import Calibration, log_loss
from services.training.forward import Architecture, Weights, filled_in, forward
from services.training.predicted_fields import settled
from services.training.preprocessing import Columns, Preprocessing
from services.training.recalibrate import (
    LEAST_JUDGED,
    Method,
    Recalibration,
    complete,
    recalibrate,
    require_outcomes,
    seen_map,
)
from services.training.time_slices import UNLABELLED

EARLIER = 2 / 3


@dataclass(frozen=True)
class _Recalibrated:
    """The parent's model under the new map: what write_release reads of a candidate."""

    weights: Weights
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    outcomes: tuple[str, ...]

    def logits(self, columns: Columns) -> NDArray[Any]:
        return forward(self.architecture, self.weights, self.preprocessing.transform(columns))

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        return self.calibration.apply(self.logits(columns))

    def decided_on(self, columns: Columns) -> Columns:
        return filled_in(self.architecture, self.weights, self.preprocessing, columns)


def recalibrate_release(
    job: ReleaseJob, parent: Release, rows: OutcomeRows, *, method: Method
) -> RecalibratedRelease:
    """Make, judge and pack the release that `parent` becomes on these rows, which must be later than its own.

    Raises TrainingError for too few outcomes, StageRefused where the alignment gates refuse it, RecalibrationError
    where the parent has no probabilities or decides between other actions or outcomes than the policies say, or where
    base rates alone do not explain later outcomes.
    """
    utility, scorer = job.policies.utility, Scorer.load(parent)
    _check_same(parent, scorer.utility, utility, calibration=scorer.calibration)
    rows = _priced_rows(rows, scorer)
    cut = round(len(rows) * EARLIER)
    earlier, later = rows.part(slice(0, cut)), rows.part(slice(cut, None))
    logits = forward(scorer.architecture, scorer.weights, scorer.preprocessing.transform(rows.columns))
    fitted = recalibrate(
        scorer.calibration,
        logits[:cut],
        earlier.outcomes,
        method=method,
        names=utility.outcomes,
        rates_before=base_rates(parent, utility.outcomes),
    )
    require_outcomes(later.outcomes, names=utility.outcomes, least=LEAST_JUDGED, what="to judge the result")
    _require_no_worse(scorer.calibration, fitted, logits[cut:], later.outcomes)
    earlier_outcomes = complete(fitted.calibration, logits[:cut], earlier.outcomes, seed=job.seed)
    later_outcomes = complete(
        seen_map(scorer.calibration, logits[cut:], later.outcomes, method=method),
        logits[cut:],
        later.outcomes,
        seed=job.seed,
    )
    candidate = _Recalibrated(
        scorer.weights, scorer.architecture, scorer.preprocessing, fitted.calibration, utility.outcomes
    )
    point = search_point(
        utility,
        earlier.columns,
        probabilities=fitted.calibration.apply(logits[:cut]),
        outcomes=earlier_outcomes,
        decided_on=candidate.decided_on(earlier.columns),
    )
    point = judge_point(
        _judged_as_recalibrated(job),
        point,
        later.columns,
        outcomes=later_outcomes,
        times=later.times,
        score=candidate.probabilities,
        sees=candidate.decided_on,
        panels=(seen_panel(earlier, later),),
    )
    release = write_release(
        job.home.releases,
        service=job.policies.service,
        candidate=candidate,
        operating_point=point,
        policies=job.policies.texts,
        provenance=_provenance(job, parent, rows, fitted, fitted_through=float(earlier.times[-1])),
        created_at=job.clock(),
    )
    seen = candidate.decided_on(later.columns)
    actions = point.choose(
        utility.payoffs(seen), candidate.probabilities(later.columns), utility=utility, columns=seen
    )
    judged = _judged(
        scorer.decide(later.columns).actions,
        actions,
        utility.payoffs(later.columns),
        later_outcomes,
        later.is_seen,
        utility,
    )
    made = RecalibratedRelease(release, parent.id, fitted, rows, cut, judged, utility.unit, utility.outcomes)
    for kind, body in (
        ("recalibrated", {"job": job.name, **made.to_json()}),
        (
            "release_packed",
            {
                "job": job.name,
                "release": release.id,
                "content_digest": release.content_digest,
                "signed_by": sign_in_home(release, job.home),
            },
        ),
    ):
        append(job.db, kind, body, service=job.policies.service, rollout_id=None, at=job.clock())
    return made


def _priced_rows(rows: OutcomeRows, scorer: Scorer) -> OutcomeRows:
    """The rows with what the release predicts where nobody has learnt a field that is known only after the decision."""
    hidden = scorer.predicted_fields
    unknown = {name: np.full(len(rows), np.nan) for name in hidden if name not in rows.columns}
    columns = {**rows.columns, **unknown}
    return replace(rows, columns=settled(columns, scorer.decided_on(columns), hidden))


def _require_no_worse(
    parent: Calibration, fitted: Recalibration, logits: NDArray[Any], outcomes: NDArray[np.int64]
) -> None:
    """A map that was fitted without outcomes must predict those of later rows no worse than its parent's does."""
    if fitted.method != "prior_shift_em":
        return
    known = outcomes != UNLABELLED
    before, after = (
        log_loss(one.apply(logits[known]), outcomes[known]) for one in (parent, fitted.calibration)
    )
    if after > before:
        raise RecalibrationError(
            f"more has changed than the base rates: the map found without outcomes predicts the {int(known.sum()):,} "
            f"later ones worse than the parent's, log loss {before:.4f} → {after:.4f} nats"
        )


def _judged_as_recalibrated(job: ReleaseJob) -> ReleaseJob:
    """Without the scenarios that its weights stood when they were trained (`appliesTo: trained`)."""
    scenarios = job.policies.scenarios
    if scenarios is None:
        return job
    return replace(job, policies=replace(job.policies, scenarios=scenarios.for_recalibrated()))


def _check_same(parent: Release, its: UtilitySpec, current: UtilitySpec, *, calibration: Calibration) -> None:
    if calibration.kind == "none":
        raise RecalibrationError(
            f"{parent.id} was trained to decide: its scores are no probabilities that could be calibrated; retrain"
        )
    pairs: Sequence[tuple[str, object, object]] = (
        ("actions", its.actions, current.actions),
        ("outcomes", its.outcomes, current.outcomes),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise RecalibrationError(
                f"the {what} of {parent.id} must be those of utility.yaml, {ours}: {theirs}"
            )


def _judged(
    before: NDArray[np.intp],
    after: NDArray[np.intp],
    payoffs: NDArray[np.float64],
    outcomes: NDArray[np.int64],
    is_seen: NDArray[np.bool_],
    utility: UtilitySpec,
) -> Judged:
    earned = [realised_utility(payoffs, actions, outcomes) for actions in (before, after)]
    default = utility.default_index
    return Judged(
        rows=len(outcomes),
        seen=int(is_seen.sum()),
        before=float(earned[0].mean()),
        after=float(earned[1].mean()),
        seen_gain=float(np.where(is_seen, earned[1] - earned[0], 0.0).mean()),
        acts_before=float((before != default).mean()),
        acts_after=float((after != default).mean()),
        unseen_acts=int((~is_seen & (before == default) & (after != default)).sum()),
    )


def _provenance(
    job: ReleaseJob, parent: Release, rows: OutcomeRows, fitted: Recalibration, *, fitted_through: float
) -> dict[str, object]:
    """What the weights came from is the parent's; what is new says so."""
    policies = job.policies
    return {
        **parent.provenance,
        "job": job.name,
        "parent": parent.id,
        "weights_made_at": weights_made_at(parent),
        "weights_job": weights_job(parent),
        "recalibration": {
            "method": fitted.method,
            "rows": len(rows),
            "seen": int(rows.is_seen.sum()),
            "rows_digest": rows.digest,
            "source": rows.source,
            "from": float(rows.times[0]),
            "fitted_through": fitted_through,
            "to": float(rows.times[-1]),
            "base_rates": dict(zip(policies.utility.outcomes, fitted.base_rates, strict=True)),
        },
        "contract_digest": policies.contract.digest,
        "utility_digest": policies.utility.digest,
        "rollout_digest": policies.rollout.digest,
        "scenarios_digest": None if policies.scenarios is None else policies.scenarios.digest,
        "code_version": job.code_version,
        "sources_digest": sources_digest(),
    }

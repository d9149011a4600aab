"""Promises to people who come from Argo Rollouts, Flagger or Kayenta: their word is answered with ours."""

from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from policies.rollout.rollout_policy import load_rollout

TEXT = Path(__file__).parents[1].joinpath("every_key.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "line", "says"),
    [
        ("gate", "failureLimit: 3", "'gates[0].failureLimit' is no key here: there is no count of failed checks here"),
        ("gate", "maxFailures: 3", "write the bound (`max`, or `tolerance` and `niMargin`)"),
        ("gate", "threshold: 99", "is no key here: write `min` or `max` with `compareTo: bound`"),
        ("gate", "thresholdRange: {max: 1}", "or `tolerance` and `niMargin` with `compareTo: champion`"),
        ("gate", "successCondition: result < 1", "there is no condition on a single reading of a live metric"),
        ("gate", "interval: 1m", "write `poll` once at the top of the file; a gate's `window`"),
        ("gate", "provider: {prometheus: x}", "gates name metrics that Trimtab measures itself"),
        ("gate", "nanStrategy: replace", "missing, NaN or too little evidence never passes"),
        ("gate", "critical: true", "write `onFail: rollback`"),
        ("gate", "budgetMs: 250", "write `budget: 250ms`"),
        ("gate", "initialDelay: 5m", "write `maturity` once at the top of the file"),
        ("gate", "args: []", "a policy is frozen, digested and signed for as it stands"),
        ("stage", "mirror: true", "write a stage with `kind: shadow`"),
        ("top", "webhooks: []", "nothing is called from here"),
        ("top", "skipAnalysis: true", "no release goes on without evidence"),
        ("top", "mirror: true", "write a stage with `kind: shadow`"),
        ("top", "stepWeightPromotion: 50", "a stage of kind `full`, then one of kind `probation`"),
        ("top", "dryRun: [{metricName: x}]", "write `dryRun: true` at each gate"),
        ("stage", "setWeight: 5", "'stages[0].setWeight' is no key here: write `weight: 5%`"),
        ("stage", "weightPct: 5", "write `weight: 5%`"),
        ("stage", "pause: {duration: 10m}", "write `bake: {min: 15m, max: 2h}`"),
        ("stage", "bakeMinS: 10", "write `bake: {min: 15m, max: 2h}`"),
        ("stage", "require: [errors]", "write `requiredFrom: 5%` at the gate"),
        ("top", "stepWeight: 5", "each step is a stage; write `stages`"),
        ("top", "maxWeight: 50", "each step is a stage"),
        ("top", "analysis: {}", "gates stand in this file; write `gates`"),
        ("top", "pollS: 10", "write `poll: 10s`"),
        ("top", "progressDeadlineSeconds: 600", "write each stage's longest bake"),
    ],
)  # fmt: skip
def test_the_word_of_another_tool_is_answered_with_ours(place: str, line: str, says: str) -> None:
    """The error stands at that key and says what to write instead, and why there is no such thing here."""
    before = {
        "gate": "    metric: quarantined_share\n",
        "stage": "    kind: offline\n",
        "top": "poll: 10s\n",
    }
    indent = "" if place == "top" else "    "
    text = TEXT.replace(before[place], f"{before[place]}{indent}{line}\n", 1)
    with pytest.raises(PolicyError) as caught:
        load_rollout(text, "r.yaml")
    (issue,) = caught.value.issues
    assert says in str(issue)
    assert issue.line == text.splitlines().index(f"{indent}{line}") + 1
    assert issue.column == len(indent) + 1


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("request-success-rate", "unknown metric 'request-success-rate': write `canary_errors`, the share that failed"),
        ("request-duration", "unknown metric 'request-duration': write `slow_share` with `budget: 500ms`"),
        ("canary_eror", "unknown metric 'canary_eror'; did you mean 'canary_errors'?"),
    ],
)  # fmt: skip
def test_an_unknown_metric_is_one_error(metric: str, says: str) -> None:
    """It is answered with ours, and its stage is not said to lack a gate on top of it: here the shadow's only one."""
    text = TEXT.replace("metric: canary_errors", f"metric: {metric}").replace(
        "metric: quarantined_share", f"metric: {metric}", 1
    )
    with pytest.raises(PolicyError) as caught:
        load_rollout(text, "r.yaml")
    assert len(caught.value.issues) == 2
    assert all(says in str(issue) for issue in caught.value.issues)

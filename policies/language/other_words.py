"""Words of other rollout controllers, and our own of earlier days: what to write here in their place.

Source: the fields of Argo Rollouts' Rollout and AnalysisTemplate, Flagger's Canary and MetricTemplate, Kayenta's
canary configuration. Must never import: anything.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_COUNT = (
    "there is no count of failed checks here: every poll adds to one piece of evidence, so that looking often does "
    "not raise false alarms; write the bound (`max`, or `tolerance` and `niMargin`) and what follows (`onFail`)"
)
_BOUND = (
    "write `min` or `max` with `compareTo: bound`, or `tolerance` and `niMargin` with `compareTo: champion`"
)
_CONDITION = (
    "there is no condition on a single reading of a live metric, which would be a peek at every poll; write "
    "`compareTo`, with `min` or `max`, or with `tolerance` and `niMargin`"
)
_INTERVAL = (
    "write `poll` once at the top of the file; a gate's `window` is the length of its blocks of evidence"
)
_NO_QUERY = "gates name metrics that Trimtab measures itself, per unit and by assignment; write `metric`"
_STEPS = "each step is a stage; write `stages`, each with `weight: 5%` and `bake: {min: …, max: …}`"
_GATES = "gates stand in this file; write `gates`"
_BAKE = "write `bake: {min: 15m, max: 2h}`"
_STAGE_GATES = "gates say themselves where they are required: write `requiredFrom: 5%` at the gate"
_WEIGHT = "write `weight: 5%`"
_MATURITY = "write `maturity` once at the top of the file: evidence counts when it is old enough"
_NO_CALLS = (
    "nothing is called from here; where a person must agree write `approval: true` at the stage; to roll back by hand "
    "there is `trimtab abort`"
)
_NO_ARGS = "a policy is frozen, digested and signed for as it stands; write the values themselves"
_NO_SKIP = "no release goes on without evidence; a canary stage of 1 % or less may, with `advanceOn: bake`"
_SHADOW = "mirrored requests are a stage of their own; write a stage with `kind: shadow`"

GATE_WORDS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "failureLimit",
            "consecutiveErrorLimit",
            "consecutiveSuccessLimit",
            "inconclusiveLimit",
            "failureCount",
            "maxFailures",
            "count",
        ),
        _NO_COUNT,
    ),
    **dict.fromkeys(("threshold", "thresholdRange", "bound", "effectSize", "allowedIncrease"), _BOUND),
    **dict.fromkeys(("successCondition", "failureCondition", "condition"), _CONDITION),
    "interval": _INTERVAL,
    "initialDelay": _MATURITY,
    "webhooks": _NO_CALLS,
    "args": _NO_ARGS,
    **dict.fromkeys(("query", "provider", "templateRef", "measurements"), _NO_QUERY),
    **dict.fromkeys(
        ("nanStrategy", "failOnMissing"),
        "missing, NaN or too little evidence never passes; write `onMissing` and `onError`: hold or rollback",
    ),
    "critical": "write `onFail: rollback`",
    "direction": "what is worse is known of each metric; write `min` or `max`, or `tolerance`",
    "budgetMs": "write `budget: 250ms`",
    "marginPct": _BOUND,
}

STAGE_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("setWeight", "stepWeight", "maxWeight", "weightPct", "traffic"), _WEIGHT),
    **dict.fromkeys(("pause", "duration", "bakeMinS", "bakeMaxS", "iterations", "interval"), _BAKE),
    **dict.fromkeys(("require", "gates", "analysis", "metrics"), _STAGE_GATES),
    **dict.fromkeys(("failureLimit", "threshold"), _NO_COUNT),
    "manualApproval": "write `approval: true`",
    "initialDelay": _MATURITY,
    "webhooks": _NO_CALLS,
    "args": _NO_ARGS,
    "skipAnalysis": _NO_SKIP,
    "mirror": _SHADOW,
}

ROLLOUT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("steps", "stepWeight", "stepWeights", "maxWeight", "canary", "strategy"),
        _STEPS,
    ),
    **dict.fromkeys(("analysis", "analysisTemplates", "metrics", "canaryConfig", "judge"), _GATES),
    **dict.fromkeys(("threshold", "failureLimit", "iterations", "scoreThresholds"), _NO_COUNT),
    "stepWeightPromotion": "promotion is a stage of kind `full`, then one of kind `probation`",
    "interval": "write `poll: 10s`",
    "initialDelay": _MATURITY,
    "webhooks": _NO_CALLS,
    "args": _NO_ARGS,
    "skipAnalysis": _NO_SKIP,
    **dict.fromkeys(("mirror", "mirrorWeight"), _SHADOW),
    "dryRun": "write `dryRun: true` at each gate that is on trial",
    "maturityS": "write `maturity: 4s`",
    "pollS": "write `poll: 10s`",
    "leaseS": "write `lease: 60s`",
    "expectedRequestsPerS": "write `expectedTraffic: 200/s`",
    "progressDeadlineSeconds": "write each stage's longest bake: `bake: {min: 15m, max: 2h}`",
}

METRIC_WORDS: Mapping[str, str] = {
    "request-success-rate": "write `canary_errors`, the share that failed: at least 99 % of success is `max: 0.01`",
    "request-duration": "write `slow_share` with `budget: 500ms`: the share of requests that took longer",
}

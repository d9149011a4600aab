"""Promises of `rollout.yaml`: the shipped policy is the demonstration's, and unsafe combinations are refused."""

import re
from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
TEXT = YAML.read_text(encoding="utf-8")


def refused(old: str, new: str, *, count: int = 1) -> list[str]:
    """The issues of the shipped policy with one text replaced."""
    assert TEXT.count(old) >= 1, old
    with pytest.raises(PolicyError) as caught:
        load_rollout(TEXT.replace(old, new, count), "rollout.yaml")
    return [str(issue) for issue in caught.value.issues]


def test_shipped_policy_is_the_demonstrations() -> None:
    """Stages, weights, bake times and required gates are those of the main job; its least bakes fit 90 s of rows."""
    policy = load_rollout(TEXT, "rollout.yaml")
    assert policy.service == "telemarketing"
    assert (policy.alpha_rollback, policy.alpha_advance, policy.maturity_s) == (0.01, 0.05, 4)
    live = [
        (s.name, s.weight_pct, s.bake_min_s, s.bake_max_s, {g.name for g in s.required})
        for s in policy.live_stages
    ]
    assert live == [
        ("shadow", None, 10, 30, {"call-rate-gap"}),
        ("canary-1", 1, 10, 40, set()),
        ("canary-5", 5, 15, 40, {"errors"}),
        ("canary-25", 25, 20, 45, {"utility", "slow", "errors"}),
        ("canary-50", 50, 20, 45, {"utility", "slow", "errors"}),
        ("full", None, 0, 10, set()),
        ("probation", None, 5, 30, {"errors", "slow"}),
    ]
    least = sum(stage.bake_min_s + 1 for stage in policy.live_stages)
    assert least * policy.expected_requests_per_s < 18_085
    utility = next(gate for gate in policy.live_gates if gate.name == "utility")
    assert (utility.tolerance, utility.ni_margin) == (0, 0.30)


def test_alpha_is_split_by_weight() -> None:
    """The live gates' parts of alpha_rollback add up to it; utility has twice the part of the others."""
    policy = load_rollout(TEXT, "rollout.yaml")
    parts = {gate.name: policy.alpha_of(gate.name) for gate in policy.live_gates}
    assert sum(parts.values()) == pytest.approx(0.01)
    assert parts["utility"] == pytest.approx(2 * parts["errors"]) == pytest.approx(0.004)


def test_gates_stand_where_they_can_be_measured() -> None:
    """A gate that a stage does not require is still there, with its rollback side; probation has bounds only."""
    policy = load_rollout(TEXT, "rollout.yaml")
    assert [(g.name, g.required) for g in policy.stage("canary-1").gates] == [
        ("errors", False),
        ("slow", False),
        ("utility", False),
    ]
    assert all(gate.compare_to == "bound" for gate in policy.stage("probation").gates)
    for stage in policy.stages:
        for gate in stage.gates:
            assert {stage.name, stage.kind} & set(METRICS[gate.metric].sources)


def test_digest_is_of_the_meaning() -> None:
    """A comment changes nothing, a number does."""
    digest = load_rollout(TEXT, "a.yaml").digest
    assert load_rollout("# more\n" + TEXT, "b.yaml").digest == digest
    assert load_rollout(TEXT.replace("poll: 500ms ", "poll: 2s "), "c.yaml").digest != digest


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{absolute: 0.30}", "{absolute: 0}", "'gates[13].niMargin.absolute' must be > tolerance 0: 0"),
        ("{absolute: 0} ", "{absolute: 0.4} ", "niMargin.absolute' must be > tolerance 0.4: 0.3"),
        ("{absolute: 0} ", "{absolute: -0.1} ", "tolerance.absolute' must be >= 0: -0.1"),
        ("metric: slow_share", "metric: slow_shares", "did you mean 'slow_share'?"),
        ("budget: 250ms ", "# ", "'gates[12].budget' is missing"),
        (
            "metric: utility ",
            "metric: disagreement ",
            "must be 'bound' for metric 'disagreement': 'champion'",
        ),
        (
            "    max: 0.05                 # real: 0.005",
            "    min: 0.9\n    max: 0.05   # real: 0.005",
            "exclude each",
        ),
        ("    max: 0.20 ", "    max: 1.20 ", "must be > 0 and < 1 for a gap: 1.2"),
        ("weight: 5%\n", "weight: 60%\n", "must be > 60%, the weight before: 25%"),
        ("advanceOn: bake ", "advanceOn: gates ", "'gates' needs a gate that is required in 'canary-1'"),
        (
            "    weight: 1%\n",
            "    weight: 2%\n",
            "'bake' is allowed only in a canary stage of at most 1 %",
        ),
        (
            "    rationale: Two requests",
            "    # Two requests",
            "is missing: a stage that advances without a gate",
        ),
        ("lease: 10s ", "lease: 900ms ", "must be >= 4 * poll (2s), or a late poll ends it: 900ms"),
        ("poll: 500ms ", "poll: 5s ", "must be >= 4 * poll (20s)"),
        ("lease: 10s ", "lease: 9s ", "must be >= 10s: the proxy forgets a weight after 5 s"),
        ("{min: 15s, max: 40s}", "{min: 15s, max: 4s}", "'stages[5].bake.max' must be >= min 15s: 4s"),
        ("  - name: full\n    kind: full", "  - name: full\n    kind: probation", "of kind 'full': 0"),
        (
            "  - name: alignment\n    kind: offline\n",
            "  - name: alignment\n    kind: offline\n    bake: {min: 3s, max: 4s}\n",
            "'stages[2].bake' belongs to live stages only",
        ),
        (
            "  - name: alignment\n    kind: offline\n",
            "  - name: alignment\n    kind: offline\n    approval: true\n",
            "'stages[2].approval' belongs to live stages",
        ),
        ("appliesTo: challenger", "appliesTo: all", "must be 'challenger' for metric 'gain_over_champion'"),
        ("    onInconclusive: manual    #", "    #", "'stages[9].onInconclusive' is missing"),
    ],
)
def test_unsafe_policies_are_refused(old: str, new: str, says: str) -> None:
    """Each combination that could not pass, could not fail, or would pass unseen is refused with its place."""
    issues = refused(old, new)
    assert any(says in issue for issue in issues), issues
    assert all(re.match(r"rollout\.yaml:\d+:\d+: ", issue) for issue in issues)


@pytest.mark.parametrize("key", ["onFail", "onMissing", "onError"])
def test_safety_fields_have_no_default(key: str) -> None:
    """Leaving out onFail, onMissing or onError of any gate is an error at that gate."""
    found = re.search(rf"    {key}: \w+\n", TEXT)
    assert found is not None
    issues = refused(found.group(), "")
    assert len(issues) == 1
    assert re.fullmatch(rf"rollout\.yaml:\d+:\d+: 'gates\[0\]\.{key}' is missing", issues[0])


def test_all_mistakes_at_once() -> None:
    """Several mistakes are reported together, in the order of the file."""
    text = TEXT.replace("metric: slow_share", "metric: slow").replace("{min: 5s,", "{min: 50s,")
    with pytest.raises(PolicyError) as caught:
        load_rollout(text, "rollout.yaml")
    lines = [issue.line for issue in caught.value.issues]
    assert len(lines) >= 2
    assert lines == sorted(lines)


@pytest.mark.parametrize("name", ["card_fraud", "card-fraud"])
def test_a_service_of_two_words_is_a_service_in_every_file(name: str) -> None:
    """The policy files of one service agree on what a service may be called."""
    utility = YAML.with_name("utility.yaml").read_text(encoding="utf-8")
    assert load_rollout(TEXT.replace("service: telemarketing", f"service: {name}"), "r").service == name
    assert load_utility(utility.replace("service: telemarketing", f"service: {name}"), "u").service == name

"""Promises of the lint: each rule has its message at its place; what is doubtful warns and loads."""

import re
from pathlib import Path

import pytest

from policies.language.yaml_source import PolicyError
from policies.rollout.rollout_policy import load_rollout

TEXT = Path(__file__).parents[1].joinpath("every_key.yaml").read_text(encoding="utf-8")
ERRORS = "    max: 0.02\n    runsIn: [shadow, canary, probation]\n"
TRAFFIC = "expectedTraffic: 200/s"


def changed(*changes: tuple[str, str]) -> str:
    text = TEXT
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


def refused(*changes: tuple[str, str]) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_rollout(changed(*changes), "r.yaml")
    issues = [str(issue) for issue in caught.value.issues]
    assert all(re.match(r"r\.yaml:\d+:\d+: ", issue) for issue in issues)
    return issues


def test_the_fixture_has_no_warning() -> None:
    """What the rules below change is a policy without a fault."""
    assert load_rollout(TEXT, "r.yaml").warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # bounds that can never fail or never pass
        (
            "max: 0.02\n    estimate",
            "max: 1\n    estimate",
            "'gates[0].max' can never fail: 'quarantined_share' is always <= 1",
        ),
        (
            "max: 0.02\n    estimate",
            "max: -0.1\n    estimate",
            "'gates[0].max' can never pass: 'quarantined_share' is always >= 0: -0.1",
        ),
        (
            "max: 0.02\n    runsIn",
            "max: 1.0\n    runsIn",
            "'gates[4].max' must be > 0 and < 1 for a proportion: 1",
        ),
        (
            "max: 0.02\n    runsIn",
            "max: 0\n    runsIn",
            "'gates[4].max' must be > 0 and < 1 for a proportion: 0",
        ),
        (
            "max: 0.02\n    runsIn",
            "min: 0.02\n    runsIn",
            "'gates[4].min' must be 'max' for 'canary_errors', of which more is worse",
        ),
        (
            "max: 0.02\n    runsIn",
            "max: 0.9999999\n    runsIn",
            "'gates[4].max' can never fail: even if every unit counted against it",
        ),
        (
            "max: 0.02\n    runsIn",
            "min: 0.1\n    max: 0.02\n    runsIn",
            "'min' and 'max' exclude each other",
        ),
        (
            "max: 0.02\n    runsIn",
            "runsIn",
            "'gates[4].max' is missing: `compareTo: bound` needs 'min' or 'max'",
        ),
        (
            "min: 0\n    estimate: lower",
            "max: 9\n    estimate: lower",
            "must be 'min' for 'gain_over_trivial', of which less is worse",
        ),
        # margins
        ("{ratio: 1.5}", "{ratio: 1.1}", "'gates[3].niMargin.ratio' must be > tolerance 1.1: 1.1"),
        ("{ratio: 1.1}", "{ratio: 0.9}", "'gates[3].tolerance.ratio' must be >= 1, a ratio of rates: 0.9"),
        (
            "{ratio: 1.1}",
            "{absolute: 0.1}",
            "'gates[3].niMargin' must be of the same form as tolerance, 'absolute': 'ratio'",
        ),
        (
            "{ratio: 1.1}",
            "{}",
            "'gates[3].tolerance' must say one of 'ratio' and 'absolute', like {ratio: 1.5}",
        ),
        (
            "{ratio: 1.1}",
            "1.1",
            "'gates[3].tolerance' must be a mapping like {ratio: 1.5} or {absolute: 0.30}: 1.1",
        ),
        ("{ratio: 1.1}", "{ratio: 1.1, absolute: 0}", "must say one of 'ratio' and 'absolute'"),
        (
            "{ratio: 1.1}\n    niMargin: {ratio: 1.5}",
            "{absolute: 0.1}\n    niMargin: {absolute: 1.5}",
            "must be < 1, a difference of shares (0.02 is two points): 1.5; no gate could fail",
        ),
        (
            "{absolute: 0.3}",
            "{ratio: 1.5}",
            "'gates[5].niMargin.ratio' must be 'absolute' for 'utility': a utility may be 0 or negative",
        ),
        (
            "{absolute: 0.1}",
            "{ratio: 2}",
            "'gates[6].niMargin.ratio' must be 'absolute' for 'call_rate_gap': a gap may be 0",
        ),
        (
            "    tolerance: {ratio: 1.1}\n",
            "",
            "'gates[3].tolerance' is missing: `compareTo: champion` needs it",
        ),
        (
            "    runsIn: [shadow, canary",
            "    tolerance: {ratio: 2}\n    runsIn: [shadow, canary",
            "'gates[4].tolerance' belongs to `compareTo: champion` only",
        ),
        (
            "    window: 1m",
            "    max: 0.1\n    window: 1m",
            "'gates[3].max' belongs to `compareTo: bound` only",
        ),
        # what planning needs
        (
            "    expected: {rate: 0.01}\n",
            "",
            "'gates[3].expected' is missing: planning needs it where `compareTo: champion`; write",
        ),
        ("{rate: 0.01}", "{sd: 3}", "'gates[3].expected.rate' is missing for 'slow_share'"),
        ("{rate: 0.01}", "{rate: 0.01, sd: 3}", "'gates[3].expected.sd' tells nothing of 'slow_share'"),
        (
            "    where: disagreement\n",
            "",
            "'gates[5].expected.varianceLeft' belongs to `where: disagreement` only",
        ),
        (
            "{sd: 5.2, varianceLeft: 0.4}",
            "{varianceLeft: 0.4}",
            "'gates[5].expected.sd' is missing for 'utility'",
        ),
        (
            "{rate: 0.1, groupShare: 0.2}",
            "{rate: 0.1}",
            "'gates[6].expected.groupShare' is missing for 'call_rate_gap'",
        ),
        # where a gate runs and is required
        (
            "requiredFrom: 25%",
            "requiredFrom: 60%",
            "'gates[3].requiredFrom' must be <= 25%, the weight of 'canary-25', the last stage that runs",
        ),
        (
            "runsIn: [shadow, canary, probation]",
            "runsIn: [full]",
            "'gates[4].runsIn[0]' must be one of 'shadow', 'canary' or 'probation': 'full'",
        ),
        (
            "    dryRun: true\n",
            "    runsIn: [probation]\n",
            "'gates[6].runsIn' no stage runs it: 'call_rate_gap' against champion comes from canary",
        ),
        (
            "dryRun: true",
            "dryRun: true\n    requiredFrom: 5%",
            "'gates[6].requiredFrom' must go where `dryRun: true`",
        ),
        (
            "    dryRun: false\n",
            "    requiredFrom: 5%\n",
            "'gates[0].requiredFrom' belongs to live gates only, not to 'quarantined_share': an offline",
        ),
        ("    dryRun: false\n", "    window: 5m\n", "'gates[0].window' belongs to live gates only"),
        ("    dryRun: false\n", "    weight: 2\n", "'gates[0].weight' belongs to live gates only"),
        ("    minSamples: 200\n", "    where: all\n", "'gates[3].where' belongs to metric 'utility' only"),
        (
            "    minSamples: 200\n",
            "    estimate: value\n",
            "'gates[3].estimate' belongs to offline metrics only",
        ),
        (
            "    requiredFrom: 25%\n    weight: 2",
            "    budget: 250ms\n    weight: 2",
            "'gates[5].budget' belongs to metric 'slow_share' only",
        ),
        (
            "metric: gain_over_trivial",
            "metric: gain_over_trival",
            "unknown metric 'gain_over_trival'; did you mean 'gain_over_trivial'?",
        ),
        ("advanceOn: readback", "advanceOn: gates", "must be 'readback' in the full stage: 'gates'"),
        ("    weight: 25%\n", "    weight: 0%\n", "must be > 0% and < 100%, which is the full stage: 0%"),
        # time
        ("window: 1m", "window: 5s", "'gates[3].window' must be >= poll (10s): 5s"),
        (
            "maturity: 30s",
            "maturity: 10m",
            "'stages[5].bake.min' must be > maturity 10m, or no outcome is mature for utility, required",
        ),
        (
            "retrainEvery: 7d",
            "retrainEvery: 30m",
            "'retrainEvery' must be > the least bakes of all live stages together (40m)",
        ),
        (
            "minSamples: 200",
            "minSamples: 9000000",
            "'gates[3].minSamples' cannot be reached: the longest bake of 'canary-25' is 2h, extended",
        ),
        (
            TRAFFIC,
            "expectedTraffic: 40/m",
            "a ratio of rates needs at least 20 expected events: the longest bake of 'canary-25' is 2h,",
        ),
        (
            TRAFFIC,
            "expectedTraffic: 90/m",
            "'stages[5].bake.max' is too short: at 25% of 1.5 requests a second gate 'slow'",
        ),
        (
            "{sd: 5.2,",
            "{sd: 520,",
            "'stages[5].bake.max' is too short: at 25% of 200 requests a second gate 'utility' needs",
        ),
        (
            "    max: 0.02\n    runsIn",
            "    max: 0.02\n    expected: {rate: 0.03}\n    runsIn",
            "'gates[4].expected' can never pass: the expected rate 0.03 is not within the bound 0.02",
        ),
        (
            "tolerance: {ratio: 1.1}\n    niMargin: {ratio: 1.5}\n    expected: {rate: 0.01}",
            "tolerance: {ratio: 30}\n    niMargin: {ratio: 40}\n    expected: {rate: 0.05}",
            "'gates[3].tolerance.ratio' can never fail: 30 times the expected rate 0.05 is a rate of 1.5",
        ),
        (
            "tolerance: {ratio: 1.1}\n    niMargin: {ratio: 1.5}\n    expected: {rate: 0.01}",
            "tolerance: {absolute: 0.8}\n    niMargin: {absolute: 0.9}\n    expected: {rate: 0.3}",
            "'gates[3].tolerance.absolute' can never fail: 0.8 above the expected rate 0.3 is a rate of 1.1",
        ),
        (
            "tolerance: {ratio: 1.1}\n    niMargin: {ratio: 1.5}\n    expected: {rate: 0.01}",
            "tolerance: {ratio: 1.1}\n    niMargin: {ratio: 30}\n    expected: {rate: 0.05}",
            "'gates[3].niMargin.ratio' can never keep a candidate back: 30 times the expected rate 0.05",
        ),
    ],
)
def test_what_cannot_work_is_refused(old: str, new: str, says: str) -> None:
    """One change to a sound policy: the rule's sentence, at the key that is wrong."""
    issues = refused((old, new))
    assert any(says in issue for issue in issues), "\n".join(issues)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("poll: 10s", "timeScale: 1\npoll: 10s", "'timeScale' is read by nothing: take it out"),
        (
            "retrainEvery: 7d",
            "retrainEvery: 2h",
            "'retrainEvery' a rollout may last 5 hours, longer than the 2h until the next candidate comes",
        ),
        (
            "window: 1m",
            "window: 10m",
            "'gates[3].window' leaves 6 blocks of evidence in the longest bake of 'canary-25' (1h)",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(old: str, new: str, says: str) -> None:
    """It loads, and says what to look at, with its place."""
    warnings = [str(issue) for issue in load_rollout(changed((old, new)), "r.yaml").warnings]
    assert len(warnings) == 1
    assert re.match(r"r\.yaml:\d+:\d+: ", warnings[0])
    assert says in warnings[0]


@pytest.mark.parametrize("weight", ["1e308", "1001", "0.0009", "0"])
def test_a_weight_out_of_all_proportion_is_refused(weight: str) -> None:
    """Weights stay within a factor of a million: no gate's share of alpha can be 0 or overflow."""
    runs = "    runsIn: [shadow, canary, probation]\n"
    (issue,) = refused((runs, f"{runs}    weight: {weight}\n"))
    assert "'gates[4].weight' must be " in issue


def test_a_stage_that_advances_on_gates_has_one_that_counts() -> None:
    """A gate on a dry run, or one required from a larger weight only, does not carry a stage."""
    (issue,) = refused((ERRORS, ERRORS + "    requiredFrom: 50%\n"))
    assert "'stages[3].advanceOn' 'gates' needs a gate that is required in 'shadow'" in issue
    (issue,) = refused(
        (ERRORS, ERRORS + "    dryRun: true\n"), ("max: 0.02\n    estimate", "max: 0.03\n    estimate")
    )[:1]
    assert "stages[3].advanceOn" in issue  # fmt: skip


def test_a_first_release_has_gates_too() -> None:
    """An offline stage whose only gate applies to challengers would let any first release pass."""
    (issue,) = refused(("estimate: lower\n    appliesTo: all", "estimate: lower\n    appliesTo: challenger"))
    assert "'stages[2].name' no gate of stage 'alignment' applies to a first release" in issue

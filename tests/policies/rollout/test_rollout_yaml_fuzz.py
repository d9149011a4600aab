"""A fuzzed rollout.yaml is a policy or is refused with places: never anything else, whatever was done to it."""

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.language.yaml_source import Issue, PolicyError, load_document
from policies.rollout.planning import plan_rollout
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout

TEXT = Path(__file__).parents[1].joinpath("every_key.yaml").read_text(encoding="utf-8")
DATA: dict[str, Any] = load_document(TEXT, "r.yaml").data
PIECES = (
    *(
        *":,-#{}[]&*!|>'%@`~?=.",
        '"',
        "\n",
        "\t",
        "  ",
        "\n  - ",
        ": {",
        "\ufeff",
        "\x00",
        "é",
        "\ud7ff",
        "🙂",
    ),
    *("1e999", "-1", "0", ".nan", ".inf", "null", "true", "5%", "500%", "1h", "99999999999999d", "0s", "0/s"),
    *("<<: *a", "!!python/object:os.system"),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        0.5,
        1e300,
        -1e300,
        1e-300,
        10**30,
        "",
        " ",
        "0s",
        "1s",
        "1000000d",
        "0%",
        "100%",
    ),
    *(
        "1/s",
        "0.0001/d",
        "all",
        "bound",
        "champion",
        "gates",
        "bake",
        "hold",
        "rollback",
        "metrics.rows > 0.0",
    ),
    *(
        "utility",
        "canary_errors",
        "call_rate_gap",
        "action_rate",
        "rows",
        "disagreement",
        "utility_per_action",
    ),
    *(
        "offline",
        "shadow",
        "canary",
        "probation",
        [],
        [[]],
        {},
        {"ratio": 2},
        {"absolute": 0.1},
        {"rate": 0.5},
    ),
    *({"min": "0s", "max": "1s"}, {"sd": 1e9}),
)


def loaded(text: str) -> RolloutPolicy | None:
    """The policy, or None where it was refused with a place inside the text for every mistake."""
    issues: tuple[Issue, ...] = ()
    policy = None
    try:
        policy = load_rollout(text, "r.yaml")
    except PolicyError as error:
        issues = error.issues
    if policy is None:
        lines = text.count("\n") + 2
        assert issues
        assert all(1 <= one.line <= lines and one.column >= 1 and one.message for one in issues), issues
        return None
    assert all(plan.says for plan in plan_rollout(policy, (-1.0, 29.8)))
    return policy


@st.composite
def edited(draw: st.DrawFn) -> str:
    """The text with up to three cuts, doublings or insertions anywhere."""
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 40)))
        what = draw(st.sampled_from(("cut", "double", "insert")))
        if what == "cut":
            text = text[:at] + text[end:]
        elif what == "double":
            text = text[:end] + text[at:end] + text[end:]
        else:
            text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
    return text


@st.composite
def restructured(draw: st.DrawFn) -> str:
    """The data with up to four values anywhere replaced, removed or doubled; written as JSON, which is YAML."""
    data = copy.deepcopy(DATA)
    for _ in range(draw(st.integers(1, 4))):
        node: Any = data
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 4)):
                node = node[key]
                continue
            what = draw(st.sampled_from(("replace", "replace", "replace", "remove", "double")))
            if what == "remove":
                del node[key]
            elif what == "double" and isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            else:
                node[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            break
    return json.dumps(data, indent=1)


FUZZ = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@FUZZ
@given(edited())
def test_edited_text_is_a_policy_or_refused(text: str) -> None:
    """Cut, doubled or with something thrown in anywhere: a PolicyError with places, or a policy that can be planned."""
    loaded(text)


@FUZZ
@given(restructured())
def test_changed_values_are_a_policy_or_refused(text: str) -> None:
    """Any value replaced by another kind, an extreme number, another metric or gate form; any key removed."""
    loaded(text)


@settings(FUZZ, max_examples=120)
@given(st.text(max_size=60))
def test_any_text_is_refused(text: str) -> None:
    """Short random text is no policy and says so."""
    assert loaded(text) is None

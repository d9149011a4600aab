"""Strict YAML: every mistake at once, each where it stands."""

from __future__ import annotations

import pickle
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import Field

from policies.language.yaml_source import MAX_CHARACTERS, PolicyError, StrictModel, load_document, parse


class OnFail(StrEnum):
    rollback = "rollback"
    hold = "hold"


class Bake(StrictModel):
    kind: Literal["bake"]
    bake_min_s: float = Field(gt=0)


class Judge(StrictModel):
    kind: Literal["judge"]
    on_fail: OnFail


class Plan(StrictModel):
    name: str
    stages: tuple[Annotated[Bake | Judge, Field(discriminator="kind")], ...]
    table: dict[str, dict[str, float | str]] = Field(default_factory=dict)
    pair: tuple[float, float] = (0.0, 1.0)
    count: int | None = None


GOOD = """\
name: demo
stages:
  - kind: bake
    bakeMinS: 10
  - kind: judge
    onFail: hold
table: {row: {a: 1, b: "2 * x"}}
"""


def refused(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse(load_document(text, "demo.yaml"), Plan)
    return [str(issue) for issue in caught.value.issues]


def test_a_good_document_fills_the_model() -> None:
    """camelCase keys fill snake_case fields, tagged alternatives and enums included."""
    plan = parse(load_document(GOOD, "demo.yaml"), Plan)
    assert plan.stages == (Bake(kind="bake", bakeMinS=10.0), Judge(kind="judge", onFail=OnFail.hold))
    assert plan.table == {"row": {"a": 1.0, "b": "2 * x"}}


def test_every_mistake_is_told_at_once_in_file_order() -> None:
    """A misspelled key is named with what was meant and what is known, and the missing key at its mapping."""
    text = GOOD.replace("name:", "nmae:").replace("bakeMinS", "bakeMins").replace("hold", "hodl")
    assert refused(text) == [
        "demo.yaml:1:1: 'name' is missing",
        "demo.yaml:1:1: 'nmae' unknown key 'nmae'; did you mean 'name'? "
        "(known: count, name, pair, stages, table)",
        "demo.yaml:3:5: 'stages[0].bakeMinS' is missing",
        "demo.yaml:4:5: 'stages[0].bakeMins' unknown key 'bakeMins'; did you mean 'bakeMinS'? "
        "(known: bakeMinS, kind)",
        "demo.yaml:6:13: 'stages[1].onFail' must be one of 'rollback' or 'hold': 'hodl'; "
        "did you mean 'hold'?",
    ]


def test_a_missing_key_points_at_the_key_of_its_mapping() -> None:
    """Where the mapping has a key of its own, that key is where the missing one is reported."""

    class Outer(StrictModel):
        inner: Bake

    with pytest.raises(PolicyError) as caught:
        parse(load_document("inner:\n  kind: bake\n", "demo.yaml"), Outer)
    assert str(caught.value) == "demo.yaml:1:1: 'inner.bakeMinS' is missing"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: judge", "kind: judeg", "5:11: 'stages[1].kind' must be one of 'bake', 'judge': 'judeg'; "),
        ("kind: judge", "kidn: judge", "5:5: 'stages[1].kidn' unknown key 'kidn'; did you mean 'kind'?"),
        ("bakeMinS: 10", "bakeMinS: 0", "4:15: 'stages[0].bakeMinS' must be > 0.0: 0"),
        ("bakeMinS: 10", "bakeMinS: '10'", "4:15: 'stages[0].bakeMinS' must be a number: '10'"),
        ("name: demo", "name: 3", "1:7: 'name' must be text (quote it): 3"),
        ("name: demo", "name: demo\ncount: 1.5", "2:8: 'count' must be a whole number: 1.5"),
        ("name: demo", "name: demo\ncount: true", "2:8: 'count' must be a whole number: true"),
        ("name: demo", "name: demo\npair: [1, x]", "2:11: 'pair[1]' must be a number: 'x'"),
        ("a: 1", "a: [1]", "7:18: 'table.row.a' must be a number: [1] or must be text (quote it): [1]"),
        ('table: {row: {a: 1, b: "2 * x"}}', "table: 7", "7:8: 'table' must be a mapping: 7"),
    ],
)
def test_a_wrong_value_says_what_it_must_be(old: str, new: str, message: str) -> None:
    """Each kind of wrong value is told at its own line and column, with the bound or the allowed values."""
    issues = refused(GOOD.replace(old, new))
    assert any(issue.startswith(f"demo.yaml:{message}") for issue in issues), issues


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "2:1: 'a' duplicate key 'a'; first on line 1"),
        ("a: &x 1\nb: *x", "1:4: 'a' anchor &x is refused; write the value out"),
        ("a: *x", "1:4: 'a' alias *x is refused; write the value out"),
        ("a: !!python/name:os.system x", "1:4: 'a' tag tag:yaml.org,2002:python/name:os.system is refused"),
        ("a: !secret x", "1:4: 'a' tag !secret is refused; write a plain value"),
        ("a: .nan", "1:4: 'a' must be a finite number: .nan"),
        ("a: [-.inf]", "1:5: 'a[0]' must be a finite number: -.inf"),
        ("a: 1e999", "1:4: 'a' must be a finite number: 1e999"),
        ("1: a", "1:1: has a key that is not text: 1 (quote it)"),
        ("? [a]\n: 1", "1:3: has a key that is not text"),
        ("a: 1\n---\nb: 1", "2:1: must hold one YAML document, not several"),
        ("a: [1,", "1:7: is not YAML: "),
        ("a: b\n\tc: d", "2:1: is not YAML: found character '\\t' that cannot start any token"),
        ("a: \x07", "1:4: is not YAML: special characters are not allowed"),
        ("[" * 40 + "]" * 40, "1:34: '" + "[0]" * 33 + "' must be nested at most 32 deep"),
        ("a" * (MAX_CHARACTERS + 1), "1:1: must be at most 262144 characters: 262145"),
    ],
)
def test_what_could_be_misread_is_refused(text: str, message: str) -> None:
    """Duplicates, anchors, tags, numbers that are none, odd keys, several documents, too deep, too large."""
    with pytest.raises(PolicyError) as caught:
        load_document(text, "demo.yaml")
    assert str(caught.value).startswith(f"demo.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("'1'", "1"),
        ("1", 1),
        ("-0x1", "-0x1"),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("~", None),
        ("True", True),
        ("2027-06-30", "2027-06-30"),
        ("%YAML 1.1\n---\nyes", "yes"),
        ("", None),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    """No `yes` becomes true and no date becomes an object, whatever version the text asks for."""
    data = load_document(text, "demo.yaml").data
    assert data == value
    assert type(data) is type(value)


def test_positions_are_kept_for_later_checks() -> None:
    """A check between keys can point at a value, a key, or at the nearest parent of what is absent."""
    document = load_document(GOOD, "demo.yaml")
    assert document.position(("stages", 0, "bakeMinS")) == (4, 15)
    assert document.position(("stages", 0, "bakeMinS"), of_key=True) == (4, 5)
    assert document.position(("table", "row", "zzz", 3)) == (7, 9)
    assert str(document.issue(("name",), "must be shorter")) == "demo.yaml:1:7: 'name' must be shorter"


def test_an_error_survives_pickling() -> None:
    """A flow in another process can hand the refusal back with its issues."""
    with pytest.raises(PolicyError) as caught:
        load_document("a: .nan", "demo.yaml")
    assert pickle.loads(pickle.dumps(caught.value)).issues == caught.value.issues  # noqa: S301

"""One digest for one meaning."""

from __future__ import annotations

import hashlib

import pytest

from policies.language.digest import canonical_sha256
from policies.language.yaml_source import load_document


def test_the_digest_is_sha256_of_canonical_json() -> None:
    """Keys are sorted, spaces are out, text is UTF-8."""
    expected = hashlib.sha256('{"a":[1,null,true],"b":"é"}'.encode()).hexdigest()
    assert canonical_sha256({"b": "é", "a": [1, None, True]}) == f"sha256:{expected}"


def test_layout_and_comments_do_not_change_it() -> None:
    """The same meaning in another order, as a flow mapping, with 1.0 for 1, has the same digest."""
    one = load_document("a: 1  # why\nb: [x, 2.5]\n", "one.yaml").data
    two = load_document("{b: ['x', 2.50], a: 1.0}", "two.yaml").data
    assert canonical_sha256(one) == canonical_sha256(two)


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": True}, {"a": [1]}, {"b": 1}, {"a": 1, "b": None}]
)
def test_another_meaning_changes_it(other: object) -> None:
    """A number is neither its text nor true, and a null key is not an absent one."""
    assert canonical_sha256({"a": 1}) != canonical_sha256(other)


def test_what_is_not_json_is_refused() -> None:
    """NaN, infinity, keys that are not text and sets have no digest."""
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_sha256([number])
    with pytest.raises(TypeError, match="text keys"):
        canonical_sha256({1: 2})
    with pytest.raises(TypeError, match="not JSON serializable"):
        canonical_sha256({1, 2})

"""Promises of quantities: the unit stands in the value; a bare number is refused with the form that was meant."""

import pytest

from policies.language.quantities import about, duration_text, per_second_of, percents_of, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("4s", 4.0),
        ("1.5m", 90.0),
        ("15m", 900.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Seconds, from each unit."""
    assert seconds_of(text) == seconds


def test_percentages_and_rates() -> None:
    """Per cent as written; events a second from each unit of time."""
    assert [percents_of(text) for text in ("0%", "0.5%", "5%", "100%")] == [0.0, 0.5, 5.0, 100.0]
    assert [per_second_of(text) for text in ("200/s", "30/m", "7200/h", "86400/d")] == [200.0, 0.5, 2.0, 1.0]


@pytest.mark.parametrize(
    "text",
    ["", "4", "4 s", "s", "-4s", "+4s", "4sec", "1h30m", "1e3s", ".5s", "4S", "٤s", "4s\n", "9" * 40 + "s"],
)
def test_what_is_no_duration(text: str) -> None:
    """One number, one unit, nothing else."""
    with pytest.raises(ValueError, match="must be a duration with its unit, like 500ms, 4s, 15m, 1h or 7d"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("read", "value", "says"),
    [
        (seconds_of, 15, "must be a duration with its unit, like 500ms, 4s, 15m, 1h or 7d: 15; write 15s if"),
        (percents_of, 5, "must be a percentage with its sign, like 5% or 0.5%: 5; write 5% if that was meant"),
        (per_second_of, 200, "must be a rate with its unit, like 200/s, .*: 200; write 200/s if that was meant"),
        (percents_of, "101%", "must be at most 100%: 101%"),
        (seconds_of, True, "4s, 15m, 1h or 7d: True$"),
        (seconds_of, None, "or 7d: None$"),
    ],
)  # fmt: skip
def test_refusals_show_the_right_form(read: object, value: object, says: str) -> None:
    """A number without its unit is answered with the same number and a unit."""
    with pytest.raises(ValueError, match=says):
        read(value)  # type: ignore[operator]


def test_durations_in_words() -> None:
    """As the file would write them, and rounded for sentences."""
    written = [duration_text(s) for s in (0.5, 4, 90, 900, 7200, 604_800)]
    assert written == ["500ms", "4s", "90s", "15m", "2h", "7d"]
    assert all(seconds_of(duration_text(s)) == s for s in (0.25, 1, 59, 61, 3600, 86_400, 100_000))
    assert [about(s) for s in (0.2, 40, 600, 10_800, 777_600)] == [
        "1 s",
        "40 s",
        "10 minutes",
        "3 hours",
        "9 days",
    ]

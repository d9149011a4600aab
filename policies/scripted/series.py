"""The notation of `tests.yaml`: what one arm shows poll by poll, in one line of text.

`0/10 x60 then 3/10`: no event among 10 units at each of 60 polls, then 3 among 10 at every further poll. `x60` repeats
for 60 polls, `for 30s` for that time; the last item goes on to the end by itself. (In YAML's `{…}` a
comma would end the value; so `then` sets the items apart.)

    3/10                        events among units: errors, slow answers, units acted on
    2% of 10                    events in the exact share over the polls: one among 10 at every fifth poll
    20/100 | 35/100             the same of two groups (gaps): group a, then group b
    [-1 -1 12.5]                payoffs of three units, in order (utility); nan is a payoff that is not finite
    [12.5/1 0/0]                payoff/acted of two units (ratio metrics)
    mean 0.4 sd 5 n 50          payoffs of 50 units, two values in the exact share that gives this mean and deviation;
                                `seed 2` shuffles them otherwise; `acted 30%` (ratio metrics): the units acted on
    missing "the feed is late"  the source says that it has nothing, and why
    _                           nothing new

Source: the form is that of Prometheus' `promtool test rules`. Must never import: anything that does I/O.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from policies.language.quantities import percents_of, seconds_of
from policies.sequential.evidence_blocks import FloatArray

MOST_UNITS = 100_000
_FORMS = '`0/10 x60 then 3/10`, `2% of 10`, `[-1 12.5] x40`, `mean 0.4 sd 5 n 50`, `missing "why" x10` or `_`'


class SeriesError(ValueError):
    """Text that is no series; says what was found and what is understood."""


@dataclass(frozen=True)
class Counts:
    """Events among n units."""

    events: int
    n: int


@dataclass(frozen=True)
class Rate:
    """Events in this share (a fraction) of n units a poll, exact over the polls."""

    share: float
    n: int

    def at(self, poll: int) -> Counts:
        """The counts of a poll, counted from 0."""
        return Counts(_share_of(self.n, self.share, poll), self.n)


@dataclass(frozen=True)
class Groups:
    """Events among the units of two groups."""

    a: Counts | Rate
    b: Counts | Rate

    def at(self, poll: int) -> tuple[Counts, Counts]:
        """Both groups' counts at a poll, counted from 0."""
        first, second = (one.at(poll) if isinstance(one, Rate) else one for one in (self.a, self.b))
        return first, second


@dataclass(frozen=True)
class Payoffs:
    """Units in order: (payoff,) each, or (payoff, acted) each where is_pairs."""

    units: tuple[tuple[float, ...], ...]
    is_pairs: bool


@dataclass(frozen=True)
class Spread:
    """n units' payoffs of this mean and standard deviation; acted: share of units acted on, for ratio metrics."""

    mean: float
    sd: float
    n: int
    seed: int = 1
    acted: float | None = None

    def two_values(self, low: float, high: float) -> tuple[float, float, float]:
        """(value, other value, share of the other) within [low, high]. Raises SeriesError where there are none."""
        most = math.sqrt(max(self.mean - low, 0.0) * max(high - self.mean, 0.0))
        if not low <= self.mean <= high or self.sd > most:
            raise SeriesError(
                f"payoffs in [{low:g}, {high:g}] with mean {self.mean:g} have a standard deviation of at most "
                f"{most:.4g}: {self.sd:g}"
            )
        if self.sd == 0:
            return self.mean, self.mean, 0.0
        other = self.mean + self.sd**2 / (self.mean - low)
        value = low
        if other > high:
            value, other = self.mean - self.sd**2 / (high - self.mean), high
        return value, other, (self.mean - value) / (other - value)

    def drawn(self, poll: int, *, low: float, high: float, arm: int) -> FloatArray:
        """The poll's payoffs (n,), or (payoff, acted) pairs (n, 2); over the polls in the exact shares."""
        value, other, share = self.two_values(low, high)
        rng = np.random.default_rng([self.seed, arm, poll])
        if self.acted is None:
            payoffs = np.full(self.n, value)
            payoffs[: _share_of(self.n, share, poll)] = other
            return rng.permutation(payoffs)
        acted = _share_of(self.n, self.acted, poll)
        pairs = np.zeros((self.n, 2))
        pairs[:acted] = (value, 1.0)
        pairs[: min(_share_of(self.n, self.acted * share, poll), acted), 0] = other
        return rng.permutation(pairs)


@dataclass(frozen=True)
class Missing:
    """The source says that it has nothing, and why."""

    why: str


@dataclass(frozen=True)
class Nothing:
    """Nothing new."""


Item = Counts | Rate | Groups | Payoffs | Spread | Missing | Nothing
Form = Literal["counts", "groups", "payoffs", "pairs"]


@dataclass(frozen=True)
class Series:
    """What one arm shows: items, each with the number of polls that it lasts; None: to the end."""

    items: tuple[tuple[Item, int | None], ...]

    @property
    def polls(self) -> float:
        """How many polls it tells of."""
        return sum(math.inf if times is None else times for _, times in self.items)

    def at(self, poll: int) -> Item:
        """The item of a poll, counted from 0."""
        for item, times in self.items:
            if times is None or poll < times:
                return item
            poll -= times
        return Nothing()


def parse_series(text: str, *, poll_s: float, form: Form) -> Series:
    """Read a series of the form that its metric takes. Raises SeriesError."""
    pieces = _split(text)
    items = []
    for index, piece in enumerate(pieces):
        value, times = _repeated(piece, poll_s=poll_s)
        if times is None and index < len(pieces) - 1:
            times = 1
        item = _item(value)
        _check_form(item, form, value)
        items.append((item, times))
    return Series(tuple(items))


def _share_of(n: int, share: float, poll: int) -> int:
    """How many of n have it at this poll, so that over all polls it is the exact share."""
    return math.floor((poll + 1) * n * share + 0.5) - math.floor(poll * n * share + 0.5)


_QUOTED = re.compile(r'"[^"]*"')
_THEN = re.compile(r"\s+then\s+")


def _split(text: str) -> list[str]:
    """Cut at each `then` that stands in no quotes."""
    hidden = _QUOTED.sub(lambda found: "\0" * len(found[0]), text)
    cuts = [found.span() for found in _THEN.finditer(hidden)]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


_REPEATED = re.compile(r"(?P<value>.*?)(?:\s+x\s*(?P<times>[0-9]{1,7})|\s+for\s+(?P<time>[0-9.]+[a-z]+))?")
_COUNTS = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})")
_RATE = re.compile(r"(\S+)\s+of\s+([0-9]{1,9})")
_MISSING = re.compile(r'missing\s+"([^"]+)"')
_SPREAD = re.compile(
    r"mean\s+(?P<mean>\S+)\s+sd\s+(?P<sd>\S+)\s+n\s+(?P<n>[0-9]{1,6})"
    r"(?:\s+acted\s+(?P<acted>\S+))?(?:\s+seed\s+(?P<seed>[0-9]{1,9}))?"
)


def _repeated(piece: str, *, poll_s: float) -> tuple[str, int | None]:
    found = _REPEATED.fullmatch(piece)
    if found is None:
        raise _no_series(piece)
    if found["times"] is not None:
        times = int(found["times"])
    elif found["time"] is not None:
        try:
            seconds = seconds_of(found["time"])
        except ValueError as error:
            raise SeriesError(f"'{piece}': {error}") from error
        times = round(seconds / poll_s)
        if not math.isclose(times * poll_s, seconds, rel_tol=1e-9):
            raise SeriesError(f"'{piece}' must last a whole number of polls of {poll_s:g} s")
    else:
        return piece, None
    if times < 1:
        raise SeriesError(f"'{piece}' must last at least one poll")
    return found["value"], times


def _item(text: str) -> Item:
    if text == "_":
        return Nothing()
    if (found := _MISSING.fullmatch(text)) is not None:
        return Missing(found[1])
    if (found := _SPREAD.fullmatch(text)) is not None:
        return _spread(found, text)
    if text.startswith("[") and text.endswith("]"):
        return _payoffs(text)
    sides = [_counts(side.strip()) for side in text.split("|")]
    if len(sides) == 2:
        return Groups(*sides)
    if len(sides) == 1:
        return sides[0]
    raise _no_series(text)


def _counts(text: str) -> Counts | Rate:
    if (found := _COUNTS.fullmatch(text)) is not None:
        events, n = int(found[1]), int(found[2])
        if events > n:
            raise SeriesError(f"'{text}' has more events than units")
        return Counts(events, n)
    if (found := _RATE.fullmatch(text)) is not None:
        return Rate(_fraction(found[1]), int(found[2]))
    raise _no_series(text)


def _fraction(text: str) -> float:
    try:
        return percents_of(text) / 100
    except ValueError as error:
        raise SeriesError(str(error)) from error


def _payoffs(text: str) -> Payoffs:
    words = text[1:-1].split()
    is_pairs = any("/" in word for word in words)
    units = tuple(tuple(_number(part, text) for part in word.split("/")) for word in words)
    if any(len(unit) != (2 if is_pairs else 1) for unit in units):
        raise SeriesError(
            f"'{_short(text)}' must hold payoffs like -1 12.5, or payoff/acted pairs like 12.5/1 0/0"
        )
    return Payoffs(units, is_pairs)


def _spread(found: re.Match[str], text: str) -> Spread:
    mean, sd, n = _number(found["mean"], text), _number(found["sd"], text), int(found["n"])
    if not (math.isfinite(mean) and math.isfinite(sd)) or sd < 0 or not 1 <= n <= MOST_UNITS:
        raise SeriesError(f"'{text}' must have a finite mean, sd >= 0 and n from 1 to {MOST_UNITS}")
    acted = None if found["acted"] is None else _fraction(found["acted"])
    return Spread(mean, sd, n, int(found["seed"] or 1), acted)


def _number(word: str, text: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise SeriesError(f"'{word}' in '{_short(text)}' must be a number") from None


_FORM_OF = {"counts": "counts like 3/10 or 2% of 10", "groups": "two groups' counts like 20/100 | 35/100"}
_FORM_OF |= {
    "payoffs": "payoffs like [-1 12.5] or mean 0.4 sd 5 n 50",
    "pairs": "payoff/acted pairs like [12.5/1 0/0] or mean 4 sd 8 n 50 acted 30%",
}


def _check_form(item: Item, form: Form, text: str) -> None:
    fits = {
        "counts": isinstance(item, Counts | Rate),
        "groups": isinstance(item, Groups),
        "payoffs": (isinstance(item, Payoffs) and not item.is_pairs)
        or (isinstance(item, Spread) and item.acted is None),
        "pairs": (isinstance(item, Payoffs) and (item.is_pairs or not item.units))
        or (isinstance(item, Spread) and item.acted is not None),
    }
    if not fits[form] and not isinstance(item, Missing | Nothing):
        raise SeriesError(f"must be {_FORM_OF[form]}, which this metric takes: '{_short(text)}'")


def _no_series(text: str) -> SeriesError:
    if "," in text:
        return SeriesError(f"must set its items apart by `then`, like `0/10 x60 then 3/10`: '{_short(text)}'")
    return SeriesError(f"must be a series like {_FORMS}: '{_short(text)}'")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"

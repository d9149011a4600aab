"""Reads from the request's headers who was assigned what, and whether the decision is a shadow one.

Envoy writes these headers and overwrites what a user sends (facts.md); a value that Envoy cannot have
written is refused rather than counted as evidence. A mirrored request is known by `x-trimtab-shadow: 1` and by
nothing that a user may send: a host that ends in `-shadow` would hide a decision from the evidence. A header that
stands twice is refused: the proxy and we might each read another one. Must never import bentoml.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.serving.row_check import RowRefused

ASSIGNED = ("stable", "canary", "none")
MAX_ID_CHARACTERS = 256


@dataclass(frozen=True)
class RequestMark:
    """The traffic layer's marks on one request; `attempt` counts from 1, `unit` is None without a unit id."""

    request_id: str
    attempt: int
    unit: str | None
    assigned: str
    is_shadow: bool

    @property
    def can_be_refused(self) -> bool:
        """Whether everybody is served though this release gives no answer: it has no reader, or it is the canary's
        first try, which the proxy repeats on stable (services/traffic/clusters.py)."""
        return self.is_shadow or (self.assigned == "canary" and self.attempt == 1)


def read_mark(headers: Iterable[tuple[bytes, bytes]], *, new_id: Callable[[], str]) -> RequestMark:
    """The marks of one request; `headers` have lower-case names (ASGI). A missing request id is made up.

    Raises: RowRefused naming the header.
    """
    found = [(name, value.decode("latin-1")) for name, value in headers if name in _READ]
    texts = dict(found)
    if len(texts) < len(found):
        raise _twice([name for name, _ in found])
    unit = _short_text(texts, b"x-unit-id")
    assigned = texts.get(b"x-trimtab-assigned", "none")
    if assigned not in ASSIGNED:
        raise _refused(
            "x-trimtab-assigned", f"must be one of {', '.join(ASSIGNED)}", assigned, list(ASSIGNED)
        )
    attempt = texts.get(b"x-envoy-attempt-count", "1")
    if not (attempt.isascii() and attempt.isdigit() and len(attempt) <= 4):
        raise _refused("x-envoy-attempt-count", "must be a small whole number", attempt, 9999)
    return RequestMark(
        request_id=_short_text(texts, b"x-request-id") or new_id(),
        attempt=int(attempt),
        unit=unit or None,
        assigned=assigned if unit else "none",
        is_shadow=texts.get(b"x-trimtab-shadow") == "1",
    )


_READ = frozenset(
    (
        b"x-request-id",
        b"x-unit-id",
        b"x-trimtab-assigned",
        b"x-envoy-attempt-count",
        b"x-trimtab-shadow",
    )
)


def _short_text(texts: dict[bytes, str], name: bytes) -> str | None:
    text = texts.get(name)
    if text is not None and len(text) > MAX_ID_CHARACTERS:
        header = name.decode()
        what = f"must have at most {MAX_ID_CHARACTERS} characters"
        raise _refused(header, what, text, MAX_ID_CHARACTERS)
    return text


def _twice(names: list[bytes]) -> RowRefused:
    name = next(one.decode() for one in names if names.count(one) > 1)
    return RowRefused(name, f"'{name}' must stand once", row=None, bound=1)


def _refused(header: str, what: str, value: str, bound: object) -> RowRefused:
    return RowRefused(header, f"'{header}' {what}: {value[:80]!r}", row=None, value=value, bound=bound)

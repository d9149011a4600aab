"""Who comes in: every request but the open ones carries a token, and each endpoint asks for a role.

401 without a known token, 403 below the endpoint's role, 429 (still refused) after `MOST_FAILURES` wrong ones from one
address within `WINDOW_S`. A right token is never locked out: nobody on the machine may keep the kill switch from its
owner by guessing, and 256 random bits are not found by guessing. Comparison is in constant time over hashes.
Must never import: sqlalchemy, flows.
"""

import hmac
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from math import ceil
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.control import token
from services.control.issued_tokens import HOME_NAME, IssuedToken, hash_of, id_of, read_tokens
from services.control.roles import Caller, Role
from services.control.token import TokenError
from services.telemetry.events import log_event

LOGGER = logging.getLogger(__name__)
MOST_FAILURES = 10
WINDOW_S = 60.0
MOST_ADDRESSES = 1_000
CALLER = "trimtab.caller"
_NOBODY = hash_of("")


class TokenBook:
    """The tokens of a home as they stand in its files, read again when a file has changed."""

    def __init__(self, home_token: Path, issued: Path, *, clock: Callable[[], float]) -> None:
        self._files = (home_token, issued)
        self._clock = clock
        self._seen: tuple[object, ...] | None = None
        self._home_hash = _NOBODY
        self._issued: dict[str, IssuedToken] = {}

    def caller(self, header: str | None) -> Caller | None:
        """Whom an Authorization header speaks for; None: nobody. Raises TokenError when the files cannot be used."""
        scheme, _, given = (header or "").partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            return None
        self._refresh()
        record = self._issued.get(id_of(given) or "")
        wanted = self._home_hash if record is None else record.sha256
        if not hmac.compare_digest(hash_of(given), wanted):
            return None
        if record is None:
            return Caller(HOME_NAME, Role.ADMIN, is_home=True)
        return Caller(record.name, record.role) if record.is_live(self._clock()) else None

    def _refresh(self) -> None:
        seen = tuple(_look_of(file) for file in self._files)
        if seen == self._seen:
            return
        home_token, issued = self._files
        self._seen = None  # a failure below must not leave old tokens in force
        self._home_hash = hash_of(token.read(home_token))
        self._issued = {one.id: one for one in read_tokens(issued)}
        self._seen = seen


def _look_of(file: Path) -> object:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


class Failures:
    """How often an address has failed lately."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, address: str) -> float:
        """Note one more failure; how long to wait, s, before the next: 0 while there are few."""
        now = self._timer()
        times = self._times.setdefault(address, deque(maxlen=MOST_FAILURES + 1))
        self._times.move_to_end(address)
        if len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)
        while times and now - times[0] >= WINDOW_S:
            times.popleft()
        times.append(now)
        return 0.0 if len(times) <= MOST_FAILURES else times[1] + WINDOW_S - now


class Admission:
    """ASGI middleware: nobody comes to an endpoint without a token, but to those that are open."""

    def __init__(
        self,
        app: ASGIApp,
        book: TokenBook,
        *,
        open_paths: Collection[str],
        timer: Callable[[], float],
        on_failure: Callable[[], None],
    ) -> None:
        self._app, self._book, self._open = app, book, frozenset(open_paths)
        self._failures = Failures(timer)
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the control service speaks http only: {scope['type']}")
        if scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            caller = self._book.caller(request.headers.get("authorization"))
        except TokenError as error:
            log_event(LOGGER, "tokens_unreadable", level=logging.ERROR, why=error)
            await JSONResponse({"error": "the tokens cannot be read"}, 503)(scope, receive, send)
            return
        if caller is None:
            await self._refusal(request)(scope, receive, send)
            return
        scope[CALLER] = caller
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> JSONResponse:
        address = request.client.host if request.client else "unknown"
        wait_s = self._failures.note(address)
        self._on_failure()
        if wait_s > 0:
            answer = JSONResponse({"error": "too many requests without a right token"}, 429)
            answer.headers["retry-after"] = str(ceil(wait_s))
            return answer
        log_event(LOGGER, "token_refused", level=logging.WARNING, address=address)
        answer = JSONResponse({"error": "a bearer token is needed", "field": "authorization"}, 401)
        answer.headers["www-authenticate"] = "Bearer"
        return answer

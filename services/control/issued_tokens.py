"""Bearer tokens given to people and programs: one file of the home, mode 0600, that holds only their hashes.

A token is `tt_<id>_<secret>`: the id finds the record, the secret has 256 random bits, so one SHA-256 is enough (a slow
hash protects guessable secrets; this one is not). Revoked and expired tokens stay in the file: who once had which role
is worth knowing. Must never import: any framework.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from services.control.roles import Role, role_of
from services.control.token import TokenError, TokenRefused, TokenUnknown, require_private

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
HOME_NAME = "home"
"""What the home's own token is called; nobody else may be."""


@dataclass(frozen=True)
class IssuedToken:
    """One token's record: `sha256` of the whole token; times in epoch s, None: never."""

    id: str
    name: str
    role: Role
    sha256: str
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_live(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_json(self) -> dict[str, object]:
        """The record for people: without the hash."""
        return {**{k: v for k, v in asdict(self).items() if k != "sha256"}, "role": self.role.word}


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def id_of(token: str) -> str | None:
    """The id that a token names; None where the text is no token of ours."""
    found = re.fullmatch(r"tt_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", token)
    return None if found is None else found[1]


def read_tokens(file: Path) -> tuple[IssuedToken, ...]:
    """All tokens ever given, oldest first; none where there is no file. Raises TokenError."""
    if not file.exists():
        return ()
    require_private(file)
    try:
        found = json.loads(file.read_text())["tokens"]
        return tuple(IssuedToken(**{**one, "role": role_of(one["role"])}) for one in found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenError(f"'tokens file' must hold tokens: {file}: {error}") from error


def create(
    file: Path, *, name: str, role: Role, by: str, at: float, expires_at: float | None = None
) -> tuple[IssuedToken, str]:
    """Give a token; its record, and the token itself, which nobody can read again. Raises TokenRefused."""
    if not NAME.fullmatch(name) or name == HOME_NAME:
        raise TokenRefused(f"'name' must match {NAME.pattern} and not be {HOME_NAME!r}: {name!r}")
    if expires_at is not None and not expires_at > at:
        raise TokenRefused(f"'expires_at' must be > now: {expires_at}")
    record, token = _fresh(name, role, by, at, expires_at)
    _change(file, lambda known: (*known, record))
    return record, token


def revoke(file: Path, token_id: str, *, at: float) -> IssuedToken:
    """Take a token back, at once and for good; twice is once. Raises TokenRefused."""

    def changed(known: tuple[IssuedToken, ...]) -> tuple[IssuedToken, ...]:
        old = _given(known, token_id)
        gone = old if old.revoked_at else replace(old, revoked_at=at)
        return tuple(gone if one.id == token_id else one for one in known)

    return _given(_change(file, changed), token_id)


def rotate(file: Path, token_id: str, *, by: str, at: float, grace_s: float = 0.0) -> tuple[IssuedToken, str]:
    """A new token of the same name, role and lifetime; the old one works for `grace_s` more. Raises TokenRefused."""
    if grace_s < 0:
        raise TokenRefused(f"'grace' must be >= 0 s: {grace_s}")

    old = _live(read_tokens(file), token_id, at)
    lifetime_s = None if old.expires_at is None else old.expires_at - old.created_at
    record, token = _fresh(old.name, old.role, by, at, None if lifetime_s is None else at + lifetime_s)

    def end(one: IssuedToken) -> IssuedToken:
        until = at + grace_s
        return replace(one, expires_at=until if one.expires_at is None else min(until, one.expires_at))

    def changed(known: tuple[IssuedToken, ...]) -> tuple[IssuedToken, ...]:
        _live(known, token_id, at)  # it may have been revoked since
        return (*(end(one) if one.id == token_id else one for one in known), record)

    _change(file, changed)
    return record, token


def _fresh(name: str, role: Role, by: str, at: float, expires_at: float | None) -> tuple[IssuedToken, str]:
    token_id = secrets.token_hex(6)
    token = f"tt_{token_id}_{secrets.token_urlsafe(32)}"
    return IssuedToken(token_id, name, role, hash_of(token), at, by, expires_at), token


def _given(known: tuple[IssuedToken, ...], token_id: str) -> IssuedToken:
    found = next((one for one in known if one.id == token_id), None)
    if found is None:
        raise TokenUnknown(f"'token id' must be one that was given: {token_id[:80]!r}")
    return found


def _live(known: tuple[IssuedToken, ...], token_id: str, at: float) -> IssuedToken:
    found = _given(known, token_id)
    if not found.is_live(at):
        raise TokenRefused(f"token {token_id} is not live any more: create a new one")
    return found


def _change(
    file: Path, make: Callable[[tuple[IssuedToken, ...]], tuple[IssuedToken, ...]]
) -> tuple[IssuedToken, ...]:
    """Replace the file whole, one writer at a time, never readable by others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=10, mode=0o600):
        tokens = make(read_tokens(file))
        body = {"tokens": [{**asdict(one), "role": one.role.word} for one in tokens]}
        fresh = Path(f"{file}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(body, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    return tokens

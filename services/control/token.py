"""The bearer token of the control service: made once per home, mode 0600, compared in constant time, never
logged.

Must never import: any framework.
"""

import hmac
import os
import secrets
from pathlib import Path


class TokenError(RuntimeError):
    """The token file cannot be used: empty, or readable by others."""


def load_or_create(file: Path) -> str:
    """The token of a home, made if there is none. Raises TokenError for an empty or a readable one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read(file)
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token + "\n")
    return token


def read(file: Path) -> str:
    """The token as it stands. Raises TokenError."""
    try:
        mode = file.stat().st_mode & 0o777
        token = file.read_text().strip()
    except OSError as error:
        raise TokenError(f"'token file' must be readable: {file}: {error.strerror}") from error
    if mode & 0o077:
        raise TokenError(f"'token file' must have mode 0600: {file} has {mode:04o}")
    if not token:
        raise TokenError(f"'token file' must hold a token: {file} is empty; remove it and start again")
    return token


def is_right(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())

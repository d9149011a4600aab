"""The home's own bearer token: made once per home, mode 0600, its role is admin, never logged.

Whoever may read the home's files may do everything in it anyway; this token is how the programs of the home say so.
Tokens for everybody else: issued_tokens.py. Must never import: any framework.
"""

import os
import secrets
from pathlib import Path


class TokenError(RuntimeError):
    """A token file cannot be used: empty, or readable by others."""


class TokenRefused(TokenError):
    """A token that cannot be given, replaced or taken back as asked."""


class TokenUnknown(TokenRefused):
    """No token has this id."""


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


def replace(file: Path) -> None:
    """Put a new token in place of the old one, which stops working at once."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    load_or_create(fresh)
    fresh.replace(file)


def read(file: Path) -> str:
    """The token as it stands. Raises TokenError."""
    require_private(file)
    token = file.read_text().strip()
    if not token:
        raise TokenError(f"'token file' must hold a token: {file} is empty; remove it and start again")
    return token


def require_private(file: Path) -> None:
    """Raise TokenError for a file that is not there or that others may read."""
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        raise TokenError(f"'token file' must be readable: {file}: {error.strerror}") from error
    if mode & 0o077:
        raise TokenError(f"'token file' must have mode 0600: {file} has {mode:04o}")

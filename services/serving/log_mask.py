"""What the contract wants hidden in the decision log: fields that are hashed with the home's key, or left out.

A hash is HMAC-SHA-256 over the field's name and its value, so that equal values of a field stay equal, no other field
can be matched with it, and nobody without the key can try values out. Numbers that are equal hash alike (1 and 1.0).
A null stays null. What the model and the prices see is never hidden: only the log is. Must never import bentoml.
"""

import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from services.data.columns import Column

KEY_BYTES = 32
PREFIX = "hmac-sha256:"
_SHOWN_DIGITS = 32


class LogKeyError(RuntimeError):
    """The key is missing, readable by others, or no key."""


class LogMask:
    """Hides what the contract marks; the key is made and read only where a field is hashed. Raises: LogKeyError."""

    def __init__(self, columns: Sequence[Column], key_file: Path | None) -> None:
        self._dropped = frozenset(column.name for column in columns if column.in_log == "dropped")
        self._hashed = tuple(column.name for column in columns if column.in_log == "hashed")
        self._key = b""
        if self._hashed:
            if key_file is None:
                fields = ", ".join(self._hashed)
                raise LogKeyError(f"the contract wants {fields} hashed in the log, and no key file is named")
            self._key = load_or_create_key(key_file)

    @property
    def hides_nothing(self) -> bool:
        return not self._dropped and not self._hashed

    def hide(self, row: Mapping[str, object]) -> dict[str, object]:
        """The row as it may stand in the log."""
        hidden = {name: value for name, value in row.items() if name not in self._dropped}
        for name in self._hashed:
            if hidden.get(name) is not None:
                hidden[name] = self._hash(name, hidden[name])
        return hidden

    def _hash(self, name: str, value: object) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = orjson.dumps([name, float(value) if is_number else value])  # type: ignore[arg-type]
        return PREFIX + hmac.digest(self._key, text, "sha256").hex()[:_SHOWN_DIGITS]


def load_or_create_key(file: Path) -> bytes:
    """The key in the file, made if there is none, mode 0600; whole or not at all, whoever comes first.

    Raises: LogKeyError for a file that others can read or that holds no key; OSError.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, staged = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(staged, file)
        os.unlink(staged)
    if (mode := file.stat().st_mode & 0o777) & 0o077:
        raise LogKeyError(f"'log key' must have mode 0600: {file} has {mode:04o}")
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise LogKeyError(f"'log key' must be {2 * KEY_BYTES} hexadecimal digits: {file}")
    return key

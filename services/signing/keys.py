"""A home's signing key (ed25519, PEM, mode 0600) and the public keys that it trusts (`trusted.json`).

The home's own public key is trusted from the moment it is made, and stays so when the key is rotated, until it is
distrusted: what it signed is still what it signed. Other homes' keys come in by name (`trimtab key trust`).
Source: securesystemslib's Signer API. Must never import: bentoml, torch, sqlalchemy, flows.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from filelock import FileLock
from securesystemslib.signer import CryptoSigner, SSlibKey

SIGNING_FILE = "signing.pem"
TRUSTED_FILE = "trusted.json"
_SCHEME = "ed25519"


class SignatureError(RuntimeError):
    """A key cannot be used, or a signature is missing, wrong, or by nobody who is trusted."""


class UntrustedSigner(SignatureError):
    """A whole signature, by a key that is not trusted here, or not any more."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key and whose it is; `public` 64 hex digits, `keyid` its fingerprint."""

    keyid: str
    name: str
    public: str

    def to_key(self) -> SSlibKey:
        return SSlibKey(self.keyid, _SCHEME, _SCHEME, {"public": self.public})


def signer_of(folder: Path, *, name: str) -> CryptoSigner:
    """The signing key of the home whose keys lie in `folder`, made and trusted under `name` if there is none.

    Raises: SignatureError for a key that others can read, or that is none.
    """
    file = folder / SIGNING_FILE
    if not file.exists():
        with _locked(folder):
            if not file.exists():
                return _make(folder, name)
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise SignatureError(f"'signing key' must have mode 0600: {file} has {mode:04o}")
    try:
        signer = CryptoSigner(load_pem_private_key(file.read_bytes(), None))
    except (ValueError, TypeError) as error:
        raise SignatureError(f"'signing key' must be an ed25519 key in PEM: {file}: {error}") from error
    if signer.public_key.scheme != _SCHEME:
        raise SignatureError(f"'signing key' must be ed25519: {file} is {signer.public_key.scheme}")
    return signer


def rotate(folder: Path, *, name: str) -> CryptoSigner:
    """Put a new signing key in place; the old public key stays trusted until `distrust`."""
    with _locked(folder):
        return _make(folder, name)


def trusted_keys(file: Path) -> tuple[TrustedKey, ...]:
    """The keys of a trusted.json, oldest first; none where there is no file. Raises: SignatureError."""
    try:
        found = json.loads(file.read_text())["keys"]
        keys = tuple(TrustedKey(str(one["keyid"]), str(one["name"]), str(one["public"])) for one in found)
        for key in keys:
            if len(bytes.fromhex(key.public)) != 32:
                raise ValueError(f"'public' must be 32 bytes in hex: {key.public[:80]!r}")
            if fingerprint(key.public) != key.keyid:
                raise ValueError(f"'keyid' must be {fingerprint(key.public)}: {key.keyid[:80]!r}")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SignatureError(f"'trusted keys' must be readable: {file}: {error}") from error
    return keys


def fingerprint(public: str) -> str:
    """The key id of a public key (64 hex digits), as securesystemslib computes it. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))).keyid


def trust(folder: Path, *, name: str, public: str) -> TrustedKey:
    """Trust a public key (64 hex digits) from now on; twice is once. Raises: SignatureError."""
    try:
        key = TrustedKey(fingerprint(public), name, public)
    except ValueError as error:
        raise SignatureError(f"'public' must be an ed25519 key, 64 hex digits: {public[:80]!r}") from error
    with _locked(folder):
        _add(folder, key)
    return key


def distrust(folder: Path, keyid: str) -> TrustedKey:
    """Trust a key no longer: what it signed is not served any more.

    Raises: SignatureError if it was not trusted, or is the one that this home signs with.
    """
    with _locked(folder):
        known = trusted_keys(folder / TRUSTED_FILE)
        gone = [key for key in known if key.keyid == keyid]
        if not gone:
            raise SignatureError(f"'keyid' must be one that is trusted: {keyid[:80]!r}")
        if (folder / SIGNING_FILE).exists() and signer_of(folder, name="").public_key.keyid == keyid:
            raise SignatureError(f"'keyid' must not be this home's own; `trimtab key rotate` first: {keyid}")
        _write_trusted(folder, [key for key in known if key.keyid != keyid])
    return gone[0]


def _make(folder: Path, name: str) -> CryptoSigner:
    signer = CryptoSigner.generate_ed25519()
    _write(folder / SIGNING_FILE, signer.private_bytes, 0o600)
    _add(folder, TrustedKey(signer.public_key.keyid, name, str(signer.public_key.keyval["public"])))
    return signer


def _add(folder: Path, key: TrustedKey) -> None:
    known = trusted_keys(folder / TRUSTED_FILE)
    if key.keyid not in [one.keyid for one in known]:
        _write_trusted(folder, [*known, key])


def _write_trusted(folder: Path, keys: list[TrustedKey]) -> None:
    text = json.dumps({"keys": [vars(key) for key in keys]}, indent=1)
    _write(folder / TRUSTED_FILE, text.encode(), 0o644)


def _locked(folder: Path) -> FileLock:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileLock(folder / ".lock", timeout=10)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Replace a file whole; it never has another mode than this."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)

"""A release's signature: an in-toto statement over every file of it, in a DSSE envelope beside them.

The statement's subjects are the release's files with their SHA-256, the manifest included; the predicate repeats the
manifest's own words. It stands in the release folder and travels with it; what it is checked against, the trusted
keys, never does. Source: in-toto Attestation Framework, Statement v1
(https://github.com/in-toto/attestation/tree/main/spec/v1). Must never import: bentoml, torch, sqlalchemy, flows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.serving.release import MANIFEST, SIGNATURE, Release
from services.signing.envelope import open_signed, sign
from services.signing.keys import SignatureError, TrustedKey, signer_of, trusted_keys

if TYPE_CHECKING:
    from services.home import Home

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:trimtab:release:v1"
MAX_SIGNATURE_BYTES = 2**20


def sign_release(release: Release, keys: Path, *, name: str) -> str:
    """Sign a release as it stands with the home's key (made if there is none, trusted as `name`); the key's id."""
    signer = signer_of(keys, name=name)
    text = sign(_statement(release), PAYLOAD_TYPE, signer)
    fresh = release.folder.parent / f".{release.id}.{SIGNATURE}"
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.chmod(0o444)
    fresh.replace(release.folder / SIGNATURE)
    return str(signer.public_key.keyid)


def verify_release(release: Release, trusted_file: Path) -> TrustedKey:
    """Whose key vouches for this release, byte for byte. Raises: SignatureError saying what to do."""
    trusted = trusted_keys(trusted_file)
    file = release.folder / SIGNATURE
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError as error:
        raise SignatureError(
            f"release {release.id} is not signed; whoever knows where it comes from signs it: "
            f"`trimtab release sign {release.id}`"
        ) from error
    if len(text) > MAX_SIGNATURE_BYTES:
        raise SignatureError(f"{file}: must be <= {MAX_SIGNATURE_BYTES} bytes")
    try:
        return _vouched(release, text, trusted)
    except SignatureError as error:
        raise SignatureError(f"release {release.id} ({SIGNATURE}): {error}") from error


def sign_in_home(release: Release, home: Home) -> str:
    """Sign a release with this home's key; the key's id."""
    return sign_release(release, home.keys, name=home.root.name)


def verify_in_home(release: Release, home: Home) -> TrustedKey:
    """Whose key, trusted in this home, vouches for the release. Raises: SignatureError."""
    return verify_release(release, home.trusted_keys_file)


def _vouched(release: Release, text: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey:
    said, key = open_signed(text, PAYLOAD_TYPE, trusted)
    for field, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if said.get(field) != wanted:
            raise SignatureError(f"'{field}' must be {wanted}: {str(said.get(field))[:80]!r}")
    expected = _statement(release)
    if said.get("subject") != expected["subject"]:
        raise SignatureError(
            "'subject' must be the release's files as they are: it was signed for other content"
        )
    if said.get("predicate") != expected["predicate"]:
        raise SignatureError("'predicate' must be the release's own words: it was signed for another release")
    return key


def _statement(release: Release) -> Mapping[str, object]:
    manifest = hashlib.sha256((release.folder / MANIFEST).read_bytes()).hexdigest()
    digests = {MANIFEST: manifest, **{n: d.removeprefix("sha256:") for n, d in release.digests.items()}}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "release": release.id,
            "service": release.service,
            "contentDigest": release.content_digest,
            "createdAt": release.created_at,
            "provenance": dict(release.provenance),
        },
    }

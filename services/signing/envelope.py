"""Signed statements: JSON in a DSSE envelope, by one ed25519 key; verified against the keys that are trusted.

Source: DSSE v1.0 (https://github.com/secure-systems-lab/dsse), securesystemslib's implementation.
Must never import: bentoml, torch, sqlalchemy, flows.
"""

import json
from collections.abc import Mapping, Sequence

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error, VerificationError
from securesystemslib.signer import CryptoSigner

from services.signing.keys import SignatureError, TrustedKey, UntrustedSigner


def sign(payload: Mapping[str, object], payload_type: str, signer: CryptoSigner) -> str:
    """The envelope, as JSON text on one line."""
    content = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    envelope = Envelope(content.encode(), payload_type, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":"))


def open_signed(
    text: str | bytes, payload_type: str, trusted: Sequence[TrustedKey]
) -> tuple[Mapping[str, object], TrustedKey]:
    """What an envelope says, and whose key vouches for it. Raises: SignatureError, UntrustedSigner of them."""
    try:
        envelope = Envelope.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Error) as error:
        raise SignatureError(f"it is no DSSE envelope: {type(error).__name__}") from error
    if envelope.payload_type != payload_type:
        raise SignatureError(f"'payloadType' must be {payload_type}: {str(envelope.payload_type)[:80]!r}")
    known = {key.keyid: key for key in trusted}
    if not set(envelope.signatures) & set(known):
        signers = ", ".join(sorted(keyid[:16] for keyid in envelope.signatures)) or "nobody"
        raise UntrustedSigner(f"it is signed by {signers}, whom nobody here trusts")
    try:
        accepted = envelope.verify([key.to_key() for key in trusted], 1)
    except VerificationError as error:
        raise SignatureError("its signature is not of its content") from error
    try:
        said = json.loads(envelope.payload)
    except ValueError as error:
        raise SignatureError(f"its payload is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise SignatureError("its payload is no JSON object")
    return said, known[next(iter(accepted))]

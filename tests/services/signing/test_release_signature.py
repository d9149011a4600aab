"""A release is served only if a trusted key vouches for every byte of it."""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.operating.operating_point import OperatingPoint
from services.home import Home, Ports
from services.serving.launch import LaunchError, require_signature
from services.serving.release import MANIFEST, SIGNATURE, Release, ReleaseError, read_release, write_release
from services.signing.keys import SignatureError, distrust, rotate, signer_of, trust, trusted_keys
from services.signing.release_signature import sign_in_home, verify_in_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", Ports(1))


@pytest.fixture
def write(parts: Any, policy_texts: dict[str, str]) -> Callable[..., Release]:
    def write_into(folder: Path, *, shift: float = 0.0) -> Release:
        return write_release(
            folder,
            service="telemarketing",
            candidate=parts,
            operating_point=OperatingPoint(shift=(0.0, shift)),
            policies=policy_texts,
            provenance={"of": "a test"},
            created_at=1.0,
        )

    return write_into


@pytest.fixture
def signed(home: Home, write: Callable[..., Release]) -> Release:
    release = write(home.releases)
    sign_in_home(release, home)
    return release


def envelope_of(release: Release) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((release.folder / SIGNATURE).read_text())
    return found


def put(release: Release, envelope: object) -> None:
    file = release.folder / SIGNATURE
    file.unlink()
    file.write_text(envelope if isinstance(envelope, str) else json.dumps(envelope))


def test_a_signed_release_is_vouched_for(home: Home, signed: Release) -> None:
    """The home's own key vouches; the folder is still a release; signing again changes nothing that is checked."""
    key = verify_in_home(signed, home)
    assert (key.name, key.keyid) == ("home", sign_in_home(signed, home))
    assert read_release(signed.folder) == signed
    assert verify_in_home(signed, home) == key


def test_the_envelope_is_dsse_with_an_in_toto_statement(home: Home, signed: Release) -> None:
    """By the published formats alone, without the library that wrote it: PAE, ed25519, Statement v1, every file."""
    envelope = envelope_of(signed)
    payload, kind = b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (key,) = trusted_keys(home.trusted_keys_file)
    (signature,) = envelope["signatures"]
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(b64decode(signature["sig"]), encoded)
    assert kind == b"application/vnd.in-toto+json"
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    files = {one["name"] for one in statement["subject"]}
    assert files == {file.name for file in signed.folder.iterdir()} - {SIGNATURE}
    assert statement["predicate"]["release"] == signed.id


def test_the_key_is_private(home: Home, signed: Release) -> None:
    """The private key is 0600 from the first; once others can read it, nothing is signed with it."""
    file = home.keys / "signing.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(SignatureError, match="mode 0600"):
        sign_in_home(signed, home)
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(SignatureError, match="ed25519 key in PEM"):
        sign_in_home(signed, home)


def test_no_signature_no_service(home: Home, write: Callable[..., Release]) -> None:
    """An unsigned release is refused with what to do."""
    signer_of(home.keys, name="home")
    release = write(home.releases)
    with pytest.raises(SignatureError, match=f"is not signed.*trimtab release sign {release.id}"):
        verify_in_home(release, home)


def test_a_signature_of_another_release_does_not_fit(home: Home, signed: Release, write: Any) -> None:
    """A valid signature, moved to another release, vouches for nothing."""
    other = write(home.releases, shift=1.0)
    shutil.copy(signed.folder / SIGNATURE, other.folder / SIGNATURE)
    with pytest.raises(SignatureError, match="'subject' must be the release's files"):
        verify_in_home(other, home)


def test_a_manifest_that_was_touched_does_not_fit(home: Home, signed: Release) -> None:
    """What the id does not cover, the time of writing, the signature covers."""
    manifest = signed.folder / MANIFEST
    text = manifest.read_text().replace('"created_at": 1.0', '"created_at": 2.0')
    manifest.chmod(0o644)
    manifest.write_text(text)
    touched = read_release(signed.folder)
    assert touched == replace(signed, created_at=2.0)
    with pytest.raises(SignatureError, match="'subject' must be"):
        verify_in_home(touched, home)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda e: {**e, "payload": b64encode(b64decode(e["payload"]) + b" ").decode()},
            "not of its content",
        ),
        (lambda e: {**e, "payloadType": "text/plain"}, "'payloadType' must be"),
        (lambda e: {**e, "signatures": []}, "signed by nobody"),
        (lambda e: {**e, "signatures": e["signatures"] * 2}, "no DSSE envelope"),
        (
            lambda e: {**e, "signatures": [{**e["signatures"][0], "sig": b64encode(bytes(64)).decode()}]},
            "not of its content",
        ),
        (lambda e: {**e, "signatures": [{**e["signatures"][0], "keyid": "0" * 64}]}, "nobody here trusts"),
        (lambda e: {**e, "signatures": [{"keyid": 1}]}, "no DSSE envelope"),
        (lambda e: {"payload": e["payload"]}, "no DSSE envelope"),
        (lambda _: [], "no DSSE envelope"),
        (lambda _: "[" * 100_000, "no DSSE envelope"),
        (lambda _: "", "no DSSE envelope"),
        (lambda _: " " * (2**20 + 1), "<= 1048576 bytes"),
    ],
)
def test_envelopes_that_vouch_for_nothing(home: Home, signed: Release, change: Any, says: str) -> None:
    """However an envelope is changed, it is refused with one sentence, never a traceback."""
    put(signed, change(envelope_of(signed)))
    with pytest.raises(SignatureError, match=says):
        verify_in_home(signed, home)


def test_another_homes_release_needs_trust(home: Home, signed: Release, tmp_path: Path) -> None:
    """A release from elsewhere is refused, accepted once its key is trusted by name, refused when no more."""
    elsewhere = Home(tmp_path / "elsewhere", Ports(2))
    signer_of(elsewhere.keys, name="elsewhere")
    with pytest.raises(SignatureError, match="nobody here trusts"):
        verify_in_home(signed, elsewhere)
    (key,) = trusted_keys(home.trusted_keys_file)
    for _ in range(2):
        trust(elsewhere.keys, name="the lab", public=key.public)
    assert verify_in_home(signed, elsewhere).name == "the lab"
    assert len(trusted_keys(elsewhere.trusted_keys_file)) == 2
    distrust(elsewhere.keys, key.keyid)
    with pytest.raises(SignatureError, match="nobody here trusts"):
        verify_in_home(signed, elsewhere)
    with pytest.raises(SignatureError, match="64 hex digits"):
        trust(elsewhere.keys, name="x", public="00")


def test_rotation_keeps_what_was_signed(home: Home, signed: Release) -> None:
    """After a rotation old signatures hold until the old key is distrusted; new ones are the new key's."""
    old = verify_in_home(signed, home)
    new = rotate(home.keys, name="home").public_key.keyid
    assert verify_in_home(signed, home) == old != new
    distrust(home.keys, old.keyid)
    with pytest.raises(SignatureError):
        verify_in_home(signed, home)
    assert sign_in_home(signed, home) == new == verify_in_home(signed, home).keyid


def test_a_trusted_file_with_a_false_fingerprint_is_refused(home: Home, signed: Release) -> None:
    """A key id that is not its key's fingerprint would let one key stand for another."""
    file = home.trusted_keys_file
    file.write_text(file.read_text().replace(verify_in_home(signed, home).keyid, "0" * 64))
    with pytest.raises(SignatureError, match="'keyid' must be"):
        verify_in_home(signed, home)


def test_the_launcher_asks_for_the_trusted_keys(home: Home, signed: Release) -> None:
    """No variable, no service; with it, the release in the Bento is read and verified anew."""
    with pytest.raises(LaunchError, match="'TRIMTAB_TRUSTED_KEYS' must name"):
        require_signature(signed.folder, {})
    known = {"TRIMTAB_TRUSTED_KEYS": str(home.trusted_keys_file)}
    require_signature(signed.folder, known)
    with pytest.raises(SignatureError, match="nobody here trusts"):
        require_signature(signed.folder, {"TRIMTAB_TRUSTED_KEYS": str(home.root / "none.json")})
    (signed.folder / "network.json").chmod(0o644)
    (signed.folder / "network.json").write_text("{}")
    with pytest.raises(ReleaseError, match=r"network\.json"):
        require_signature(signed.folder, known)


def test_a_changed_release_does_not_come_up(home: Home, signed: Release) -> None:
    """The real launcher, as a process: it ends with status 2 and says why, before it listens."""
    bento = home.root / "bento" / "src"
    root = Path(__file__).resolve().parents[3]
    for room in ("services", "policies"):
        (bento / room).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(root / room, bento / room)
    code = f"import services.serving.launch as l, pathlib; l.SOURCE = pathlib.Path({str(bento)!r}); " + (
        "import os, sys; sys.exit(l.main(['--port', '1'], os.environ))"
    )
    shutil.copytree(signed.folder, bento / "release")
    (bento / "release" / SIGNATURE).unlink()
    environment = {
        **os.environ,
        "TRIMTAB_TRUSTED_KEYS": str(home.trusted_keys_file),
        "PYTHONPATH": str(bento),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"refused: release {signed.id} is not signed")

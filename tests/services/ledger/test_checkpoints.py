"""Signed checkpoints show what a forger of the whole chain would otherwise hide."""

import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from sqlalchemy import text

from services.ledger.checkpoints import (
    CHECKPOINTS_FILE,
    Checkpointer,
    kept_checkpoints,
    verify_checkpoints,
    write_checkpoint,
)
from services.ledger.ledger import HEAD_FILE, append, verify
from services.signing.keys import SignatureError, TrustedKey, distrust, rotate, signer_of, trusted_keys
from services.store.database import Database


@pytest.fixture
def signer(tmp_path: Path) -> CryptoSigner:
    return signer_of(tmp_path / "keys", name="main")


@pytest.fixture
def trusted(signer: CryptoSigner, tmp_path: Path) -> tuple[TrustedKey, ...]:
    return trusted_keys(tmp_path / "keys" / "trusted.json")


def fill(db: Database, count: int, *, said: str = "true") -> None:
    for number in range(count):
        append(db, "note", {"number": number, "said": said}, service="s", rollout_id=None, at=float(number))


def forge_whole_chain(db: Database) -> None:
    """What whoever may write the home's files can do: another ledger from the first entry on, head and all."""
    with db.write() as connection:
        for trigger in connection.execute(
            text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ).scalars():
            connection.execute(text(f"DROP TRIGGER {trigger}"))
        connection.execute(text("DELETE FROM ledger"))
    assert db.folder is not None
    (db.folder / HEAD_FILE).unlink()
    fill(db, 3, said="false")
    assert verify(db).ok


def test_an_empty_ledger_has_no_checkpoint(
    db: Database, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """Nothing to sign, nothing signed, nothing wrong."""
    assert write_checkpoint(db, signer, at=1.0) is None
    assert verify_checkpoints(db, [], trusted).ok


def test_checkpoints_agree_with_an_honest_ledger(
    db: Database, tmp_path: Path, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """Each is true of the ledger then and stays true as it grows; who signed is said."""
    for at in (1.0, 2.0):
        fill(db, 2)
        assert write_checkpoint(db, signer, at=at) is not None
    fill(db, 1)
    found = verify_checkpoints(db, kept_checkpoints(tmp_path), trusted)
    assert (found.ok, found.count, found.signed_by, found.why) == (True, 2, "main", "")
    assert found.last is not None
    assert (found.last.entries, found.last.at) == (4, 2.0)


def test_a_rewritten_chain_is_found(
    db: Database, tmp_path: Path, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """A chain that is whole in itself but is not the one that was signed is refused, and so is a shorter one."""
    if not db.is_sqlite:
        pytest.skip("forges by SQLite's own means")
    fill(db, 2)
    write_checkpoint(db, signer, at=1.0)
    fill(db, 3)
    write_checkpoint(db, signer, at=2.0)
    forge_whole_chain(db)
    first, second = kept_checkpoints(tmp_path)
    found = verify_checkpoints(db, [first], trusted)
    assert (found.ok, found.why) == (
        False,
        "entry 2 has another hash than in checkpoint 1: the chain was rewritten",
    )
    assert verify_checkpoints(db, [second], trusted).why == "entry 5 is gone: checkpoint 1 has seen it"


def test_checkpoints_of_nobody_are_refused(
    db: Database, tmp_path: Path, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """A forger's own key, a changed payload and a line that is no envelope are named by their number."""
    fill(db, 2)
    honest = write_checkpoint(db, signer, at=1.0)
    assert honest is not None
    write_checkpoint(db, signer_of(tmp_path / "forger", name="forger"), at=2.0)
    found = verify_checkpoints(db, kept_checkpoints(tmp_path), trusted)
    assert (found.ok, found.why.partition(":")[0]) == (False, "checkpoint 2")
    envelope = json.loads(honest)
    said = b64decode(envelope["payload"]).replace(b'"entries":2', b'"entries":1')
    changed = json.dumps({**envelope, "payload": b64encode(said).decode()})
    assert "not of its content" in verify_checkpoints(db, [changed], trusted).why
    assert "no DSSE envelope" in verify_checkpoints(db, ["", honest], trusted).why


def test_the_checkpointer_signs_what_is_new_and_not_too_often(
    db: Database, tmp_path: Path, signer: CryptoSigner
) -> None:
    """Nothing new, nothing signed; at most one in its interval; at the end what is left."""
    one = Checkpointer(db, lambda: signer, every_s=10)
    assert not one.look(0.0)
    fill(db, 1)
    assert one.look(1.0)
    assert not one.look(20.0)
    fill(db, 1)
    assert one.look(21.0)
    fill(db, 1)
    assert not one.look(22.0)
    assert one.look(22.0, at_once=True)
    assert not one.look(22.0, at_once=True)
    assert len((tmp_path / CHECKPOINTS_FILE).read_text().splitlines()) == 3


def test_a_distrusted_key_breaks_no_ledger(
    db: Database, tmp_path: Path, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """What a key signed that is trusted no more is passed over, but only where a trusted checkpoint follows it."""
    fill(db, 2)
    write_checkpoint(db, signer, at=1.0)
    rotated = rotate(tmp_path / "keys", name="main")
    one = Checkpointer(db, lambda: signer_of(tmp_path / "keys", name="main"), every_s=0.0)
    distrust(tmp_path / "keys", trusted[0].keyid)
    now = trusted_keys(tmp_path / "keys" / "trusted.json")
    alone = verify_checkpoints(db, kept_checkpoints(tmp_path), now)
    assert (alone.ok, "nobody here trusts" in alone.why) == (False, True)
    assert one.look(2.0)
    found = verify_checkpoints(db, kept_checkpoints(tmp_path), now)
    assert (found.ok, found.count, found.why) == (True, 2, "")
    assert [key.keyid for key in now] == [rotated.public_key.keyid]
    with pytest.raises(SignatureError, match="rotate` first"):
        distrust(tmp_path / "keys", rotated.public_key.keyid)


def test_a_torn_checkpoint_is_no_broken_ledger(
    db: Database, tmp_path: Path, signer: CryptoSigner, trusted: tuple[TrustedKey, ...]
) -> None:
    """A line that a full disk has cut is not counted, and the next one does not run into it."""
    fill(db, 1)
    write_checkpoint(db, signer, at=1.0)
    write_checkpoint(db, signer, at=2.0)
    file = tmp_path / CHECKPOINTS_FILE
    file.write_bytes(file.read_bytes()[:-40])
    assert verify_checkpoints(db, kept_checkpoints(tmp_path), trusted).count == 1
    write_checkpoint(db, signer, at=3.0)
    found = verify_checkpoints(db, kept_checkpoints(tmp_path), trusted)
    assert (found.ok, found.count) == (True, 2)


def test_a_checkpoint_that_failed_is_tried_again(db: Database, tmp_path: Path, signer: CryptoSigner) -> None:
    """A disk that refuses once costs one interval, not the checkpoint."""
    fill(db, 1)
    one = Checkpointer(db, lambda: signer, every_s=10)
    file = tmp_path / CHECKPOINTS_FILE
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        one.look(1.0)
    file.rmdir()
    assert not one.look(2.0)
    assert one.look(11.0)

"""`trimtab token`, `key`, `release` and the signed side of `ledger`, on a home of their own; nothing runs."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from policies.operating.operating_point import OperatingPoint
from services.control.admission import TokenBook
from services.control.roles import Role
from services.home import Home, Ports
from services.ledger.ledger import append, entries
from services.rehearsal.drill_releases import copy_release
from services.serving.release import Release, read_release, write_release
from services.signing.release_signature import sign_in_home
from services.store.database import Database, open_database
from services.store.decisions import DecisionRow, upsert_decisions


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path))
    monkeypatch.delenv("TRIMTAB_DATABASE_URL", raising=False)
    for name, base in (("main", 1), ("other", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ports.json").write_text(json.dumps({"base": base}))
    return Home(tmp_path / "main", Ports(1))


@pytest.fixture
def db(home: Home) -> Database:
    return open_database(home.database_url)


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


def asked(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_token_verbs_end_to_end(home: Home, db: Database) -> None:
    """Created, listed, rotated, revoked; a bad role, name or id is exit status 2; who did it is on the ledger."""
    made = asked("token", "create", "ana", "--role", "approver", "--days", "1")
    book = TokenBook(home.token_file, home.issued_tokens_file, clock=time.time)
    home.token_file.write_text("own\n")
    home.token_file.chmod(0o600)
    caller = book.caller(f"Bearer {made['token']}")
    assert caller is not None
    assert (caller.name, caller.role) == ("ana", Role.APPROVER)
    fresh = asked("token", "rotate", made["id"], "--grace", "0")
    assert book.caller(f"Bearer {made['token']}") is None
    asked("token", "revoke", fresh["id"])
    assert book.caller(f"Bearer {fresh['token']}") is None
    assert [one["id"] for one in asked("token", "list")] == [made["id"], fresh["id"]]
    assert made["token"] not in run("token", "list")
    run("token", "create", "ana", "--role", "owner", status=2)
    run("token", "create", "a b", "--role", "viewer", status=2)
    run("token", "revoke", "none", status=2)
    assert [entry.body["what"] for entry in entries(db, kind="token")] == [
        "created",
        f"rotated {made['id']}",
        "revoked",
    ]
    run("token", "rotate", "home")
    assert book.caller("Bearer own") is None


def test_a_release_goes_from_one_home_to_another(
    home: Home, db: Database, tmp_path: Path, parts: Any, policy_texts: dict[str, str]
) -> None:
    """Refused where its key is unknown, taken once the key is trusted or the release signed anew; distrust undoes."""
    release: Release = write_release(
        home.releases,
        service="telemarketing",
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={},
        created_at=1.0,
    )
    assert "is not signed" in run("release", "verify", release.id, status=1)
    sign_in_home(release, home)
    assert "signed by 'main'" in run("release", "verify")
    other = Home(tmp_path / "other", Ports(100))
    copy_release(read_release(release.folder), other.releases)
    assert "nobody here trusts" in run("release", "verify", "--home", "other", status=1)
    keys = tmp_path / "keys.json"
    keys.write_text(run("key", "show", "--json"))
    run("key", "trust", str(keys), "--as", "the-lab", "--home", "other")
    (told,) = asked("release", "verify", "--home", "other")
    assert (told["ok"], told["signed_by"]) == (True, "the-lab")
    run("key", "distrust", told["keyid"], "--home", "other")
    run("release", "verify", "--home", "other", status=1)
    run("release", "sign", release.id, "--home", "other")
    assert "signed by 'other'" in run("release", "verify", "--home", "other")
    run("key", "rotate", "--home", "other")
    assert "signed by 'other'" in run("release", "verify", "--home", "other")
    run("key", "trust", "nothing.json", status=2)
    run("key", "distrust", "0", status=2)
    run("release", "verify", "../../etc", status=1)


def test_the_ledger_agrees_with_a_checkpoint_kept_elsewhere(home: Home, db: Database, tmp_path: Path) -> None:
    """A checkpoint is written, kept, and agrees; a forged one, and one of a ledger that was longer, are refused."""
    append(db, "note", {"n": 1}, service="s", rollout_id=None, at=1.0)
    kept = tmp_path / "elsewhere.json"
    run("ledger", "checkpoint", "--out", str(kept))
    append(db, "note", {"n": 2}, service="s", rollout_id=None, at=2.0)
    assert "1 signed checkpoints agree" in run("ledger", "verify")
    assert asked("ledger", "verify", "--checkpoint", str(kept))["checkpoints"]["count"] == 2
    kept.write_text("{}")
    assert "no DSSE envelope" in run("ledger", "verify", "--checkpoint", str(kept), status=1)
    run("ledger", "verify", "--checkpoint", str(tmp_path / "none"), status=2)


def test_both_interfaces_are_described(
    home: Home, tmp_path: Path, parts: Any, policy_texts: dict[str, str]
) -> None:
    """The documents hold the release's own fields and every endpoint with its role; without a release it fails."""
    release = write_release(
        home.releases,
        service="telemarketing",
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policy_texts,
        provenance={},
        created_at=1.0,
    )
    out = tmp_path / "decide.json"
    run("openapi", "decide", "--release", release.id, "--out", str(out))
    row = json.loads(out.read_text())["components"]["schemas"]["Row"]
    assert row["properties"]["day"] == {"type": "integer", "minimum": 1, "maximum": 31}
    assert "duration" not in row["properties"]
    assert "balance" in row["required"]
    control = json.loads(run("openapi", "control"))
    assert control["paths"]["/approvals"]["post"]["description"] == "Needs: role approver or higher."
    run("openapi", "decide", status=1)


HOSTILE = "\x1b]0;all is well\x07\u202e[/red] [bold] \\[a, b] [link=http://x]"


def test_what_a_person_wrote_is_no_markup(db: Database) -> None:
    """Brackets in an argument come back as they were, in an error for people; they end no command in a traceback."""
    for arguments in (
        ("trace", HOSTILE),
        ("replay", HOSTILE),
        ("token", "create", HOSTILE, "--role", "viewer"),
        ("token", "create", "ana", "--role", HOSTILE),
        ("token", "revoke", HOSTILE),
        ("key", "distrust", HOSTILE),
        ("release", "verify", HOSTILE),
        ("report", "--stage", HOSTILE),
    ):
        done = CliRunner().invoke(app, list(arguments))
        assert (done.exit_code in (1, 2), type(done.exception)) == (True, SystemExit), arguments
        assert "\\u202e[/red] [bold]" in done.output
        assert "\x1b]" not in done.output


def test_a_reason_on_the_ledger_is_no_markup(db: Database) -> None:
    """Whoever may give an order cannot make the ledger unreadable by his reason, nor hide what he wrote."""
    append(db, "order", {"by": "mallory", "reason": HOSTILE}, service="s", rollout_id="r", at=1.0)
    shown = run("ledger", "show")
    assert "\\x1b]0;all" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_what_a_user_sent_does_not_reach_the_terminal_of_who_traces_it(home: Home, db: Database) -> None:
    """A feature's text, an action or a unit may hold anything: the trace shows escape sequences by their codes."""
    row = DecisionRow(
        "d1", "q1", 1, 10.0, "u", "stable", False, "rel-0", "call\x1b[2J", 0.5, 1.0, "[0]", "[1]", "{}"
    )
    with db.write() as connection:
        upsert_decisions(connection, [row])
    shown = run("trace", "d1")
    assert "call\\x1b[2J  decided" in shown
    assert "\x1b" not in shown

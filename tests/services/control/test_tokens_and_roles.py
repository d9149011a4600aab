"""Tokens and roles over real HTTP: who comes in, who may do what, under whose name, and what is kept of a secret."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.control import admission, issued_tokens, openapi
from services.control.admission import Failures, TokenBook
from services.control.issued_tokens import create, revoke, rotate
from services.control.roles import Role
from services.control.service import all_endpoints
from services.control.token import TokenError, TokenRefused, load_or_create
from services.ledger.ledger import entries, verify
from services.store import orders, rollouts
from services.store.rollouts import RolloutRecord

NOW = 1_000_000.0
NEEDS = {
    ("GET", "/status"): Role.VIEWER,
    ("GET", "/metrics"): Role.VIEWER,
    ("GET", "/openapi.json"): Role.VIEWER,
    ("POST", "/kill"): Role.OPERATOR,
    ("POST", "/outcomes"): Role.OPERATOR,
    ("POST", "/orders"): Role.OPERATOR,
    ("POST", "/switches"): Role.OPERATOR,
    ("POST", "/approvals"): Role.APPROVER,
    ("GET", "/tokens"): Role.ADMIN,
    ("POST", "/tokens"): Role.ADMIN,
    ("POST", "/tokens/rotate"): Role.ADMIN,
    ("POST", "/tokens/revoke"): Role.ADMIN,
}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {}", "{}"])
def test_nothing_but_health_without_a_token(running: Any, header: str | None) -> None:
    """Every path but /healthz refuses a missing or wrong token, those that do not exist, too, and says nothing else."""
    secret = running.home.token_file.read_text().strip()
    headers = {} if header is None else {"authorization": header.format(secret)}
    for number, (method, path) in enumerate((*NEEDS, ("GET", "/x"))):
        answer = httpx.request(method, running.url + path, headers=headers)
        if number < admission.MOST_FAILURES:
            assert (answer.status_code, answer.json()["field"]) == (401, "authorization")
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert answer.status_code == 429
    assert httpx.get(running.url + "/healthz").json() == {"status": "ok"}


def test_each_endpoint_asks_for_its_role(running: Any) -> None:
    """A role below the endpoint's gets 403 and nothing happens; from there up it comes in. No endpoint is missing."""
    described = running.client.get("/openapi.json").json()["paths"]
    assert {(m.upper(), path) for path, found in described.items() for m in found} == {
        *NEEDS,
        ("GET", "/healthz"),
    } - {("GET", "/openapi.json")}
    for role in Role:
        _, secret = create(running.home.issued_tokens_file, name=role.word, role=role, by="t", at=NOW)
        with running.client_of(secret) as client:
            for (method, path), needed in NEEDS.items():
                status = client.request(method, path, json={} if method == "POST" else None).status_code
                assert (status == 403) == (role < needed), (role, path, status)
                assert status in (200, 403, 422)


def test_the_name_on_record_is_the_tokens(running: Any, draft: RolloutRecord) -> None:
    """Orders, approvals and kills carry the name of the token; only the home's own programs may name somebody else."""
    rollouts.create(running.db, draft)
    _, secret = create(running.home.issued_tokens_file, name="ana", role=Role.APPROVER, by="t", at=NOW)
    ask = {"service": "telemarketing", "reason": "seen it"}
    with running.client_of(secret) as client:
        assert client.post("/orders", json={**ask, "verb": "hold"}).json()["by"] == "ana"
        assert client.post("/approvals", json={**ask, "by": "ana"}).json()["verb"] == "promote"
        lied = client.post("/kill", json={"by": "bob", "reason": "-"})
        assert (lied.status_code, lied.json()["field"]) == (403, "by")
        assert client.post("/kill", json={"reason": "odd"}).json()["killed"][0]["revoked_by"] == "ana"
        assert client.post("/orders", json={**ask, "verb": "promote"}).status_code == 422
        assert client.post("/orders", json={**ask, "service": "none", "verb": "hold"}).status_code == 409
    running.client.post("/kill", json={"reason": "again", "by": "carl"})
    given = [(order.verb, order.by) for order in orders.of_rollout(running.db, "r1")]
    assert given == [("hold", "ana"), ("promote", "ana"), ("kill", "ana")]
    assert [entry.body["by"] for entry in entries(running.db, "r1", "kill")] == ["ana", "carl"]


def test_tokens_are_given_rotated_and_taken_back(running: Any) -> None:
    """Given, a token works; rotated, the old one ends with its grace; revoked, at once. All on record."""
    made = running.client.post("/tokens", json={"name": "feed", "role": "operator"}).json()
    with running.client_of(made["token"]) as old:
        assert old.get("/status").status_code == 200
        fresh = running.client.post("/tokens/rotate", json={"id": made["id"], "grace_s": 60}).json()
        assert old.get("/status").status_code == 200
        running.state.clock = lambda: fresh["created_at"] + 61
        assert old.get("/status").status_code == 401
    with running.client_of(fresh["token"]) as new:
        assert new.get("/status").status_code == 200
        assert running.client.post("/tokens/revoke", json={"id": fresh["id"]}).json()["revoked_at"] > 0
        assert new.get("/status").status_code == 401
    wrong = running.client.post("/tokens/revoke", json={"id": "no such"})
    assert (wrong.status_code, "no such" in wrong.json()["error"]) == (404, True)
    listed = running.client.get("/tokens").json()["tokens"]
    assert [(one["id"], one["role"]) for one in listed] == [
        (made["id"], "operator"),
        (fresh["id"], "operator"),
    ]
    recorded = entries(running.db, kind="token")
    assert [entry.body["what"] for entry in recorded] == ["created", f"rotated {made['id']}", "revoked"]
    assert {str(entry.body["by"]) for entry in recorded} == {"home"}
    assert verify(running.db).ok


def test_no_secret_is_kept(tmp_path: Path) -> None:
    """The file holds hashes only, is 0600, and is refused once others can read it."""
    file = tmp_path / "tokens.json"
    record, secret = create(file, name="ana", role=Role.VIEWER, by="t", at=NOW)
    text = file.read_text()
    assert secret not in text
    assert secret.rpartition("_")[2] not in text
    assert record.sha256 in text
    assert "sha256" not in record.to_json()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(TokenError, match="mode 0600"):
        issued_tokens.read_tokens(file)


@pytest.mark.parametrize("name", ["", "home", "a b", "x" * 101, "-a", "a\nb"])
def test_names_that_cannot_be_given(tmp_path: Path, name: str) -> None:
    """A name is one word, and never the home's own."""
    with pytest.raises(TokenRefused, match="'name' must"):
        create(tmp_path / "tokens.json", name=name, role=Role.VIEWER, by="t", at=NOW)


def test_ended_tokens_are_not_rotated(tmp_path: Path) -> None:
    """Rotation never brings a revoked or expired token back to life."""
    file = tmp_path / "tokens.json"
    one, _ = create(file, name="ana", role=Role.VIEWER, by="t", at=NOW)
    two, _ = create(file, name="ana", role=Role.VIEWER, by="t", at=NOW, expires_at=NOW + 1)
    revoke(file, one.id, at=NOW)
    for token_id in (one.id, two.id, "none"):
        with pytest.raises(TokenRefused):
            rotate(file, token_id, by="t", at=NOW + 2)
    assert len(issued_tokens.read_tokens(file)) == 2


def test_rotation_prolongs_nothing(tmp_path: Path) -> None:
    """A token that was given for a day is replaced by one for a day, not by one for ever."""
    file = tmp_path / "tokens.json"
    one, _ = create(file, name="ana", role=Role.VIEWER, by="t", at=NOW, expires_at=NOW + 86_400)
    two, _ = rotate(file, one.id, by="t", at=NOW + 1_000)
    assert (two.role, two.expires_at) == (Role.VIEWER, NOW + 1_000 + 86_400)
    three, _ = create(file, name="feed", role=Role.OPERATOR, by="t", at=NOW)
    assert rotate(file, three.id, by="t", at=NOW)[0].expires_at is None


def test_a_broken_file_lets_nobody_in(tmp_path: Path) -> None:
    """When the tokens cannot be read, nobody comes in on what was read before; mended, they come in again."""
    file, own = tmp_path / "tokens.json", tmp_path / "control.token"
    load_or_create(own)
    _, secret = create(file, name="ana", role=Role.VIEWER, by="t", at=NOW)
    book = TokenBook(own, file, clock=lambda: NOW)
    found = book.caller(f"Bearer {secret}")
    assert found is not None
    assert (found.name, found.role, found.is_home) == ("ana", Role.VIEWER, False)
    text = file.read_text()
    file.write_text("{")
    for _ in range(2):
        with pytest.raises(TokenError):
            book.caller(f"Bearer {secret}")
    file.write_text(json.dumps(json.loads(text)))
    assert book.caller(f"Bearer {secret}") == found


def test_failures_are_limited_but_never_a_right_token(running: Any) -> None:
    """After ten wrong tokens an address gets 429 with the time to wait; a right one is let in all the same."""
    statuses = [running.client_of("wrong").get("/status").status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    answer = running.client_of("wrong").get("/status")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert running.client.get("/status").status_code == 200
    assert "trimtab_refused_requests_total 13.0" in running.client.get("/metrics").text


def test_failures_are_forgotten_with_time() -> None:
    """The window slides: an address that was quiet for a minute starts anew; addresses are forgotten, oldest first."""
    now = 0.0
    failures = Failures(lambda: now)
    assert [failures.note("a") for _ in range(10)] == [0.0] * 10
    now = 20.0
    assert failures.note("a") == 40.0
    now = 61.0
    assert failures.note("a") == 0.0
    for number in range(admission.MOST_ADDRESSES):
        failures.note(str(number))
    assert [failures.note("a") for _ in range(10)] == [0.0] * 10


def test_the_document_names_every_body_field(running: Any) -> None:
    """What the document says of a body is what is asked of it: nothing unknown, the same bounds."""
    made = openapi.document(all_endpoints(running.state), port=1)
    schemas = made["components"]["schemas"]  # type: ignore[index]
    assert schemas["KillBody"]["additionalProperties"] is False
    assert schemas["KillBody"]["required"] == ["reason"]
    assert schemas["OrderBody"]["properties"]["verb"]["enum"] == ["hold", "resume", "abort"]
    assert schemas["OutcomeBody"]["properties"]["at"]["minimum"] == 0

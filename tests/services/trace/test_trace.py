"""Everything behind one decision: as it was decided, assigned, judged and realised; what cannot be told says why."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from policies.utility.utility import load_utility
from services.control.switch import switch
from services.retention.archive import DAY_S
from services.retention.retention import Kept, run_retention
from services.serving.release_command import launch_command
from services.store import rollouts
from services.store.measurements import Measurement, measured_values, record_measurements
from services.store.outcomes import Outcome, record_outcomes
from services.store.traced_decision import UnknownDecision, stored_decision
from services.trace.page import render_page
from services.trace.trace import trace_decision
from services.trace.what_came import find_decision, realise
from services.traffic.supervision import want_release

Row = dict[str, Any]


@pytest.fixture
def traced(make: Callable[..., Any]) -> Any:
    return make()


@pytest.fixture
def called(traced: Any, rows: list[Row]) -> Row:
    """A row on which the release calls."""
    return next(row for row in rows if traced.decide(row)["action"] == "call")


def test_all_of_a_decision_is_told(traced: Any, world: Any, called: Row) -> None:
    """Variant and slot, the same decision recomputed with the explanation that /decide gave, the making and the rollout
    with their reports, digests, outcome and realised utility."""
    answer = traced.decide(called)
    told = Outcome(answer["decision_id"], "not_subscribed", world.AT + 4)
    record_outcomes(traced.db, [told], received_at=world.AT + 5)
    found = trace_decision(traced.db, traced.home, answer["decision_id"])
    assert found.decision.action == "call"
    assert found.assignment.variant == world.variant_of("c00001")
    assert (found.assignment.slot, found.assignment.weight_pct, found.assignment.agrees) == (1212, 25.0, True)
    assert found.recomputed is not None
    assert found.recomputed.agrees
    assert found.recomputed.explanation.to_json() == answer["explanation"]
    assert found.recomputed.prices == ("call is priced -0.05 EUR in every row",)
    assert [(one.action, one.is_taken) for one in found.actions] == [("leave", False), ("call", True)]
    assert found.actions[1].priced == pytest.approx(found.actions[1].expected - 0.05)
    assert [one.verdict.stage for one in found.made_by] == ["contract"]
    assert found.rollout is not None
    assert [(one.verdict.stage, one.is_written) for one in found.rollout.stages] == [("shadow", False)]
    assert (found.realised.utility, found.realised.by_stakeholder["bank"]) == (-1.0, -1.0)
    assert found.release is not None
    assert found.release.provenance["snapshot_digest"] == "sha256:5a"
    assert found.request is not None
    assert found.request.duration_ms == 3.5
    assert found.ledger.ok


def test_the_page_needs_nothing_else(traced: Any, called: Row, tmp_path: Path) -> None:
    """No script, no address, every drawing well-formed with finite places; the numbers are the record's."""
    answer = traced.decide(called)
    page = render_page(trace_decision(traced.db, traced.home, answer["decision_id"]), folder=tmp_path)
    assert not re.search(r"<script|https?:|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page)
    assert len(drawings) == 5  # utilities, probability, features, slots, timeline
    for drawing in drawings:
        parts = ElementTree.fromstring(drawing).iter()  # noqa: S314 — our own page
        values = [value for part in parts for value in part.attrib.values()]
        assert not any(re.search("nan|inf", value) for value in values)
    assert f"subscribed {answer['score']:.3f}" in page
    assert "slot 1,212" in page


def test_the_unit_and_sensitive_values_are_nowhere(traced: Any, called: Row, tmp_path: Path) -> None:
    """Neither JSON nor page hold the unit's id or a sensitive value; one unit keeps one hash, another has another."""
    secret = {**called, "age": 77}
    first = traced.decide(secret, unit="customer-4711")["decision_id"]
    again = traced.decide(secret, unit="customer-4711")["decision_id"]
    other = traced.decide(secret, unit="customer-4712")["decision_id"]
    hashes = []
    for name in (first, again, other):
        found = trace_decision(traced.db, traced.home, name)
        hashes.append(found.unit_hash)
        text, page = json.dumps(found.to_json()), render_page(found, folder=tmp_path)
        for shown in (text, page):
            assert "customer-471" not in shown
            assert "sensitive: not shown" in shown
        assert found.to_json()["decision"]["row"]["age"] == "(sensitive: not shown)"  # type: ignore[index]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_people_did_stands_in_it(traced: Any, world: Any, called: Row, tmp_path: Path) -> None:
    """An action that was off: who switched it off and why, what would have been done, and it is recomputed so; orders
    with their words, which a page never takes for markup."""
    release, home = traced.release, traced.home
    home.processes.mkdir(parents=True)
    want_release(home, release.id, lambda port: launch_command(release.id, home, port))
    words = {"by": "ann", "reason": "line <b>closed</b>"}
    switch(traced.db, home, service=release.service, action="call", is_off=True, at=world.AT - 1, **words)
    traced.enter(
        "order", {"order": 1, "verb": "hold", "by": "bob", "reason": "<script>x</script>"}, at=1050.0
    )
    answer = traced.decide(called)
    found = trace_decision(traced.db, home, answer["decision_id"])
    assert (answer["action"], found.gated) == ("leave", {"off": ["call"], "instead_of": "call"})
    assert found.recomputed is not None
    assert found.recomputed.agrees
    assert [(one.action, one.by, one.reason) for one in found.switched_off] == [
        ("call", "ann", words["reason"])
    ]
    assert found.rollout is not None
    assert [(one.by, one.words) for one in found.rollout.people] == [("bob", "hold: <script>x</script>")]
    page = render_page(found, folder=tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    assert "line &lt;b&gt;closed" in page


def before_and_after_retention(traced: Any, world: Any, name: str, *, days: float) -> tuple[Any, Any]:
    """The traces of a decision in the store and, its rollout ended and so many days gone, in the archive alone."""
    record = rollouts.load(traced.db, "r1")
    rollouts.save(traced.db, replace(record, ended_at=world.AT + 10), at=world.AT + 10)
    before = trace_decision(traced.db, traced.home, name)
    run_retention(traced.home, traced.db, Kept(DAY_S, DAY_S), now=world.AT + days * DAY_S, by="ann")
    with pytest.raises(UnknownDecision):
        stored_decision(traced.db, name)
    after = trace_decision(traced.db, traced.home, name)
    return before, after


def test_a_decision_is_traced_from_the_archive(traced: Any, world: Any, called: Row) -> None:
    """Taken out of the store by retention, once its rollout had ended: the archive tells the same trace."""
    name = traced.decide(called)["decision_id"]
    told = Outcome(name, "not_subscribed", world.AT + 4)
    record_outcomes(traced.db, [told], received_at=world.AT + 5)
    traced.decide({**called}, unit="later")  # the store keeps its newest row
    before, after = before_and_after_retention(traced, world, name, days=3)
    assert {**after.to_json(), "ledger": None} == {**before.to_json(), "ledger": None}
    assert after.realised.utility == -1.0


def test_what_came_later_than_its_decision_went_is_told(traced: Any, world: Any, called: Row) -> None:
    """The decision is in the archive, its outcome a day younger and still in the store."""
    name = traced.decide(called)["decision_id"]
    record_outcomes(traced.db, [Outcome(name, "subscribed", world.AT + 2 * DAY_S)], received_at=world.AT + 5)
    traced.decide({**called}, unit="later")
    before, after = before_and_after_retention(traced, world, name, days=2.5)
    assert after.realised == before.realised
    assert after.realised.told is not None
    assert after.realised.told.outcome == "subscribed"


@pytest.mark.parametrize("days", [2.5, 9.0])
def test_measured_amounts_are_read_from_the_archive(
    traced: Any, world: Any, called: Row, policy_texts: dict[str, str], days: float
) -> None:
    """A payoff over an amount that came with the outcome is told alike before retention, with the amount still in the
    store, and with all of it in the archive."""
    text = policy_texts["utility.yaml"].replace(
        "margin * clip(balance, 0, cap)", "margin * clip(minutes, 0, cap)"
    )
    spec = load_utility(text.replace("range:", "hiddenWhenDeciding: [minutes]\nrange:", 1), "utility.yaml")
    name = traced.decide(called)["decision_id"]
    record_outcomes(traced.db, [Outcome(name, "subscribed", world.AT + 4)], received_at=world.AT + 5)
    at = world.AT + 2 * DAY_S
    record_measurements(traced.db, [Measurement(name, "minutes", 2000.0, at)], received_at=at)
    traced.decide({**called}, unit="later")
    record = rollouts.load(traced.db, "r1")
    rollouts.save(traced.db, replace(record, ended_at=world.AT + 10), at=world.AT + 10)
    before = realise(traced.db, traced.home, find_decision(traced.db, traced.home, name), spec)
    run_retention(traced.home, traced.db, Kept(DAY_S, DAY_S), now=world.AT + days * DAY_S, by="ann")
    assert bool(measured_values(traced.db, [name], names=("minutes",))) == (days == 2.5)
    after = realise(traced.db, traced.home, find_decision(traced.db, traced.home, name), spec)
    assert after == before
    assert after.utility == pytest.approx(0.25 * 0.02463333 * 2000.0 - 1)


def test_shadow_and_retried_decisions_say_so(traced: Any, called: Row) -> None:
    """The mirror's decision was given to nobody; an answer of a second attempt names the first's failure."""
    mirrored = traced.decide(called, is_shadow=True)["decision_id"]
    retried = traced.decide(called, attempt=2)["decision_id"]
    assert "nobody was given its answer" in trace_decision(traced.db, traced.home, mirrored).assignment.why
    assert "answered at attempt 2" in trace_decision(traced.db, traced.home, retried).assignment.why


def test_what_the_log_hides_is_not_recomputed(make: Callable[..., Any], rows: list[Row]) -> None:
    """A feature that the contract hashes in the log: the logged decision stands, and the trace says what is missing."""

    def hide(text: str) -> str:
        at = text.index("- name: job")
        mark = "customProperties:\n"
        cut = text.index(mark, at) + len(mark)
        return text[:cut] + "          - {property: decisionLog, value: hashed}\n" + text[cut:]

    traced = make(hide)
    found = trace_decision(traced.db, traced.home, traced.decide(rows[0])["decision_id"])
    assert found.recomputed is None
    assert found.not_recomputed == "the contract keeps job out of the log, hashed or dropped"
    assert str(found.row["job"]).startswith("hmac-sha256:")
    assert found.actions


def test_an_altered_release_is_said(traced: Any, called: Row) -> None:
    """One changed byte in the release's folder: who, when and which variant are told, the rest is refused by name."""
    name = traced.decide(called)["decision_id"]
    file = traced.release.folder / "calibration.json"
    file.chmod(0o644)
    file.write_text(file.read_text() + " ")
    found = trace_decision(traced.db, traced.home, name)
    assert found.release is None
    assert "calibration.json: content must be" in found.release_trouble
    assert found.assignment.agrees
    assert "calibration.json" in found.not_recomputed
    assert set(found.row) == set(called)
    assert {str(value)[:10] for value in found.row.values()} == {"(not shown"}


def test_a_decision_that_its_release_would_not_take_is_found_out(traced: Any, called: Row) -> None:
    """An action in the store that the release's own files do not give: the trace says which one they give."""
    name = traced.decide(called)["decision_id"]
    with traced.db.write() as connection:
        connection.exec_driver_sql("UPDATE decisions SET action = 'leave'")
    found = trace_decision(traced.db, traced.home, name)
    assert found.recomputed is not None
    assert (found.recomputed.agrees, found.recomputed.action) == (False, "call")


def test_an_unknown_outcome_has_no_utility_and_says_why(traced: Any, called: Row) -> None:
    """The payoff of a call rests on the outcome: without one there is no number, and an unknown id is refused."""
    found = trace_decision(traced.db, traced.home, traced.decide(called)["decision_id"])
    assert found.realised.utility is None
    assert found.realised.why == "no outcome is known yet, and the payoff of 'call' rests on it"
    with pytest.raises(UnknownDecision, match="'decision_id' must be one in the store: 'nobody'"):
        trace_decision(traced.db, traced.home, "nobody")

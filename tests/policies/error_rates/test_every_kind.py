"""Promises of every gate kind: a restart changes nothing, the stored state stays small, one line says all."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from policies.gates.evidence import PollEvidence
from policies.gates.gates import GateBook
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage

RANGE = (-1.0, 29.8)


def policy(gate: Gate) -> RolloutPolicy:
    """Two canary stages that run the gate."""
    stages = tuple(
        Stage(f"canary-{weight:g}", "canary", weight, 0.0, 1e9, "manual", "gates", False, "", (gate,))
        for weight in (25.0, 50.0)
    )
    return RolloutPolicy("tests", 1, "nobody", 0.05, 0.05, 0.0, 10.0, 60.0, 40.0, stages, "sha256:0")


def stored(book: GateBook) -> str:
    return json.dumps(book.to_json(), allow_nan=False)


@pytest.mark.parametrize("window_s", [0.0, 30.0])
def test_a_book_saved_at_any_poll_judges_identically(any_kind, make_world, window_s: float) -> None:  # type: ignore[no-untyped-def]
    """Saved and restored at random polls, over two stages, also inside a window: the same verdicts, the same state."""
    rules = policy(replace(any_kind.gate, window_s=window_s))
    generator = np.random.default_rng(12)
    whole = GateBook.start(rules, RANGE)
    copy = GateBook.from_json(rules, json.loads(stored(whole)))
    for stage in rules.stages:
        whole.enter_stage(stage.name)
        copy.enter_stage(stage.name)
        for poll in range(25):
            weight = stage.weight_pct or 0.0
            block = any_kind.draw(make_world(generator, weight), "tolerance", any_kind.gate)
            evidence = PollEvidence(10.0 * poll, weight, {any_kind.gate.metric: block})
            through_json = PollEvidence.from_json(json.loads(json.dumps(evidence.to_json())))
            whole.observe(evidence)
            copy.observe(through_json)
            if generator.random() < 0.4:
                copy = GateBook.from_json(rules, json.loads(stored(copy)))
            now = {"at": 10.0 * poll, "entered_at": 0.0, "extended": False}
            assert copy.judge(stage.name, **now) == whole.judge(stage.name, **now)
    assert stored(copy) == stored(whole)


def test_the_stored_state_does_not_grow(any_kind, make_world) -> None:  # type: ignore[no-untyped-def]
    """After 40 times as many polls the stored form is no longer, but for the digits of its numbers."""
    rules, generator = policy(any_kind.gate), np.random.default_rng(3)
    book, sizes = GateBook.start(rules, RANGE), []
    for poll in range(400):
        block = any_kind.draw(make_world(generator, 25.0), "equal", any_kind.gate)
        book.observe(PollEvidence(10.0 * poll, 25.0, {any_kind.gate.metric: block}))
        if poll in (9, 399):
            sizes.append(len(re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "0", stored(book))))
    assert sizes[1] <= sizes[0] + 400  # units that wait for their pair, at most `Pairing.MAX_GROUPS` groups


@pytest.mark.parametrize(("polls", "at"), [(3, "equal"), (60, "equal"), (60, "margin")])
def test_one_line_says_observed_bound_n_evidence_and_what_is_wanted(  # type: ignore[no-untyped-def]
    any_kind, make_world, polls: int, at: str
) -> None:
    """A gate's sentence has the estimate, what it is held against, n, log E of its limit, and the verdict in words."""
    rules, generator = policy(any_kind.gate), np.random.default_rng(4)
    book = GateBook.start(rules, RANGE)
    for poll in range(polls):
        block = any_kind.draw(make_world(generator, 25.0), at, any_kind.gate)
        book.observe(PollEvidence(10.0 * poll, 25.0, {any_kind.gate.metric: block}))
    verdict = book.judge("canary-25", at=10.0 * polls, entered_at=0.0, extended=False)
    sentence = verdict.gates[0].sentence()
    assert re.search(rf"{any_kind.gate.metric} (-?[\d.,]+|bound)", sentence)
    assert re.search(r"n [\d,]+; log E -?[\d.]+ of [\d.]+", sentence)
    wanted = r"needs about [\d,]+ more canary|would not pass|is within|is not worse|does not differ|first"
    assert re.search(rf"{wanted}|is worse|differs from|is above", sentence)
    if polls == 60:
        assert re.search(rf"{any_kind.gate.metric} -?[\d.]+ \[-?[\d.]+, [-\d.]+\] against -?[\d.]+", sentence)

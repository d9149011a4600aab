"""Promises of the transition table: nothing is skipped, illegal moves change nothing, the way back is always open."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.rollout.rollout import (
    ENDED,
    ON_THE_WAY,
    TRANSITIONS,
    Action,
    Event,
    IllegalTransition,
    Phase,
    RolloutState,
    Step,
    diagram,
    initial,
    order,
    step,
)
from policies.rollout.rollout_policy import RolloutPolicy, load_rollout
from policies.rollout.verdict import Decision, ReasonCode, Verdict

YAML = Path(__file__).parents[3] / "policies" / "telemarketing" / "rollout.yaml"
POLICY = load_rollout(YAML.read_text(encoding="utf-8"), "rollout.yaml")
LIVE = [stage.name for stage in POLICY.live_stages]
VERBS = ["promote", "hold", "resume", "abort", "kill"]
REASONS = {
    Decision.ADVANCE: ReasonCode.GATES_PASSED,
    Decision.HOLD: ReasonCode.MORE_EVIDENCE,
    Decision.ROLLBACK: ReasonCode.REGRESSION,
}


def verdict(stage: str, decision: Decision, reason: ReasonCode | None = None) -> Verdict:
    return Verdict(stage, decision, reason or REASONS[decision], "", (), 0.0)


def at(stage: str, **flags: bool) -> RolloutState:
    return RolloutState(Phase(POLICY.stage(stage).kind), stage, 0.0, **flags)


def actions(steps: tuple[Step, ...]) -> list[tuple[Action, float | None]]:
    return [(one.action, one.weight_pct) for one in steps]


def test_the_whole_way_and_its_steps() -> None:
    """Seven ADVANCE verdicts lead through every stage, and each transition does exactly what design.md §7 orders."""
    state, steps = initial(POLICY, 1.0)
    assert state == RolloutState(Phase.SHADOW, "shadow", 1.0)
    assert actions(steps) == [
        (Action.SET_WEIGHT, 0.0),
        (Action.START_CANDIDATE, None),
        (Action.POINT_CANARY, None),
        (Action.NEW_SALT, None),
        (Action.MIRROR_ON, None),
    ]
    seen = []
    for now in range(2, 9):
        state, steps = step(POLICY, state, verdict(state.stage, Decision.ADVANCE), float(now))
        seen.append((state.phase.value, state.stage, actions(steps)))
    weight = Action.SET_WEIGHT
    assert seen == [
        ("canary", "canary-1", [(Action.MIRROR_OFF, None), (weight, 1.0)]),
        ("canary", "canary-5", [(weight, 5.0)]),
        ("canary", "canary-25", [(weight, 25.0)]),
        ("canary", "canary-50", [(weight, 50.0)]),
        (
            "full",
            "full",
            [
                (Action.AWAIT_READY, None),
                (Action.REPOINT_STABLE, None),
                (weight, 0.0),
                (Action.CLEAR_CANARY, None),
            ],
        ),
        ("probation", "probation", []),
        ("promoted", "probation", [(Action.DROP_OLD, None)]),
    ]


@pytest.mark.parametrize("stage", LIVE)
def test_a_rollback_verdict_ends_every_live_stage(stage: str) -> None:
    """From every live stage, held or not, a regression rolls back: weight 0 first, or priorities swapped back."""
    for held in (False, True):
        state, steps = step(POLICY, at(stage, held=held), verdict(stage, Decision.ROLLBACK), 5.0)
        assert state.phase is Phase.ROLLED_BACK
        assert (Action.SET_WEIGHT, 0.0) in actions(steps)
        assert actions(steps)[-1] == (Action.STOP_CANDIDATE, None)
        swapped = state.phase is not None and stage in ("full", "probation")
        assert (actions(steps)[0] == (Action.UNDO_REPOINT, None)) is swapped


@pytest.mark.parametrize("stage", LIVE)
def test_abort_is_possible_from_every_live_state(stage: str) -> None:
    """A person can end every live rollout, also a held or frozen one."""
    for flags in ({}, {"held": True}, {"frozen": True}, {"held": True, "frozen": True}):
        assert order(POLICY, at(stage, **flags), "abort", 5.0)[0].phase is Phase.ROLLED_BACK


def test_hold_pauses_advancing_and_the_bake_clock() -> None:
    """A held rollout does not advance, nor roll back for having waited; resumed, its stage's clock starts anew."""
    held, steps = order(POLICY, at("canary-25", extended=True), "hold", 5.0)
    assert (held.held, steps) == (True, ())
    assert step(POLICY, held, verdict("canary-25", Decision.ADVANCE), 6.0) == (held, ())
    for reason in (ReasonCode.INCONCLUSIVE, ReasonCode.NO_DATA, ReasonCode.MISSING_EVIDENCE):
        waited = verdict("canary-25", Decision.ROLLBACK, reason)
        assert step(POLICY, held, waited, 6.0) == (held, ()), reason
    resumed, steps = order(POLICY, held, "resume", 60.0)
    assert (resumed, steps) == (RolloutState(Phase.CANARY, "canary-25", 60.0), ())


def test_a_killed_rollout_is_frozen_at_weight_zero_and_only_abort_ends_it() -> None:
    """Kill cuts the weight; no verdict moves a frozen rollout and no order but abort: its grant is revoked for good."""
    frozen, steps = order(POLICY, at("canary-25"), "kill", 5.0)
    assert frozen.frozen
    assert actions(steps) == [(Action.REVOKE_GRANT, None), (Action.SET_WEIGHT, 0.0)]
    for decision in Decision:
        assert step(POLICY, frozen, verdict("canary-25", decision), 6.0) == (frozen, ())
    for verb in ("promote", "resume", "hold"):
        with pytest.raises(IllegalTransition):
            order(POLICY, frozen, verb, 6.0)
    assert order(POLICY, frozen, "kill", 7.0)[0] == frozen
    assert order(POLICY, frozen, "abort", 9.0)[0].phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("stage", ["full", "probation"])
def test_kill_after_the_repoint_swaps_the_old_release_back(stage: str) -> None:
    """Where there is no weight left to cut, kill gives the traffic back to the old release and ends the rollout."""
    state, steps = order(POLICY, at(stage), "kill", 5.0)
    assert state.phase is Phase.ROLLED_BACK
    assert actions(steps)[:2] == [(Action.REVOKE_GRANT, None), (Action.UNDO_REPOINT, None)]


def test_extended_is_remembered() -> None:
    """The verdict that extends a stage is remembered in the state, once."""
    state, steps = step(POLICY, at("canary-5"), verdict("canary-5", Decision.HOLD, ReasonCode.EXTENDED), 50.0)
    assert (state.extended, state.entered_at, steps) == (True, 0.0, ())


def test_illegal_moves_say_why() -> None:
    """A verdict on another stage, an unknown verb, a move after the end: each names what was wrong."""
    with pytest.raises(IllegalTransition, match=r"'verdict\.stage' must be 'canary-5': 'canary-25'"):
        step(POLICY, at("canary-5"), verdict("canary-25", Decision.ADVANCE), 1.0)
    with pytest.raises(IllegalTransition, match="'verb' must be one of abort"):
        order(POLICY, at("canary-5"), "destroy", 1.0)
    done = RolloutState(Phase.PROMOTED, "probation", 1.0)
    with pytest.raises(IllegalTransition, match="has ended"):
        order(POLICY, done, "abort", 1.0)
    with pytest.raises(IllegalTransition, match="'resume' needs a held rollout"):
        order(POLICY, at("shadow"), "resume", 1.0)


def test_approval_stage_is_passed_by_a_person_only() -> None:
    """Where a stage wants approval an ADVANCE verdict is illegal, and `promote` passes it."""
    text = YAML.read_text(encoding="utf-8").replace(
        "  - name: canary-25\n    kind: canary\n",
        "  - name: canary-25\n    kind: canary\n    approval: true\n",
    )
    policy = load_rollout(text, "rollout.yaml")
    with pytest.raises(IllegalTransition, match="approval"):
        step(policy, at("canary-25"), verdict("canary-25", Decision.ADVANCE), 1.0)
    assert order(policy, at("canary-25"), "promote", 1.0)[0].stage == "canary-50"


MOVES = st.one_of(
    st.tuples(st.just("verdict"), st.sampled_from(list(Decision)), st.sampled_from(LIVE)),
    st.tuples(st.just("order"), st.sampled_from(VERBS), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MOVES, max_size=40), st.booleans())
def test_no_sequence_skips_a_stage(moves: list[tuple[str, str, str | None]], on_stage: bool) -> None:
    """Whatever verdicts and orders come, stages follow one another in order, and illegal moves change nothing."""
    state, _ = initial(POLICY, 0.0)
    passed: list[str] = []
    for now, (kind, what, stage) in enumerate(moves):
        before = (state, state.to_json())
        try:
            if kind == "verdict":
                name = state.stage if on_stage else str(stage)
                after, steps = step(POLICY, state, verdict(name, Decision(what)), float(now))
            else:
                after, steps = order(POLICY, state, what, float(now))
        except IllegalTransition:
            assert (state, state.to_json()) == before
            continue
        if (after.phase, after.stage) != (state.phase, state.stage) and after.phase is not Phase.ROLLED_BACK:
            assert not state.held
            assert not state.frozen
            passed.append(state.stage)
        for one in steps:
            if one.action is Action.SET_WEIGHT and one.weight_pct:
                assert one.weight_pct == POLICY.stage(after.stage).weight_pct
        if after.frozen:
            assert not any(one.weight_pct for one in steps)
        assert RolloutState.from_json(after.to_json()) == after
        state = after
    assert passed == LIVE[: len(passed)]
    if state.phase is Phase.PROMOTED:
        assert passed == LIVE
    if state.phase in ENDED:
        with pytest.raises(IllegalTransition):
            order(POLICY, state, "abort", 99.0)


def test_table_is_whole() -> None:
    """Every live phase answers every event, every move has its steps, and a rollback is in reach of each."""
    for phase, events in TRANSITIONS.items():
        assert set(events) == (set() if phase in ENDED else set(Event))
        for targets in events.values():
            moves = [(phase, target) for target in targets if target is not phase]
            assert all(move in ON_THE_WAY for move in moves)
        if events:
            assert events[Event.ROLLBACK] == events[Event.ABORT] == (Phase.ROLLED_BACK,)


def test_diagram_comes_from_the_table() -> None:
    """The Mermaid diagram names every move of the table and nothing else."""
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> shadow"]
    assert "    probation --> promoted: advance, promote" in lines
    assert "    canary --> rolled_back: rollback, abort" in lines
    arrows = {tuple(line.split(":")[0].split(" --> ")) for line in lines[2:]}
    table = {(p.value, t.value) for p, events in TRANSITIONS.items() for ts in events.values() for t in ts}
    assert {(a.strip(), b.strip()) for a, b in arrows} == table | {
        ("promoted", "[*]"),
        ("rolled_back", "[*]"),
    }


def test_policy_stages_are_found_by_name() -> None:
    """An unknown stage is an error that says what exists."""
    assert isinstance(POLICY, RolloutPolicy)
    with pytest.raises(KeyError, match="canary-50"):
        POLICY.stage("canary-10")

"""A rollout policy in plain sentences, for the people who approve it and need not read YAML.

It says what the engine will do, from the same fields that the engine reads; numbers that must be computed (how
long a gate takes, how often it errs) come in as `Odds`. Must never import: anything that does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from policies.gates.gate_alone import Alone
from policies.rollout.metrics import METRICS
from policies.rollout.rollout_policy import Gate, RolloutPolicy, Stage


@dataclass(frozen=True)
class Odds:
    """What became of simulated rollouts under one effect: shares in [0, 1].

    gate: whose rollbacks `stopped` counts; "" for those of all gates together. undecided: rolled back because nothing
    was shown in the longest bake; waits: for a person.
    """

    gate: str
    effect: str
    stopped: float
    promoted: float
    undecided: float
    waits: float


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it, one sentence or short paragraph each."""

    title: str
    lines: tuple[str, ...]


def explain(
    policy: RolloutPolicy,
    *,
    unit: str,
    waits: Mapping[tuple[str, str], str],
    odds: Sequence[Odds] = (),
    assumed: Sequence[str] = (),
    alone: Mapping[str, Sequence[Alone]] = MappingProxyType({}),
) -> tuple[Section, ...]:
    """The whole policy. unit: of the utility spec. waits: (gate, stage) → how long it takes there, in words.

    assumed: gates that the simulations behind `odds` took to pass. alone: by gate, what those do by themselves.
    """
    gates = tuple(
        Section(
            f"Gate {gate.name}",
            (
                *_gate_lines(policy, gate, unit=unit, waits=waits),
                *(_simulated(one) for one in odds if one.gate == gate.name),
                *(_by_itself(one) for one in alone.get(gate.name, ())),
                *(_not_simulated(gate, waits) if gate.name in assumed and not alone.get(gate.name) else ()),
                f"Why, says {gate.owner}: {gate.rationale}",
            ),
        )
        for gate in policy.live_gates
    )
    offline = tuple(_offline(stage) for stage in policy.stages if stage.kind == "offline")
    live = tuple(_live(stage) for stage in policy.live_stages)
    return (
        Section(
            f"{policy.service}, version {policy.version}",
            (*_summary(policy), *(_overall(one, assumed) for one in odds if not one.gate)),
        ),
        Section("Before any user sees it", offline),
        Section("On live traffic", live),
        *gates,
    )


def duration(seconds: float) -> str:
    """Seconds in the words of people: 500 ms, 40 s, 15 minutes, 2.5 hours, 9 days."""
    if seconds < 1:
        return f"{1000 * seconds:g} ms"
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size, 1)
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return f"{seconds:.3g} s"


def _overall(one: Odds, assumed: Sequence[str]) -> str:
    taken = f" Taken to pass: {_listed(assumed)}." if assumed else ""
    return (
        f"Simulated, {one.effect}: {_percent(one.promoted)} of rollouts are promoted, {_percent(one.stopped)} rolled "
        f"back on evidence{_rest(one)}.{taken}"
    )


def _simulated(one: Odds) -> str:
    others = 1.0 - one.stopped - one.promoted - one.undecided - one.waits
    stopped_too = f", {_percent(others)} are rolled back by other gates" if others >= 0.0005 else ""
    return (
        f"Simulated, {one.effect}: it rolls back {_percent(one.stopped)} of rollouts; {_percent(one.promoted)} are "
        f"promoted{stopped_too}{_rest(one)}."
    )


def _rest(one: Odds) -> str:
    """What neither passed nor was stopped on evidence."""
    undecided = f", {_percent(one.undecided)} end undecided and are rolled back" if one.undecided else ""
    return undecided + (f", {_percent(one.waits)} wait for a person" if one.waits else "")


def _by_itself(one: Alone) -> str:
    undecided = max(1.0 - one.stopped - one.passed, 0.0)
    return (
        f"Simulated by itself at {one.stage}, {one.effect}: it rolls back {_percent(one.stopped)} of rollouts and "
        f"passes {_percent(one.passed)}; {_percent(undecided)} stay undecided."
    )


def _not_simulated(gate: Gate, waits: Mapping[tuple[str, str], str]) -> tuple[str]:
    planned = [f"{how_long} ({stage})" for (name, stage), how_long in waits.items() if name == gate.name]
    return (f"Not simulated{f'; planned to take {_listed(planned)}' if planned else ''}.",)


def _summary(policy: RolloutPolicy) -> tuple[str, ...]:
    live, maturity = policy.live_stages, policy.maturity_s
    shortest = sum(stage.bake_min_s for stage in live)
    longest = sum(stage.bake_max_s * (2 if stage.on_inconclusive == "extend" else 1) for stage in live)
    waits = any(stage.on_inconclusive == "manual" or stage.approval for stage in live)
    return (
        f"Owned by {policy.owner}. It takes a release through {', '.join(s.name for s in policy.stages)}.",
        f"On live traffic that takes {f'at least {duration(shortest)} and ' if shortest else ''}at most "
        f"{duration(longest)}" + (", and longer where a person is asked." if waits else "."),
        f"A release that is no worse than tolerated is rolled back in at most {_percent(policy.alpha_rollback)} of "
        "rollouts, over all gates, stages and looks together; the tests may look at every poll.",
        f"A gate that must pass lets a release through that is worse by its whole margin in at most "
        f"{_percent(policy.alpha_advance)} of the times, at each stage.",
        "Missing, late or unusable evidence never counts as good: the rollout waits, or rolls back where a gate says "
        f"so. A decision counts {f'once it is {duration(maturity)} old' if maturity else 'at once'}, whatever was "
        "decided.",
        f"The candidate's share of users lapses to none when nobody has confirmed it for {duration(policy.lease_s)}.",
    )


def _offline(stage: Stage) -> str:
    said = []
    for what, gates in (
        ("refused unless", [gate for gate in stage.required if gate.on_fail == "rollback"]),
        ("held unless", [gate for gate in stage.required if gate.on_fail == "hold"]),
        ("on a dry run, which changes nothing:", [gate for gate in stage.gates if gate.dry_run]),
    ):
        if gates:
            said.append(f"{what} {_listed([f'{gate.name} ({_condition(gate)})' for gate in gates])}")
    return f"{stage.name.capitalize()}: {'; '.join(said)}."


def _condition(gate: Gate) -> str:
    who = {"first": "first release only: ", "challenger": "challengers only: "}.get(gate.applies_to, "")
    rows = f", on at least {gate.min_samples:,} rows" if gate.min_samples else ""
    if gate.when is not None:
        return f"{who}{gate.when}{rows}"
    end = {"lower": "surely, ", "upper": "surely, ", "value": ""}[gate.estimate]
    word = "at most" if gate.max is not None else "at least"
    return f"{who}{METRICS[gate.metric].says}: {end}{word} {_number(gate.bound)}{rows}"


def _live(stage: Stage) -> str:
    who = {
        "shadow": "sees copies of requests; users get the champion's answers",
        "canary": f"answers {stage.weight_pct or 0:g} % of the units",
        "full": "answers everybody, the old release stands behind it",
        "probation": "answers everybody on trial, the old release still warm",
    }[stage.kind]
    least = f"{duration(stage.bake_min_s)} to " if stage.bake_min_s else "at most "
    times = f"for {least}{duration(stage.bake_max_s)}"
    needed = [gate.name for gate in stage.required]
    if stage.advance_on == "readback":
        goes_on = "It goes on once it is read back that this is so"
    elif needed:
        goes_on = f"It goes on when {_listed(needed)} {'has' if len(needed) == 1 else 'have'} passed"
    else:
        goes_on = "It goes on when the time is over; nothing needs to be shown"
    asked = " and a person says so" if stage.approval else ""
    undecided = {
        "rollback": "it is rolled back",
        "extend": "it gets the same time once more, and is then rolled back",
        "manual": "a person decides",
    }[stage.on_inconclusive]
    return f"{stage.name.capitalize()} {who}, {times}. {goes_on}{asked}. Still undecided after that, {undecided}."


def _gate_lines(
    policy: RolloutPolicy,
    gate: Gate,
    *,
    unit: str,
    waits: Mapping[tuple[str, str], str],
) -> tuple[str, ...]:
    lines = [_claim(gate, unit)]
    if gate.min_samples:
        lines.append(f"It passes only once it has seen {gate.min_samples:,} units; it may fail sooner.")
    if gate.window_s:
        lines.append(f"Its evidence is judged in blocks of {duration(gate.window_s)}.")
    if gate.dry_run:
        return (*lines, "Dry run: it is judged and shown, and changes nothing.")
    required = [stage for stage in policy.live_stages if _is_required(stage, gate)]
    watched = [s.name for s in policy.live_stages if _runs(s, gate) and s not in required]
    if required:
        times = [
            stage.name + (f" ({waits[gate.name, stage.name]})" if (gate.name, stage.name) in waits else "")
            for stage in required
        ]
        lines.append(f"It must pass at {_listed(times)}.")
    if watched:
        lines.append(f"It can only stop the rollout at {_listed(watched)}.")
    asked = {"rollback": "rolls back", "hold": "holds"}
    lines.append(
        f"If it fails, the rollout {asked[gate.on_fail]}; if evidence stays away, it {asked[gate.on_missing]}"
        f"{' once the longest time is over' if gate.on_missing == 'rollback' else ''}; if evidence is unusable, it "
        f"{asked[gate.on_error]}. Of the chance of a false rollback it has {_percent(policy.alpha_of(gate.name))}."
    )
    return tuple(lines)


def _is_required(stage: Stage, gate: Gate) -> bool:
    return any(one.name == gate.name for one in stage.required)


def _runs(stage: Stage, gate: Gate) -> bool:
    return any(one.name == gate.name for one in stage.gates)


def _claim(gate: Gate, unit: str) -> str:
    metric = METRICS[gate.metric]
    says = (
        metric.says
        if gate.budget_ms is None
        else metric.says.replace("`budget`", duration(gate.budget_ms / 1000))
    )
    what = f"{says[0].upper()}{says[1:]}"
    if gate.compare_to == "bound":
        word = "at most" if gate.max is not None else "at least"
        bound = _number(gate.bound) if metric.kind == "value" else _percent(gate.bound or 0.0)
        return f"{what}: {word} {bound}, shown either way before it counts; in between it is undecided."
    where = ", compared only where the two releases would act differently" if gate.where != "all" else ""
    worse = {True: "times the champion's", False: unit if metric.kind in ("utility", "ratio") else "points"}
    scale = worse[gate.scale == "ratio"]
    return (
        f"{what}, beside the champion's{where}. It fails on evidence of being worse by more than "
        f"{_amount(gate.tolerance, scale)}, and passes on evidence of not being worse by "
        f"{_amount(gate.ni_margin, scale)}; in between it is undecided."
    )


def _amount(value: float | None, scale: str) -> str:
    if scale == "points":
        return f"{100 * (value or 0.0):g} points"
    return f"{value or 0.0:g} {scale}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:g}"

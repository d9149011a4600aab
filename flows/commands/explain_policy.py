"""`trimtab policy explain`: a rollout policy in plain sentences, with what simulation says of each gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import JSON_OPTION, console, print_json, refuse_policy

if TYPE_CHECKING:
    from policies.gates.explain import Odds
    from policies.rollout.rollout_policy import RolloutPolicy
    from policies.what_if.scenarios import Baseline
    from policies.what_if.simulation import WhatIf


RUNS_ALONE = 300  # of a gate that the what-if cannot simulate: the engine itself runs it, unit by unit


def explain_policy(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    runs: int = typer.Option(
        1000, "--runs", min=0, max=200_000, help="Simulated rollouts an effect; 0: none."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Say in plain sentences what rollout.yaml does, for the people who approve it and need not read YAML.

    Each gate comes with how long it takes, how often it stops a good release and how often a bad one.

    Example: trimtab policy explain telemarketing
    """
    from policies.gates.explain import explain
    from policies.gates.gate_alone import gate_alone
    from policies.language.quantities import about
    from policies.language.yaml_source import PolicyError
    from policies.rollout.planning import plan_rollout
    from policies.what_if.scenarios import baseline_of
    from services.rollout.policy_set import POLICIES, load_policies

    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    policy, utility = policies.rollout, policies.utility
    plans = plan_rollout(policy, utility.range)
    odds, assumed = _odds(policy, baseline_of(policy, utility.range), runs) if runs else ([], ())
    sections = explain(
        policy,
        unit=utility.unit,
        waits={
            (plan.gate, plan.stage): f"about {about(plan.seconds)} at the expected traffic"
            if plan.reaches
            else "longer than the stage lasts"
            for plan in plans
        },
        odds=odds,
        assumed=assumed,
        alone={
            gate.name: gate_alone(gate, policy, utility.range, runs=min(runs, RUNS_ALONE))
            for gate in policy.live_gates
            if gate.name in assumed
        },
    )
    if as_json:
        print_json([{"title": section.title, "lines": list(section.lines)} for section in sections])
        return
    for section in sections:
        console.print(f"\n[bold]{section.title}[/]")
        for line in section.lines:
            console.print(f"  {line}", highlight=False, markup=False)


def _odds(policy: RolloutPolicy, baseline: Baseline, runs: int) -> tuple[list[Odds], tuple[str, ...]]:
    """What the policy's own scenarios come to; those of a gate bear its name, the A/A run concerns all.

    Then the gates that were taken to pass.
    """
    from rich.console import Console
    from rich.progress import track

    from policies.gates.explain import Odds
    from policies.what_if.scenarios import SAME, scenarios_of
    from policies.what_if.simulation import Settings, simulate

    gates = [gate.name for gate in policy.live_gates if not gate.dry_run]
    scenarios = scenarios_of(policy, baseline)
    odds: list[Odds] = []
    assumed: dict[str, None] = {}
    for effect in track(scenarios, description="simulating", console=Console(stderr=True), transient=True):
        found = simulate(policy, effect, Settings(runs=runs))
        assumed |= dict.fromkeys(found.assumed)
        rest = (found.share("promoted"), found.share("inconclusive"), found.share("waits"))
        if effect.name == SAME:
            odds.append(Odds("", SAME, found.share("rolled_back"), *rest))
        for name in gates:
            is_its_own = effect.name.startswith(f"{name} ")
            if name not in found.assumed and (is_its_own or effect.name == SAME):
                odds.append(Odds(name, effect.name.removeprefix(f"{name} "), _stopped_by(found, name), *rest))
    return odds, tuple(assumed)


def _stopped_by(found: WhatIf, gate: str) -> float:
    runs = sum(one.runs for one in found.endings if one.gate == gate and one.outcome == "rolled_back")
    return runs / found.runs

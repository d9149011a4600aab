"""`trimtab policy test`: evidence in, verdict out, offline, before a policy decides anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import JSON_OPTION, console, print_json, refuse_policy

if TYPE_CHECKING:
    from policies.scripted.policy_test_run import CaseResult, TestReport


def run_tests(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Run the tests in tests.yaml against rollout.yaml with the real engine.

    Exit status 1 if a test is not met, or a gate has no passing or no failing case.

    Example: trimtab policy test telemarketing
    """
    from policies.language.yaml_source import PolicyError
    from policies.scripted.policy_test_run import run_policy_tests, summary
    from services.rollout.policy_set import POLICIES, load_policies
    from services.rollout.tested_policy import read_policy_tests

    try:
        policies = load_policies(service, folder=folder or POLICIES)
        report = run_policy_tests(read_policy_tests(policies, folder=folder or POLICIES))
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    if as_json:
        print_json({"service": service, **summary(report)})
    else:
        _print(report)
    if not report.ok:
        raise SystemExit(1)


def _print(report: TestReport) -> None:
    for case in report.cases:
        _print_case(case)
    _say("\nresults that the tests have looked at, by gate")
    width = max(len(one.gate) for one in report.coverage)
    for one in report.coverage:
        seen = ", ".join(status.value for status in one.seen) or "none"
        wanting = " and ".join(f"no {status.value}" for status in one.unseen)
        _say(f"  {one.gate:{width}}  {seen}" + (f"  [red]{wanting} case[/]" if wanting else ""))
    failed = sum(not case.ok for case in report.cases)
    uncovered = [one.gate for one in report.coverage if one.unseen]
    if report.ok:
        _say(f"\n[green]ok[/]: {len(report.cases)} tests; every gate is seen to pass and to fail")
        return
    words = [f"{failed} of {len(report.cases)} tests are not met"] if failed else []
    if uncovered:
        words.append(f"without a passing and a failing case: {', '.join(uncovered)}")
    _say(f"\n[red]failed[/]: {'; '.join(words)}")


def _print_case(case: CaseResult) -> None:
    if case.ok:
        _say(f"[green]ok  [/]  {_plain(case.name)}")
        return
    _say(f"[red]FAIL[/]  {_plain(case.name)}  [dim](line {case.line})[/]")
    for failure in case.failures:
        _say(f"        [dim]{failure.stage}, expected[/]  {_plain(failure.expected)}")
        _say(f"        [dim]{' ' * len(failure.stage)}       got[/]  {_plain(failure.got)}")
        for sentence in failure.gates:
            _say(f"          {_plain(sentence)}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)

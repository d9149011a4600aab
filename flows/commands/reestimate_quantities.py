"""`trimtab utility reestimate`: what measured amounts say of the quantities in utility.yaml, as a change to sign."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.output import (
    HOME_OPTION,
    JSON_OPTION,
    console,
    fail,
    open_records,
    print_json,
    print_table,
    refuse_policy,
)

if TYPE_CHECKING:
    from policies.utility.proposal import Proposal
    from policies.utility.reestimation import Estimate
    from services.rollout.measured_amounts import MeasuredAmounts
    from services.rollout.policy_set import PolicySet

DEFAULT_SINCE = "90d"


def reestimate_quantities(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    rows: Path = typer.Option(
        None,
        "--rows",
        help="A file of rows that carry the amounts as columns; default: the store's outcomes.",
    ),
    since: str = typer.Option(None, "--since", help=f"Decisions of this long; default: {DEFAULT_SINCE}."),
    out: Path = typer.Option(None, "--out", help="Write the change as a patch to this file."),
    home_name: str = HOME_OPTION,
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Estimate each quantity of utility.yaml that says what measures it, and propose the lines that have moved.

    Nothing is changed: the changelog entry of the patch has an empty `who`, and the lint refuses it until a person has
    signed. Weights are never proposed. What came from the store is entered in the ledger.

    Example: trimtab utility reestimate telemarketing --since 90d --out measured.patch
    """
    from datetime import UTC, datetime

    from policies.language.yaml_source import PolicyError
    from policies.utility.proposal import propose
    from policies.utility.reestimation import reestimate
    from services.ledger.ledger import append
    from services.rollout.policy_set import POLICIES, load_policies

    if rows is not None and since is not None:
        fail("'--since' reads the store, '--rows' a file: say one of them", code=2)
    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    if not any(one.measured for one in policies.utility.quantities):
        fail(
            f"no quantity of {policies.place}/utility.yaml says what measures it (`measured: {{amount: …}}`)"
        )
    db = None if rows is not None else open_records(home_name)[1]
    if db is None:
        found = _of_file(rows, policies)
    else:
        from services.rollout.measured_amounts import amounts_of_store

        start = time.time() - _seconds(since or DEFAULT_SINCE)
        found = amounts_of_store(db, policies.utility, since=start)
    estimates = reestimate(policies.utility, found.amounts)
    name, text = f"{policies.place}/utility.yaml", policies.texts["utility.yaml"]
    proposal = propose(text, name, estimates, on=datetime.now(UTC).date())
    if db is not None:
        body = {"utility_digest": policies.utility.digest, "estimates": [one.to_json() for one in estimates]}
        append(db, "quantities_measured", body, service=service, rollout_id=None, at=time.time())
    patch = "" if proposal is None else _patch(text, proposal, name)
    if out is not None and patch:
        out.write_text(patch, encoding="utf-8")
    if as_json:
        print_json(
            {
                "service": service,
                "source": found.source,
                "left_out": found.left_out,
                "estimates": [one.to_json() for one in estimates],
                "patch": patch or None,
                "open_issues": [] if proposal is None else [str(one) for one in proposal.open_issues],
            }
        )
        return
    _print(estimates, found)
    _print_proposal(proposal, patch, out)


def _of_file(rows: Path, policies: PolicySet) -> MeasuredAmounts:
    from flows.read_rows import read_rows
    from services.rollout.measured_amounts import amounts_of_rows

    return amounts_of_rows(read_rows(rows, policies.contract), policies.utility, source=rows.name)


def _patch(text: str, proposal: Proposal, name: str) -> str:
    """The change as `git apply` takes it."""
    from difflib import unified_diff

    old, new = (one.splitlines(keepends=True) for one in (text, proposal.text))
    return "".join(unified_diff(old, new, f"a/{name}", f"b/{name}"))


def _print(estimates: Sequence[Estimate], found: MeasuredAmounts) -> None:
    print_table(
        f"Quantities as measured ({found.source})",
        ("quantity", "unit", "stated", "in doubt", "measured", "95 %", "decisions", ""),
        [
            (
                one.quantity.name,
                one.quantity.unit,
                f"{one.quantity.value:g}",
                "" if one.quantity.range is None else "{:g} to {:g}".format(*one.quantity.range),
                "" if one.value is None else f"{one.value:.4g}",
                "" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}",
                f"{one.n:,}",
                one.finding,
            )
            for one in estimates
        ],
    )
    _say("Of decisions as they were made: of customers on whom nobody acted it says nothing.")
    if found.left_out:
        _say(f"{found.left_out:,} decisions are left out: their row lacks a field that a quantity reads.")


def _print_proposal(proposal: Proposal | None, patch: str, out: Path | None) -> None:
    if proposal is None:
        _say("Nothing to change.")
        return
    if out is None:
        console.print(patch, highlight=False, markup=False, soft_wrap=True, end="")
    else:
        _say(f"written: {out}; `git apply {out}`, then fill in `who`")
    for issue in proposal.open_issues:
        _say(f"still to be mended by whoever signs: {issue}")


def _seconds(since: str) -> float:
    from policies.language.quantities import seconds_of

    try:
        return seconds_of(since)
    except ValueError as error:
        fail(f"'--since' {error}", code=2)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

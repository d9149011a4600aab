"""`trimtab utility explain`: a utility spec in plain sentences, with a picture of its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from flows.commands.output import JSON_OPTION, console, print_json, refuse_policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from policies.utility.thresholds import Typical, TypicalRow
    from policies.utility.utility import UtilitySpec
    from services.rollout.policy_set import PolicySet

SEED = 7


def explain_utility(
    service: str = typer.Argument("telemarketing", help="The decision service (a folder in policies/)."),
    rows: Path = typer.Option(
        None,
        "--rows",
        help="A file of rows (.csv, .parquet) for typical values; default: the rehearsal's calls.",
    ),
    out: Path = typer.Option(None, "--out", help="Folder for the picture of two outcomes, thresholds.png."),
    folder: Path = typer.Option(
        None, "--folder", help="Where the folder of the service is; default: policies/."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Say in plain sentences what utility.yaml implies: who gains and loses what, and from which probability on to act.

    Then what each constraint bounds and who answers for it, and how far the numbers in doubt would move a decision.

    Example: trimtab utility explain telemarketing --out /tmp/utility
    """
    from datetime import UTC, datetime

    from policies.language.yaml_source import PolicyError
    from policies.utility.explain_utility import explain_utility as explain
    from policies.utility.thresholds import typical_rows
    from services.rollout.policy_set import POLICIES, load_policies

    try:
        policies = load_policies(service, folder=folder or POLICIES)
    except PolicyError as error:
        refuse_policy(error, as_json=as_json)
    utility = policies.utility
    typical, seen, of = _typical(policies, rows)
    sections = explain(utility, typical, today=datetime.now(UTC).date(), typical_of=of)
    found = typical_rows(utility, typical)
    if as_json:
        print_json(
            {
                "service": service,
                "version": utility.version,
                "digest": utility.digest,
                "sections": [{"title": one.title, "lines": list(one.lines)} for one in sections],
                "typical_rows": [
                    {
                        "values": dict(row.values),
                        "payoffs": [list(cells) for cells in row.payoffs],
                        "regions": [{"from": one.start, "action": one.action} for one in row.regions],
                    }
                    for row in found
                ],
            }
        )
    else:
        for section in sections:
            console.print(f"\n[bold]{section.title}[/]")
            for line in section.lines:
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        _draw(utility, typical, found, seen, out, is_quiet=as_json)


def _typical(
    policies: PolicySet, rows: Path | None
) -> tuple[list[Typical], dict[str, NDArray[np.float64]], str]:
    """Usual values of the fields that payoffs read, the values themselves, and whose they are.

    Without a file and where the rehearsal's calls lack a field: the bounds that the contract sets.
    """
    import numpy as np

    from flows.commands.output import fail
    from flows.read_rows import RowsError, read_rows
    from policies.utility.thresholds import Typical

    fields = policies.utility.fields
    try:
        frame = read_rows(rows, policies.contract)
    except RowsError:
        if rows is not None:
            raise
        frame = None
    if frame is not None and set(fields) <= set(frame.columns):
        values = {field: frame.get_column(field).cast(float).to_numpy() for field in fields}
        seen = {field: column[np.isfinite(column)] for field, column in values.items()}
        of = f"{len(frame):,} rows of {'the rehearsal' if rows is None else rows}"
        return [Typical.of(field, column) for field, column in seen.items()], seen, of
    bounds = []
    for field in fields:
        column = policies.contract.column(field)
        if column.minimum is None or column.maximum is None:
            fail(f"the contract sets no bounds for {field!r}: name a file of rows with --rows")
        bounds.append(Typical.of(field, np.linspace(column.minimum, column.maximum, 1001)))
    return bounds, {}, "the contract's bounds, every value as frequent as any"


def _draw(
    utility: UtilitySpec,
    typical: Sequence[Typical],
    rows: Sequence[TypicalRow],
    seen: dict[str, NDArray[np.float64]],
    out: Path,
    *,
    is_quiet: bool,
) -> None:
    from policies.utility.thresholds import threshold_map
    from services.reports.threshold_plot import write_png

    if len(utility.outcomes) != 2 or not typical:
        why = "two outcomes" if typical else "payoffs that read a field"
        Console(stderr=True).print(f"no picture: it needs {why}", highlight=False, soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    maps = [threshold_map(utility, typical, one.field, seed=SEED) for one in typical]
    write_png(out / "thresholds.png", maps, utility=utility, rows=rows, seen=seen)
    if not is_quiet:
        console.print(f"\nwritten: {out}/thresholds.png", highlight=False, soft_wrap=True)

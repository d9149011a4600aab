"""The table of infra/reliability.md, between its two markers, from the rows that `make chaos` measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fault_row import FaultRow, Measured

PAGE = Path(__file__).parents[2] / "infra" / "reliability.md"
BEGIN = "<!-- the table below is written by `make chaos` -->"
END = "<!-- the table above is written by `make chaos` -->"
HEAD = (
    "| fault | load, requests/s | user requests | failed | safe after | ledger | held? |",
    "| --- | ---: | ---: | ---: | ---: | --- | --- |",
)


def table(found: Sequence[Measured]) -> str:
    """The rows as Markdown, in their order, and which runs they are from."""
    return "\n".join([*HEAD, *(_line(one.row) for one in found), "", _runs(found)])


def write_table(found: Iterable[Measured], page: Path = PAGE) -> None:
    """Replace what stands between the markers. Raises ValueError when a marker is missing."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} must hold the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n{table(list(found))}\n{END}{after}", encoding="utf-8")


def _runs(found: Sequence[Measured]) -> str:
    runs: dict[tuple[str, str], list[Measured]] = {}
    for one in found:
        runs.setdefault((one.run, one.commit), []).append(one)
    told = [
        f"{run} UTC at {commit}: {len(rows)} rows in {sum(one.took_s for one in rows) / 60:.0f} min"
        for (run, commit), rows in sorted(runs.items())
    ]
    return f"From {len(runs)} run{'s' if len(runs) != 1 else ''}. {'; '.join(told)}."


def _line(row: FaultRow) -> str:
    safe = "–" if row.safe_after_s is None else f"{row.safe_after_s:.1f} s"
    held = "yes" if row.is_met else "**no**"
    cells = (
        row.fault,
        f"{row.load_rps:g}",
        f"{row.requests:,}",
        f"{row.failed:,}",
        safe,
        row.ledger or "–",
        f"{held}: {row.note}" if row.note else held,
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

"""`trimtab retention`: old decisions go from the store to Parquet by day; old logs, and old days, go for good."""

from __future__ import annotations

import getpass
import re
import time
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
)

if TYPE_CHECKING:
    from services.retention.retention import Kept


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="How long decisions are kept, and where.")
    group.command("run")(run)
    group.command("show")(show)
    app.add_typer(group, name="retention")


def run(
    older_than: str = typer.Option(..., "--older-than", help="Rows older than this go to Parquet, e.g. 90d."),
    logs_older_than: str = typer.Option(
        None,
        "--logs-older-than",
        help="Logs that are shipped and this old are deleted; default: as --older-than.",
    ),
    erase_after: str = typer.Option(
        None, "--erase-after", help="Days of Parquet older than this are deleted for good; default: never."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be done."),
    name: str = HOME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Move old decisions, requests and outcomes out of the store, a day at a time; the system may run meanwhile.

    Never touched: the ledger, rollouts and the evidence of their polls, any day that an open rollout has seen, logs
    that are not shipped. Killed anywhere, the next run goes on.

    Example: trimtab retention run --older-than 90d --logs-older-than 7d --erase-after 730d
    """
    from services.retention.retention import run_retention

    kept = kept_of(older_than, logs_older_than, erase_after)
    home, db = open_records(name)

    def say(text: str) -> None:
        if not as_json:
            console.print(text, highlight=False)

    done = run_retention(home, db, kept, now=time.time(), by=getpass.getuser(), is_dry=dry_run, say=say)
    if as_json:
        print_json({**done.to_json(), "dry_run": dry_run})
        return
    would = "would go" if dry_run else "gone"
    for table, rows in done.deleted.items():
        if rows:
            say(
                f"{rows} {table} of before {done.before.isoformat()} {would} from the store to {home.archive}"
            )
    if done.held_by is not None:
        say(f"rollout {done.held_by} is open: no day that it has seen goes")
    if done.logs:
        say(f"{done.logs} shipped log files {would}, {done.log_bytes / 1e6:.1f} MB")
    for file, why in done.logs_kept.items():
        say(f"kept {file}: {why}")
    if done.erased_days:
        say(f"{done.erased_days} days of a table erased for good, {done.erased_rows} rows")
    if done.is_nothing:
        say("nothing is that old")


def kept_of(older_than: str, logs_older_than: str | None, erase_after: str | None) -> Kept:
    """The periods of the three options; exit status 2 for those that cannot be."""
    from services.retention.retention import Kept

    store_s = _seconds("--older-than", older_than)
    logs_s = store_s if logs_older_than is None else _seconds("--logs-older-than", logs_older_than)
    archive_s = None if erase_after is None else _seconds("--erase-after", erase_after)
    try:
        return Kept(store_s, logs_s, archive_s)
    except ValueError as error:
        options = {"store_s": "--older-than", "logs_s": "--logs-older-than", "archive_s": "--erase-after"}
        fail(re.sub(r"\w+_s", lambda name: options[name[0]], str(error)), code=2)


def show(name: str = HOME_OPTION, as_json: bool = JSON_OPTION) -> None:
    """What the archive holds, by table; read it with DuckDB or polars.

    Example: trimtab retention show
    """
    from services.retention.archive import archived_days

    home, _ = open_records(name)
    days = list(archived_days(home.archive))
    if as_json:
        print_json({"archive": home.archive, "days": [vars(one) for one in days]})
        return
    rows = []
    for table in dict.fromkeys(one.table for one in days):
        mine = [one for one in days if one.table == table]
        size = sum(one.bytes for one in mine)
        span = f"{mine[0].day} … {mine[-1].day}"
        rows.append((table, str(len(mine)), span, f"{sum(one.rows for one in mine)}", f"{size / 1e6:.1f} MB"))
    print_table(f"Archive in {home.archive}", ("table", "days", "from … to", "rows", "size"), rows)
    if days:
        files = home.archive / days[0].table / "*" / "*.parquet"
        console.print(f"DuckDB and polars read {files}", highlight=False, soft_wrap=True)


def _seconds(option: str, text: str) -> float:
    from policies.language.quantities import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        fail(f"'{option}' {error}", code=2)

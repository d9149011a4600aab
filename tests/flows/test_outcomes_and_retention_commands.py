"""Promises of `trimtab outcomes` and `trimtab retention`: JSON, mistakes with exit status 2, twice is once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.wiring import locate_home, make_home, open_store
from services.store import decisions as store
from services.store.decisions import DecisionRow, LogGap

RUNNER = CliRunner()
DAY_S = 86_400.0


@pytest.fixture
def now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A home with two decisions, of now and of ten days ago."""
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path))
    home = locate_home()
    make_home(home)
    db, moment = open_store(home), time.time() - 60.0
    with db.write() as connection:
        for name, at in (("old", moment - 10 * DAY_S), ("new", moment)):
            row = DecisionRow(
                name, name, 1, at, "u1", "stable", False, "rel", "call", 0.5, 1.0, "[0,1]", "[1,0]", "{}"
            )
            store.upsert_decisions(connection, [row])
        store.raise_mark(connection, store.SHIPPED_THROUGH, moment + 50.0, at=moment)
    db.close()
    return moment


def invoke(*arguments: str) -> Any:
    done = RUNNER.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_file_of_outcomes_is_imported_once(now: float, tmp_path: Path) -> None:
    """By unit within 30 days: both decisions; the watermark follows; the same file again brings nothing."""
    file = tmp_path / "outcomes.csv"
    file.write_text(f"unit,outcome,at\nu1,subscribed,{now + 1}\n")
    arguments = ("outcomes", "import", str(file), "--within", "30d", "--complete-through", str(now + 1))
    counts = {"conflicts": 0, "unknown": 0, "late": 0, "unmatched": 0, "too_early": 0, "watermark": now + 1}
    assert invoke(*arguments) == {"new": 2, "duplicates": 0, **counts}
    assert invoke(*arguments) == {"new": 0, "duplicates": 2, **counts}


def test_mistakes_of_a_file_and_of_options_end_with_2(now: float, tmp_path: Path) -> None:
    """Nothing is recorded of a file with a mistake, and each is named."""
    file = tmp_path / "outcomes.csv"
    file.write_text("decision_id,outcome,at\nnew,sold,1\nold,subscribed,1\n")
    done = RUNNER.invoke(app, ["outcomes", "import", str(file)])
    assert done.exit_code == 2
    assert "row 1: 'outcome' must be one of" in done.output
    for option, value in (("--within", "soon"), ("--complete-through", "2999-01-01T00:00:00Z")):
        done = RUNNER.invoke(app, ["outcomes", "import", str(file), option, value])
        assert done.exit_code == 2
        assert f"'{option}' must be" in " ".join(done.output.split())


def test_retention_runs_dry_then_for_good_and_shows_what_is_kept(now: float) -> None:
    """A dry run says the same numbers; then the old decision is in the archive, and the ledger says who moved it."""
    dry = invoke("retention", "run", "--older-than", "5d", "--dry-run")
    assert (dry["deleted"]["decisions"], dry["dry_run"]) == (1, True)
    assert invoke("retention", "show")["days"] == []
    done = invoke("retention", "run", "--older-than", "5d")
    assert (done["archived"]["decisions"], done["held_by"]) == (1, None)
    (kept,) = invoke("retention", "show")["days"]
    assert (kept["table"], kept["rows"]) == ("decisions", 1)
    (entry,) = invoke("ledger", "show", "--kind", "retention")
    assert entry["body"]["deleted"]["decisions"] == 1
    assert invoke("retention", "run", "--older-than", "5d")["deleted"]["decisions"] == 0


def test_status_tells_of_decisions_that_no_log_has(now: float) -> None:
    """What a full disk kept out of the logs is said to people and machines, by release."""
    db = open_store(locate_home())
    with db.write() as connection:
        store.upsert_gaps(connection, [LogGap("g", "rel", now, now + 1, 40)])
    db.close()
    assert invoke("status")["telemetry"]["unlogged"] == {"rel": 40}
    assert "40 decisions of rel, answered on a full disk" in RUNNER.invoke(app, ["status"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--older-than", "5"], "'--older-than' must be a duration"),
        (["--older-than", "1h"], "'--older-than' must be >= 86400: 3600"),
        (["--older-than", "5d", "--erase-after", "2d"], "'--erase-after' must be > --older-than"),
    ],
)
def test_retention_refuses_what_it_should_not_do(now: float, arguments: list[str], message: str) -> None:
    """Exit status 2 with the bound, and nothing is touched."""
    done = RUNNER.invoke(app, ["retention", "run", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_the_scheduled_retention_is_the_same_one_and_twice_is_once(now: float) -> None:
    """The flow moves the old decision as the command does; again, it finds nothing; a period that cannot be is
    refused before a home is looked for."""
    from flows.retain import retain

    done = retain.fn(older_than="5d", logs_older_than="1d")
    assert (done["deleted"]["decisions"], done["archived"]["decisions"]) == (1, 1)  # type: ignore[index]
    again = retain.fn(older_than="5d", logs_older_than="1d")
    assert again["deleted"]["decisions"] == 0  # type: ignore[index]
    (entry,) = invoke("ledger", "show", "--kind", "retention")
    assert entry["body"]["by"] == "schedule"
    with pytest.raises(ValueError, match="'store_s' must be >= 86400"):
        retain.fn(older_than="1h", logs_older_than="1d", home="elsewhere")
    refused = RUNNER.invoke(app, ["schedule", "--older-than", "1h"])
    assert (refused.exit_code, "'--older-than' must be >= 86400" in refused.output) == (2, True)

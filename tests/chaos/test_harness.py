"""The harness counts honestly: what a failed request is, what a row must hold, how the table is written."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The harness's modules, which are scripts beside each other and no package."""
    monkeypatch.syspath_prepend(str(HERE))
    names = ("fault_row", "reliability_table", "steady_load")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def made_row(harness: dict[str, ModuleType], **changes: Any) -> Any:
    known: dict[str, Any] = {
        "fault": "canary-killed",
        "load_rps": 150.0,
        "requests": 3000,
        "failed": 0,
        "safe_after_s": 4.1,
        "ledger": "ROLLBACK canary_ejected: 3 | 4",
        "note": "",
        "is_met": True,
    }
    return harness["fault_row"].FaultRow(**{**known, **changes})


def measured(harness: dict[str, ModuleType], run: str, **changes: Any) -> Any:
    return harness["fault_row"].Measured(made_row(harness, **changes), "abc123", run, 90.0)


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (200, b'{"action": "call", "release": "r"}', ""),
        (200, b'{"action": "explode", "release": "r"}', "not a decision"),
        (200, b"null", "not a decision"),
        (200, b"{", "not JSON"),
        (400, b"{}", "400"),
        (503, b"", "503"),
    ],
)
def test_anything_but_a_decision_is_a_failed_request(
    harness: dict[str, ModuleType], status: int, text: bytes, why: str
) -> None:
    """A refusal, an action that the policy does not have and an answer that is no decision count as failures."""
    _, found = harness["steady_load"].judge(status, text, frozenset({"call", "leave"}))
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_a_new_row_takes_the_place_of_the_old_one(harness: dict[str, ModuleType], tmp_path: Path) -> None:
    """Results are kept by fault, in their order, and read back as they were written."""
    keep, file = harness["fault_row"].keep_results, tmp_path / "results.jsonl"
    keep([measured(harness, "old"), measured(harness, "old", fault="envoy-killed", failed=90)], file)
    kept = keep([measured(harness, "new", failed=7)], file)
    assert list(kept) == ["canary-killed", "envoy-killed"]
    assert harness["fault_row"].read_results(file) == kept
    assert (kept["canary-killed"].row.failed, kept["canary-killed"].run) == (7, "new")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"failed": 3001}, "'failed' must be in"),
        ({"safe_after_s": float("nan")}, "'safe_after_s' must be finite"),
        ({"fault": ""}, "'fault' must not be empty"),
    ],
)
def test_impossible_rows_are_refused(
    harness: dict[str, ModuleType], changes: dict[str, Any], says: str
) -> None:
    """More failures than requests, a time that is none, a fault without a name."""
    with pytest.raises(ValueError, match=says):
        made_row(harness, **changes)


def test_the_table_stands_between_its_markers(harness: dict[str, ModuleType], tmp_path: Path) -> None:
    """Everything around it stays; a broken promise is told in bold; a bar in a text breaks no cell; a line says which
    runs, of which commits, the rows are from."""
    table = harness["reliability_table"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    rows = [measured(harness, "2026-11-22 16:50", failed=2, is_met=False, note="503")]
    table.write_table(rows, page)
    line = "| canary-killed | 150 | 3,000 | 2 | 4.1 s | ROLLBACK canary_ejected: 3 / 4 | **no**: 503 |"
    runs = "From 1 run. 2026-11-22 16:50 UTC at abc123: 1 rows in 2 min."
    expected = "\n".join(["before", table.BEGIN, *table.HEAD, line, "", runs, table.END, "after", ""])
    assert page.read_text() == expected
    table.write_table([*rows, measured(harness, "2026-11-23 08:00", fault="envoy-killed")], page)
    assert "From 2 runs. 2026-11-22 16:50 UTC at abc123: 1 rows in 2 min; 2026-11-23" in page.read_text()
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must hold the lines"):
        table.write_table([], page)


def test_every_script_names_its_faults() -> None:
    """`make chaos ARGS=--list` imports every script and names each fault once."""
    done = subprocess.run(
        [sys.executable, str(HERE / "run_chaos.py"), "--list"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) == len(set(names))
    assert {"canary-killed", "envoy-killed", "kill-switch", "disk-full"} <= set(names)

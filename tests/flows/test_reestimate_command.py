"""Promises of `trimtab utility reestimate`: it measures, proposes a patch, and changes nothing by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.wiring import locate_home, make_home, open_store
from services.ledger.ledger import entries
from services.rehearsal.bank_marketing import read_calls
from services.rollout.policy_set import POLICIES
from services.store import decisions as store
from services.store.decisions import DecisionRow
from services.store.measurements import Measurement, record_measurements

RUNNER = CliRunner()
REESTIMATE = ["utility", "reestimate"]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree with the telemarketing policies, to which a patch can be applied."""
    folder = tmp_path / "policies" / "telemarketing"
    folder.mkdir(parents=True)
    for file in ("contract.yaml", "utility.yaml", "rollout.yaml", "scenarios.yaml"):
        (folder / file).write_bytes((POLICIES / "telemarketing" / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path / "state"))
    return folder


def test_a_file_of_amounts_becomes_a_patch_that_somebody_must_sign(service: Path) -> None:
    """The stated share of 0.25 is measured at 0.30: the patch applies, the lint refuses it for want of a name, and with
    one it passes. The file itself was not touched. Empty amounts are no amounts."""
    calls = (
        read_calls()
        .tail(2_000)
        .with_columns(deposited=pl.when(pl.col("y") == "yes").then(0.3 * pl.col("balance").clip(0, 5000)))
    )
    calls.write_parquet("calls.parquet")
    before = (service / "utility.yaml").read_text()
    done = RUNNER.invoke(
        app,
        [*REESTIMATE, "--rows", "calls.parquet", "--folder", "policies", "--out", "m.patch", "--json"],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    share = found["estimates"][1]
    assert (share["finding"], share["n"]) == ("moved", calls.filter(pl.col("y") == "yes").height)
    assert share["value"] == pytest.approx(0.3)
    assert found["estimates"][0]["finding"] == "not measured"
    assert (service / "utility.yaml").read_text() == before
    subprocess.run(["git", "apply", "m.patch"], check=True)
    lint = ["policy", "lint", "--folder", "policies"]
    refused = RUNNER.invoke(app, lint)
    assert refused.exit_code == 1
    assert "changelog[0].who" in refused.output
    text = (service / "utility.yaml").read_text()
    (service / "utility.yaml").write_text(text.replace('who: ""', "who: Head of direct marketing"))
    signed = RUNNER.invoke(app, lint)
    assert signed.exit_code == 0, signed.output


@pytest.mark.usefixtures("service")
def test_outcomes_of_the_store_are_measured_and_recorded() -> None:
    """Costs that came with the outcomes of this service's decisions; what was found is on the ledger. A decision whose
    row lacks the balance is left out of the share and counted."""
    home = locate_home("main")
    make_home(home)
    db = open_store(home)
    draw = np.random.default_rng(1)
    with db.write() as connection:
        store.upsert_decisions(
            connection,
            [
                DecisionRow(
                    decision_id=f"d{n}",
                    request_id=f"q{n}",
                    attempt=1,
                    at=4e9 + n,
                    unit=f"u{n}",
                    assigned="stable",
                    shadow=False,
                    release="telemarketing-0123456789ab" if n else "lending-0123456789ab",
                    action="call",
                    score=0.5,
                    took_ms=1.0,
                    expected_utility="[]",
                    probabilities="[]",
                    row="{}" if n == 1 else '{"balance": 1000}',
                )
                for n in range(101)
            ],
        )
    cost = draw.normal(1.5, 0.1, 101)
    record_measurements(
        db,
        [Measurement(f"d{n}", "call_cost", float(cost[n]), 4e9) for n in range(101)]
        + [Measurement(f"d{n}", "deposited", 250.0, 4e9) for n in range(101)],
        received_at=4e9,
    )
    done = RUNNER.invoke(app, [*REESTIMATE, "--folder", "policies"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "+ value: 1.492" in said
    assert "1 decisions are left out" in said
    assert "still to be mended by whoever signs" in said  # the range holds no loss of 1.5
    (entry,) = entries(db, kind="quantities_measured")
    measured = entry.body["estimates"]
    assert isinstance(measured, list)
    assert [(one["quantity"], one["n"], one["finding"]) for one in measured] == [
        ("call_cost", 100, "moved"),
        ("deposited_share", 99, "agrees"),
    ]
    db.close()


@pytest.mark.usefixtures("service")
def test_what_does_not_fit_is_named() -> None:
    """Two sources at once, and a service whose quantities nothing measures."""
    done = RUNNER.invoke(app, [*REESTIMATE, "--rows", "x.csv", "--since", "7d"])
    assert done.exit_code == 2
    file = Path("policies/telemarketing/utility.yaml")
    lines = [line for line in file.read_text().splitlines() if "measured: {" not in line]
    file.write_text("\n".join(lines))
    done = RUNNER.invoke(app, [*REESTIMATE, "--folder", "policies"])
    assert done.exit_code == 1
    assert "says what measures it" in " ".join((done.output + str(done.stderr)).split())

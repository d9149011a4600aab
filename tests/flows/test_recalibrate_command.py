"""Promises of `trimtab recalibrate`: what it asks for, and what it says where there is too little to go by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.wiring import locate_home, make_home, open_store
from policies.operating.operating_point import OperatingPoint
from services.data.splits import to_arrays
from services.rehearsal.bank_marketing import read_calls
from services.rollout.policy_set import load_policies
from services.serving.release import write_release
from services.serving.release_command import ReleaseCommand
from services.store import rollouts
from services.traffic.slots import Slots
from services.traffic.supervision import want_release
from services.traffic.traffic import Traffic
from services.training.calibration import Calibration
from services.training.candidate import TrainedCandidate
from services.training.errors import TrainingError
from services.training.forward import Architecture
from services.training.preprocessing import Preprocessing

RUNNER = CliRunner()


@pytest.fixture
def stable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A home, `main`, in which a release with a made-up network is stable."""
    monkeypatch.setenv("TRIMTAB_STATE", str(tmp_path))
    home, policies = locate_home("main"), load_policies("telemarketing")
    make_home(home)
    preprocessing = Preprocessing.fit(
        to_arrays(read_calls().head(2_000), policies.contract), policies.contract
    )
    shape = Architecture(
        numeric=preprocessing.numeric_width,
        cardinalities=preprocessing.cardinalities,
        embeddings=(2,) * len(preprocessing.cardinalities),
        hidden=(4,),
        outcomes=2,
    )
    draw = np.random.default_rng(1)
    release = write_release(
        home.releases,
        service="telemarketing",
        candidate=TrainedCandidate(
            loss_name="made up",
            weights={name: draw.normal(size=n).astype(np.float32) for name, n in shape.shapes().items()},
            architecture=shape,
            preprocessing=preprocessing,
            calibration=Calibration.identity(2),
            outcomes=policies.utility.outcomes,
            validation_utility=0.0,
            validation_interval=(0.0, 0.0),
            validation_rows=0,
            calibration_error=0.0,
            best_epoch=0,
            history=(),
            seed=1,
        ),
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=policies.texts,
        provenance={"job": "made-up"},
        created_at=1_000.0,
    )

    def serve(port: int) -> ReleaseCommand:
        return ReleaseCommand(("serve",), {}, home.root, f"http://127.0.0.1:{port}/readyz")

    want_release(home, release.id, serve)
    Traffic(home).write_slots(Slots((release.id,), None, None, "before"))
    return release.id


def test_help_says_what_is_seen() -> None:
    """An example, both sources of rows, and that the weights stay as they are."""
    done = RUNNER.invoke(app, ["recalibrate", "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for part in (
        "--since",
        "--rows",
        "--method",
        "the weights stay as they are",
        "trimtab recalibrate --since 14d",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "platt"], "'--method' must be one of calibration, prior-shift, prior-shift-em: platt"),
        (["--since", "7d", "--rows", "calls.csv"], "'--since' reads the store, '--rows' a file"),
        (["--since", "7"], "'--since' must be a duration with its unit, like 500ms, 4s, 15m, 1h or 7d: '7'"),
        (["--roll-out", "--json"], "trimtab rollout start --json"),
        (["--roll-out"], "the system is down: `trimtab up` first"),
        (["--release", "telemarketing-000000000000"], "no such release folder"),
    ],
)
@pytest.mark.usefixtures("stable")
def test_what_does_not_fit_is_named(arguments: list[str], says: str) -> None:
    """Each mistake ends with exit status 1 and a message, before anything is made."""
    done = RUNNER.invoke(app, ["recalibrate", *arguments])
    assert done.exit_code == 1
    assert says in " ".join((done.output + str(done.exception or "")).split())


def test_nothing_is_made_to_roll_out_beside_a_rollout(stable: str, tmp_path: Path) -> None:
    """While another candidate is on its way --roll-out is refused before a release is packed, and that rollout is
    named."""
    record = rollouts.RolloutRecord(
        id="r1",
        service="telemarketing",
        champion=stable,
        candidate="telemarketing-0123456789ab",
        policy_text="",
        utility_text="",
        salt="5a",
        state={},
        gates={},
        cursors={},
        weight_pct=5.0,
        version=0,
        created_at=1.0,
        updated_at=1.0,
    )
    rollouts.create(open_store(locate_home("main")), record)
    done = RUNNER.invoke(app, ["recalibrate", "--roll-out"])
    assert done.exit_code == 1
    assert "rollout r1 of telemarketing-0123456789ab is not over" in " ".join(done.output.split())
    assert [path.name for path in (tmp_path / "main" / "releases").iterdir()] == [stable]


def test_too_few_outcomes_in_a_file(stable: str, tmp_path: Path) -> None:
    """Calls of the first month, when next to nobody subscribed: refused with how many there are, nothing is packed."""
    file = tmp_path / "calls.parquet"
    read_calls().head(1_200).write_parquet(file)
    done = RUNNER.invoke(app, ["recalibrate", "--rows", str(file), "--json"])
    assert isinstance(done.exception, TrainingError)
    assert "to fit by calibration, every outcome must be there at least 50 times" in str(done.exception)
    assert [path.name for path in (tmp_path / "main" / "releases").iterdir()] == [stable]


def test_a_refusal_is_json_with_its_verdict(stable: str, tmp_path: Path) -> None:
    """A made-up network's scores tell nothing apart, and the gates of the alignment stage see it: exit status 1, one
    JSON document with the verdict and the gate that failed, nothing is packed."""
    file = tmp_path / "calls.parquet"
    calls = read_calls()
    calls.slice(round(0.5 * len(calls)), 9_000).filter(pl.col("balance") >= 0).write_parquet(file)
    done = RUNNER.invoke(app, ["recalibrate", "--rows", str(file), "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["release"], found["parent"]) == (None, stable)
    verdict = found["verdict"]
    assert (verdict["stage"], verdict["decision"]) == ("alignment", "ROLLBACK")
    assert "fail" in [gate["status"] for gate in verdict["gates"]]
    assert [path.name for path in (tmp_path / "main" / "releases").iterdir()] == [stable]

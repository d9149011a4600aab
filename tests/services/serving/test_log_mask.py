"""Fields that the contract keeps out of the decision log: hashed with the home's key, or left out; still decided."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from policies.operating.operating_point import OperatingPoint
from services.data.columns import Column
from services.data.contract import load_contract
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.log_mask import PREFIX, LogKeyError, LogMask, load_or_create_key
from services.serving.release import write_release
from services.serving.request_mark import RequestMark
from services.telemetry.disagreement import DisagreementError, Recomputation

AGE = Column("age", "integer", True, "feature", in_log="hashed")
SCORE = Column("score", "number", True, "feature", in_log="hashed")
JOB = Column("job", "text", True, "feature", in_log="dropped")
PLACE = Column("place", "text", True, "feature")


def test_hashes_keep_equality_within_a_field_and_home_and_nowhere_else(tmp_path: Path) -> None:
    """Equal values of a field are equal hashes; another field, another key or another value is another hash."""
    mask = LogMask([AGE, SCORE, JOB, PLACE], tmp_path / "key")
    hidden = mask.hide({"age": 40, "score": 40.0, "job": "clerk", "place": "here"})
    assert set(hidden) == {"age", "score", "place"}
    assert hidden["place"] == "here"
    age = hidden["age"]
    assert isinstance(age, str)
    assert age.startswith(PREFIX)
    assert len(age) == len(PREFIX) + 32
    assert age != hidden["score"]
    again = LogMask([AGE], tmp_path / "key")
    assert again.hide({"age": 40.0}) == again.hide({"age": 40}) == {"age": age}
    assert again.hide({"age": 41})["age"] != age
    assert LogMask([AGE], tmp_path / "other").hide({"age": 40})["age"] != age
    assert again.hide({"age": None}) == {"age": None}


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """Releases that start together share one key; one that others can read is refused, and so is no key."""
    file = tmp_path / "keys" / "log.key"
    code = (
        "import sys; from pathlib import Path; from services.serving.log_mask import load_or_create_key as k;"
    )
    code += "print(k(Path(sys.argv[1])).hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert keys == {load_or_create_key(file).hex()}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    file.chmod(0o640)
    with pytest.raises(LogKeyError, match="must have mode 0600"):
        load_or_create_key(file)
    file.chmod(0o600)
    file.write_text("secret")
    with pytest.raises(LogKeyError, match="must be 64 hexadecimal digits"):
        load_or_create_key(file)
    with pytest.raises(LogKeyError, match="wants age hashed in the log, and no key file is named"):
        LogMask([AGE, JOB], None)


def hiding(contract: str, name: str, how: str) -> str:
    """The contract with one column's decisionLog set."""
    at = contract.index(f"- name: {name}\n")
    start = contract.index("customProperties:", at) + len("customProperties:")
    indent = contract[start:].lstrip("\n").split("-")[0]
    return f"{contract[:start]}\n{indent}- {{property: decisionLog, value: {how}}}{contract[start:]}"


def scores(answers: Any) -> list[float]:
    return [one["score"] for one in json.loads(orjson.dumps(answers))]


@pytest.mark.parametrize("count", [5, 50])
def test_what_is_hidden_is_decided_by_its_value_and_never_reaches_the_log(
    tmp_path: Path,
    parts: Any,
    policy_texts: dict[str, str],
    rows: list[dict[str, Any]],
    stamps: Stamps,
    make_decider: Callable[..., Decider],
    count: int,
) -> None:
    """The answer is that of the same release with nothing hidden; the log holds neither value; and whoever would work
    decisions out again from the log is told why not."""
    texts = dict(policy_texts)
    for name, how in (("loan", "hashed"), ("job", "dropped")):
        texts["contract.yaml"] = hiding(texts["contract.yaml"], name, how)
    release = write_release(
        tmp_path / "releases",
        service="telemarketing",
        candidate=parts,
        operating_point=OperatingPoint(shift=(0.0, 0.0)),
        policies=texts,
        provenance={},
        created_at=1.0,
    )
    log = DecisionLog(tmp_path / "hidden", release.id, pid=1)
    decider = Decider(release, log=log, stamps=stamps, log_key_file=tmp_path / "key")
    mark = RequestMark("q", 1, "u", "stable", False)
    answers = asyncio.run(decider.decide(mark, rows[:count]))
    plain = asyncio.run(make_decider().decide(mark, rows[:count]))
    assert scores(answers) == scores(plain)
    for line, row in zip(log.path.read_text().splitlines(), rows[:count], strict=True):
        logged = json.loads(line)["row"]
        assert set(logged) == set(row) - {"job"}
        assert logged["loan"].startswith(PREFIX)
        assert {k: v for k, v in logged.items() if k != "loan"} == {
            k: v for k, v in row.items() if k not in ("loan", "job")
        }
    with pytest.raises(DisagreementError, match=r"its contract hides job, loan in the log"):
        Recomputation(release)


def test_an_unknown_way_of_hiding_is_refused(policy_texts: dict[str, str]) -> None:
    """A misspelt word is an error with the words there are, not a value in the log."""
    with pytest.raises(Exception, match="decisionLog must be one of plain, hashed, dropped: 'hashd'"):
        load_contract(hiding(policy_texts["contract.yaml"], "loan", "hashd"), "contract.yaml")
    contract = load_contract(hiding(policy_texts["contract.yaml"], "loan", "dropped"), "contract.yaml")
    assert contract.column("loan") == replace(contract.column("loan"), in_log="dropped")
    assert contract.hidden_in_log(["balance"]) == ("loan",)

"""The shipper as a process of its own, killed again and again while logs grow and rotate: the store equals the logs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import select

from services.store import tables
from services.store.database import Database
from services.telemetry.shipper import Shipper

KILLS = 6
SHIP = (
    "import sys, time, threading; from pathlib import Path\n"
    "from services.store.database import open_database\n"
    "from services.telemetry.shipper import Shipper, run_shipper\n"
    "db = open_database(sys.argv[1], folder=Path(sys.argv[2]))\n"
    "shipper = Shipper(db, Path(sys.argv[3]), Path(sys.argv[4]), clock=time.time, chunk_bytes=20_000)\n"
    "print('begun', flush=True)\n"
    "run_shipper(shipper, threading.Event(), interval_s=0.01, on_report=lambda report: None)\n"
)
SOURCE = Path(__file__).parents[3]
WRITE = (
    "import json, sys, time; from pathlib import Path\n"
    "from services.serving.decision_log import DecisionLog, LogLimits\n"
    "from tests.decision_records import made_up_line\n"
    "folder, access = Path(sys.argv[1]), Path(sys.argv[2])\n"
    "logs = [DecisionLog(folder, name, pid=1, limits=LogLimits(max_bytes=30_000)) for name in ('rel-a', 'rel-b')]\n"
    "request = {'assigned': 'stable', 'status': 200, 'duration_ms': 1, 'attempts': 1, 'flags': '-', 'unit': 'u'}\n"
    "number = 0\n"
    "while not Path(sys.argv[3]).exists():\n"
    "    for log, name in zip(logs, ('a', 'b')):\n"
    "        some = [made_up_line(f'{name}{number}-{n}', request_id=f'q{number}', at=time.time(), unit='u',\n"
    "            assigned='stable', release=name, row={'age': n}) for n in range(4)]\n"
    "        log.append(some)\n"
    "    with access.open('a') as file:\n"
    "        file.write(json.dumps({**request, 'request_id': f'q{number}', 'at': time.time()}) + '\\n')\n"
    "    number += 1\n"
    "    if number % 300 == 0:\n"
    "        access.rename(access.with_name(f'access.jsonl.{number}'))\n"
    "    time.sleep(0.001)\n"
    "print(number)\n"
)


def test_killed_at_any_instant_the_store_equals_the_logs(db: Database, tmp_path: Path) -> None:
    """SIGKILL of a real shipper six times, later each time, with two releases' logs that rotate, an access log that is
    renamed, and one file delivered a second time: in the end each line is one row, none more."""
    logs, access, end = tmp_path / "logs", tmp_path / "envoy" / "access.jsonl", tmp_path / "end"
    access.parent.mkdir()
    url = db.engine.url.render_as_string(hide_password=False)
    ship = [sys.executable, "-c", SHIP, url, str(tmp_path), str(logs), str(access)]
    write = [sys.executable, "-c", WRITE, str(logs), str(access), str(end)]
    with subprocess.Popen(write, stdout=subprocess.PIPE, text=True, cwd=SOURCE) as writer:
        try:
            for kill in range(KILLS):
                with subprocess.Popen(ship, stdout=subprocess.PIPE) as shipper:
                    assert shipper.stdout is not None
                    assert shipper.stdout.readline() == b"begun\n"
                    time.sleep(0.02 + 0.06 * kill)
                    shipper.send_signal(signal.SIGKILL)
        finally:
            end.touch()
            requests = int(writer.communicate(timeout=60)[0])
    first = min((logs / "rel-a").iterdir())
    first.with_name("delivered-again.jsonl").write_bytes(first.read_bytes())
    last = Shipper(db, logs, access, clock=time.time)
    reports = [last.ship_once()]
    while reports[-1].records or reports[-1].lag_s:
        reports.append(last.ship_once())
    assert sum(report.bad_lines for report in reports) == 0
    files = [*logs.glob("*/decisions-*.jsonl"), *access.parent.iterdir()]
    assert len(files) > 8
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    with db.read() as connection:
        shipped = list(connection.execute(select(tables.decisions.c.decision_id)).scalars())
        asked = list(connection.execute(select(tables.requests.c.request_id)).scalars())
    assert sorted(shipped) == sorted(line["decision_id"] for line in lines if "decision_id" in line)
    assert sorted(asked) == sorted(f"q{number}" for number in range(requests))
    assert len(shipped) == 8 * requests
    print(f"kills={KILLS} decisions={len(shipped)} requests={requests} files={len(files)}")

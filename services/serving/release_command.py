"""How the supervisor starts one release: argv, whole environment, working directory, readiness address.

Pure: it names files and never looks at them. `env` is all that a release needs; a supervisor may add it to
its own environment, because what matters is set here, and a stray fault is refused by the launcher. Must
never import bentoml.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.home import LOOPBACK, Home
from services.serving.fault import FAULT_VARIABLE, parse_fault


@dataclass(frozen=True)
class ReleaseCommand:
    """One process: `ready_url` answers 200 once the release has warmed up; before, nothing listens."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    ready_url: str


def bento_name(service: str) -> str:
    """The Bento of a decision service: `telemarketing` is `trimtab_telemarketing`."""
    return f"trimtab_{service}"


def bento_folder(release_id: str, home: Home) -> Path:
    """Where the built Bento of a release lies in the home's Bento store."""
    service = release_id.rpartition("-")[0]
    return home.bentos / "bentos" / bento_name(service) / release_id


def launch_command(release_id: str, home: Home, port: int, *, fault: str | None = None) -> ReleaseCommand:
    """The command that serves a built release on loopback; `fault` is for rehearsals only.

    Raises: FaultError when `fault` is none that services/serving/fault.py knows.
    """
    source = bento_folder(release_id, home) / "src"
    argv = [sys.executable, "-m", "services.serving.launch", "--port", str(port)]
    env = {
        "PYTHONPATH": str(source),
        "PYTHONUNBUFFERED": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(home.root),
        "BENTOML_HOME": str(home.root / "bentoml-running" / release_id),
        "BENTOML_DO_NOT_TRACK": "True",
        "TRIMTAB_DECISION_LOGS": str(home.decision_logs),
        "TRIMTAB_LOG_KEY": str(home.log_key_file),
        "TRIMTAB_TRUSTED_KEYS": str(home.trusted_keys_file),
        "TRIMTAB_SWITCHES": str(home.switches_file(release_id.rpartition("-")[0])),
        # One release serves one request at a time; more BLAS threads only take cores from its neighbours.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
        # glibc: keep memory that a request has freed for the next one. Given back to the system after each batch, it
        # comes back page by page, which cost a third of a batch's time.
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
        "MALLOC_TOP_PAD_": str(4 << 20),
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    }
    if fault is not None:
        parse_fault(fault)
        argv.append("--rehearsal")
        env[FAULT_VARIABLE] = fault
    return ReleaseCommand(tuple(argv), env, source, f"http://{LOOPBACK}:{port}/readyz")

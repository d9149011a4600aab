"""The composition root: which home, ports, processes and Prefect. The only place that reads the environment.

Everything below flows/ takes what it needs as an argument. Importing this file imports no Prefect.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from services.control.token import load_or_create
from services.home import LOOPBACK, Home, Ports
from services.store.database import Database, open_database
from services.traffic.records import ProcessSpec

MAIN_PORT_BASE = 8700
KEPT_ARCHIVES = 3
SOURCE = Path(__file__).resolve().parent.parent


class WiringError(RuntimeError):
    """The surroundings do not allow what was asked; the text says what to do."""


def state_root() -> Path:
    """The folder of all homes: `TRIMTAB_STATE`, else `.trimtab` in the current folder."""
    return Path(os.environ.get("TRIMTAB_STATE", ".trimtab")).resolve()


def locate_home(name: str = "main", *, offset: int = 0) -> Home:
    """The home called `name`, with the ports recorded in it, else those from TRIMTAB_PORT_BASE + offset on."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise WiringError(f"'--home' must be a name of letters, digits, '-' and '_', not a path: {name!r}")
    root = state_root() / name
    recorded = root / "ports.json"
    if recorded.is_file():
        return Home(root, Ports(int(json.loads(recorded.read_text())["base"])))
    base = int(os.environ.get("TRIMTAB_PORT_BASE", MAIN_PORT_BASE))
    return Home(root, Ports(base + offset))


def make_home(home: Home) -> None:
    """Create the home's folders and its control token, and record its ports. Idempotent."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.root.chmod(0o700)  # decisions, data and reports hold personal data
    for folder in (home.traffic, home.processes, home.releases, home.snapshots, home.reports):
        folder.mkdir(parents=True, exist_ok=True)
    (home.root / "ports.json").write_text(json.dumps({"base": home.ports.base}))
    load_or_create(home.token_file)


def archive_home(home: Home, now: float) -> Path | None:
    """Move a used home aside, so that the main job starts from nothing and nothing is lost; keeps the newest few."""
    if not home.root.exists():
        return None
    archive = state_root() / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    target = archive / f"{home.root.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    home.root.rename(target)
    for old in sorted(archive.glob(f"{home.root.name}-*"))[:-KEPT_ARCHIVES]:
        shutil.rmtree(old)
    return target


def store_url(home: Home) -> str:
    """The home's store: for `main` the one that TRIMTAB_DATABASE_URL names, else SQLite in the home.

    No two homes share a store: the grant of a drill would be published by the main home's control service too.
    """
    named = os.environ.get("TRIMTAB_DATABASE_URL") if home.root.name == "main" else None
    return named or home.database_url


def open_store(home: Home) -> Database:
    """The home's store, opened; its ledger's head stands in the home."""
    return open_database(store_url(home), folder=home.root)


def own_prefect_url(home: Home) -> str:
    """The API of the Prefect server that this home's supervisor runs."""
    return f"http://{LOOPBACK}:{home.ports.prefect}/api"


def prefect_url(home: Home) -> str:
    """The Prefect API in use: PREFECT_API_URL when it is set, else this home's own server."""
    return os.environ.get("PREFECT_API_URL") or own_prefect_url(home)


def prefect_environment(home: Home) -> dict[str, str]:
    """Settings under which Prefect's server and flows run here (facts: analytics off, patient start-up)."""
    return {
        "PREFECT_API_URL": prefect_url(home),
        "PREFECT_HOME": str(state_root() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # Five by default, over a minute for each call of a flow to a server that is gone.
        "PREFECT_CLIENT_MAX_RETRIES": "1",
        # A minute by default: with a server that hangs, a command would not end for minutes after its work is done.
        "PREFECT_API_REQUEST_TIMEOUT": "20",
    }


def use_prefect(home: Home) -> None:
    """Point this process at the Prefect API, before Prefect is imported."""
    os.environ.update(prefect_environment(home))


def supervisor_specs(home: Home) -> tuple[ProcessSpec, ...]:
    """The processes that the supervisor owns besides Envoy and the releases."""
    room = ["--home", str(home.root), "--base-port", str(home.ports.base)]
    delay_s = float(os.environ.get("TRIMTAB_RESTART_DELAY_S", "1"))
    specs = [
        ProcessSpec(
            name="control",
            argv=(sys.executable, "-m", "services.control", *room),
            env={"TRIMTAB_DATABASE_URL": store_url(home)},
            cwd=str(home.root),
            ready_url=f"http://{LOOPBACK}:{home.ports.control}/healthz",
            restart_delay_s=delay_s,
        )
    ]
    if home.root.name == "main" and prefect_url(home) == own_prefect_url(home):
        server = ("-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(home.ports.prefect))
        specs.append(
            ProcessSpec(
                name="prefect",
                argv=(sys.executable, *server),
                env=prefect_environment(home),
                cwd=str(home.root),
                ready_url=f"http://{LOOPBACK}:{home.ports.prefect}/api/health",
                restart_delay_s=delay_s,
            )
        )
    return tuple(specs)


def code_version() -> str:
    """The commit of the source tree, with `+dirty` when it was changed; `unknown` outside a checkout."""
    command = ["git", "-C", str(SOURCE), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def require_free_ports(ports: Ports) -> None:
    """Raise WiringError naming the first port that somebody else listens on."""
    for name in ("users", "forced", "envoy_admin", "control", "rtds"):
        port = getattr(ports, name)
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((LOOPBACK, port)) == 0:
                raise WiringError(
                    f"port {port} ({name}) is in use: stop what holds it (another `trimtab up`?), "
                    "or set TRIMTAB_PORT_BASE to the first of 40 free ports"
                )

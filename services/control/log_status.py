"""What the serving releases say of their decision logs: written, missed, and whether the disk takes it.

Asked of each process, because a store on the same full disk could not be told. Must never import: sqlalchemy, flows.
"""

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields

from services.home import LOOPBACK, Home
from services.traffic.errors import TrafficError
from services.traffic.records import read_desired, read_running

ASK_S = 0.3


@dataclass(frozen=True)
class LogStatus:
    """Since the release's process began: decisions `written`, those answered and `missed`, failed syncs; its file."""

    release: str
    file: str
    written: int
    missed: int
    sync_failures: int


def read_log_statuses(home: Home) -> dict[str, LogStatus | None]:
    """By serving release; None for one that does not say."""
    try:
        running, wanted = read_running(home), read_desired(home)
    except TrafficError:
        return {}
    return {name: _ask(process.port) for name, process in running.items() if name in wanted and process.ready}


def _ask(port: int | None) -> LogStatus | None:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/decision_log", timeout=ASK_S) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    if not isinstance(found, Mapping) or set(found) != {field.name for field in fields(LogStatus)}:
        return None
    return LogStatus(**found)

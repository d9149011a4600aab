"""What the supervisor knows of each process it owns, and how it asks one whether it is ready.

Must never import bentoml, torch or sqlalchemy.
"""

import http.client
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.home import LOOPBACK
from services.traffic.processes import Identity
from services.traffic.records import ProcessSpec


@dataclass
class Owned:
    """One process in the supervisor's hands; `process` None while it waits to be started (again)."""

    spec: ProcessSpec
    process: Identity | None = None
    ready: bool = False
    since: float = 0.0
    restarts: int = 0
    deaths_in_a_row: int = 0
    start_at: float = 0.0
    look_at: float = 0.0
    failed_looks: int = 0
    look: "Future[bool] | None" = None


@dataclass(frozen=True)
class Ending:
    """A process that was asked to finish; it is ended after `deadline` (monotonic seconds)."""

    name: str
    process: Identity
    deadline: float


def answers_200(url: str) -> bool:
    """Whether a GET of this loopback URL is answered 200 within 2 seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=2.0)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

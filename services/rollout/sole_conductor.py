"""One process conducts a service's rollout: a lock that the kernel frees when its holder dies.

Must never import Prefect.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from filelock import FileLock, Timeout

from services.home import Home


class ConductorBusy(RuntimeError):
    """Another process conducts this service's rollout."""


def sole_conductor(home: Home, service: str) -> AbstractContextManager[object]:
    """A lock that the kernel frees when its holder dies. Raises ConductorBusy at once."""
    lock = FileLock(home.root / f"rollout-{service}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise ConductorBusy(
            f"another process conducts the rollout of {service!r}; watch it with `trimtab status --watch`"
        ) from error


def is_conducted(home: Home, service: str) -> bool:
    """Whether some process conducts this service's rollout now."""
    try:
        with sole_conductor(home, service):
            return False
    except ConductorBusy:
        return True

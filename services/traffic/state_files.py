"""How the traffic room keeps JSON on disk: whole or not at all, one writer at a time.

Rule 1: a reader never sees half a file (write beside it, flush to disk, rename).
Rule 2: whoever reads one file to write another holds `locked(home)` meanwhile.
Must never import bentoml, torch or sqlalchemy.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from services.home import Home
from services.traffic.errors import TrafficError

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def write_json(path: Path, value: Json) -> None:
    """Replace `path` by `value` as JSON, mode 0600, in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=True, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json_if_changed(path: Path, value: Json) -> bool:
    """Replace `path` only if its content differs; returns whether it was written."""
    if path.exists() and read_object(path) == json.loads(json.dumps(value)):
        return False
    write_json(path, value)
    return True


def read_object(path: Path) -> dict[str, Json]:
    """The JSON object in `path`; empty when there is no such file.

    Raises: TrafficError when the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrafficError(f"{path}: not JSON ({error}); restore it or remove it") from error
    if not isinstance(value, dict):
        raise TrafficError(f"{path}: must hold a JSON object, found {type(value).__name__}")
    return value


@contextmanager
def locked(home: Home, *, timeout_s: float = 10.0) -> Iterator[None]:
    """Hold the lock of this home's traffic files.

    Raises: TrafficError when another process holds it longer than `timeout_s`.
    """
    home.traffic.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home.traffic / "files.lock", timeout=timeout_s):
            yield
    except Timeout as error:
        raise TrafficError(
            f"{home.traffic}: another process has held the traffic files for {timeout_s} s; "
            "see which trimtab command hangs"
        ) from error

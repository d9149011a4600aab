"""Serves the Bento that this file lies in: plain uvicorn, loopback only, gone within seconds of a SIGTERM.

`python -m services.serving.launch --port P [--rehearsal]`, run with the Bento's `src` as working directory.
No `bentoml serve`: its process supervisor keeps the socket of a killed worker open (10–27 s of hanging
requests). It refuses to serve a release that no key in the file TRIMTAB_TRUSTED_KEYS vouches for; and when any
module of the project came from outside the Bento, so that an editable install can never stand in for a room that
the Bento lacks. /decide is answered before BentoML's middleware; every other path by BentoML's own application.
"""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from services.serving.fault import FAULT_VARIABLE, FaultError
from services.serving.release import ReleaseError, read_release
from services.signing.keys import SignatureError
from services.signing.release_signature import verify_release

LOOPBACK = "127.0.0.1"
GRACE_S = 4
TRUSTED_KEYS_VARIABLE = "TRIMTAB_TRUSTED_KEYS"
ROOMS = ("policies", "services", "flows")
SOURCE = Path(__file__).resolve().parents[2]


class LaunchError(RuntimeError):
    """The release cannot be served from here."""


class FrontDoor:
    """ASGI application: /decide goes straight to its endpoint, all else to the Bento's application."""

    def __init__(self, decide: Any, bento: Any) -> None:
        self._decide = decide
        self._bento = bento

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/decide":
            await self._decide(scope, receive, send)
        else:
            await self._bento(scope, receive, send)


def foreign_modules(modules: Mapping[str, ModuleType], source: Path) -> list[str]:
    """`module (file)` of every loaded module of the project that does not lie under `source`."""
    return sorted(
        f"{name} ({module.__file__})"
        for name, module in modules.items()
        if name.partition(".")[0] in ROOMS
        and getattr(module, "__file__", None)
        and not Path(str(module.__file__)).resolve().is_relative_to(source)
    )


def load_application(source: Path) -> FrontDoor:
    """The ASGI application of the Bento whose `src` is `source`. Raises: LaunchError."""
    if not (source.parent / "bento.yaml").is_file():
        raise LaunchError(f"{source} must be the src folder of a built Bento")
    import bentoml

    service: Any = bentoml.load(str(source.parent))
    bento_application = service.to_asgi(is_main=True)
    from services.serving.service import decide_endpoint

    if foreign := foreign_modules(sys.modules, source):
        raise LaunchError(f"the Bento must bring all of its own code: {', '.join(foreign)}")
    return FrontDoor(decide_endpoint, bento_application)


def require_signature(release_folder: Path, environment: Mapping[str, str]) -> None:
    """Raises: LaunchError without a file of trusted keys; ReleaseError, SignatureError."""
    trusted = environment.get(TRUSTED_KEYS_VARIABLE)
    if not trusted:
        raise LaunchError(f"'{TRUSTED_KEYS_VARIABLE}' must name the file of the keys that may sign releases")
    verify_release(read_release(release_folder), Path(trusted))


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve until SIGTERM; 2 when refused, with one line that says why."""
    parser = argparse.ArgumentParser(
        prog="services.serving.launch", description="Serve this Bento's release."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rehearsal", action="store_true", help=f"let {FAULT_VARIABLE} break this release")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if FAULT_VARIABLE in environment and not options.rehearsal:
        return _refuse([f"'{FAULT_VARIABLE}' must not be set without --rehearsal"])
    os.environ["TRIMTAB_REHEARSAL"] = "1" if options.rehearsal else "0"
    import uvicorn

    try:
        require_signature(SOURCE / "release", environment)
        application = load_application(SOURCE)
    except (LaunchError, FaultError, ReleaseError, SignatureError) as error:
        return _refuse([str(error)])
    # What is loaded by now stays: the garbage collector need not go through it again during a request, which took a
    # third of a batch's time. A batch makes some 7000 objects, none in a cycle: no need to look ten times meanwhile.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=LOOPBACK,
            port=options.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    server.run()
    return 0 if server.started else 1


def _refuse(reasons: Iterable[str]) -> int:
    for reason in reasons:
        print(f"refused: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))

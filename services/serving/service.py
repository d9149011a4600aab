"""The BentoML service of a release: a real Bento whose /decide is a mounted ASGI application.

BentoML gives the packaging, the life cycle and /readyz, /livez; the decision path itself goes around its
request machinery, tracing and metrics, because they cost several times the model (facts.md, and the README of
this folder). The settings come from the environment, read when BentoML creates the instance: nothing on
import. This file and assemble_bento.py alone import bentoml; neither may import torch.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from services.serving.decide_endpoint import DecideEndpoint
from services.serving.decider import Decider, Stamps
from services.serving.decision_log import DecisionLog
from services.serving.fault import FAULT_VARIABLE, Fault, parse_fault
from services.serving.release import ReleaseError, read_release

RELEASE_FOLDER = Path(__file__).resolve().parents[2] / "release"
LOGS_VARIABLE = "TRIMTAB_DECISION_LOGS"
LOG_KEY_VARIABLE = "TRIMTAB_LOG_KEY"
SWITCHES_VARIABLE = "TRIMTAB_SWITCHES"
REHEARSAL_VARIABLE = "TRIMTAB_REHEARSAL"  # set by the launcher's --rehearsal, by nothing else


@dataclass(frozen=True)
class ServingSettings:
    """Where decisions are logged and hashed fields have their key, where switched-off actions stand, and the fault of
    a rehearsal, if any."""

    decision_logs: Path
    log_key_file: Path | None
    fault: Fault | None
    switches_file: Path | None


def read_settings(environment: Mapping[str, str]) -> ServingSettings:
    """Raises: ReleaseError without a log folder or with a fault outside a rehearsal; FaultError."""
    logs = environment.get(LOGS_VARIABLE)
    if not logs:
        raise ReleaseError(f"'{LOGS_VARIABLE}' must name the folder of the decision logs")
    fault_text = environment.get(FAULT_VARIABLE)
    if fault_text and environment.get(REHEARSAL_VARIABLE) != "1":
        raise ReleaseError(f"'{FAULT_VARIABLE}' must not be set outside a rehearsal: {fault_text!r}")
    switches, log_key = environment.get(SWITCHES_VARIABLE), environment.get(LOG_KEY_VARIABLE)
    return ServingSettings(
        Path(logs),
        Path(log_key) if log_key else None,
        parse_fault(fault_text) if fault_text else None,
        Path(switches) if switches else None,
    )


def random_ids() -> Iterator[str]:
    """Ids of 128 random bits, drawn 256 at a time: a call to the operating system costs as much as twenty of them."""
    while True:
        drawn = os.urandom(16 * 256).hex()
        yield from (drawn[at : at + 32] for at in range(0, len(drawn), 32))


async def show_switches(_request: Request) -> JSONResponse:
    """Which actions are switched off in this process, and by which ledger entry: what `trimtab switch` reads back."""
    return JSONResponse(decide_endpoint.switches(), 200 if decide_endpoint.is_ready else 503)


async def show_log(_request: Request) -> JSONResponse:
    """What the decision log has written and missed since this process began."""
    return JSONResponse(decide_endpoint.log_status(), 200 if decide_endpoint.is_ready else 503)


decide_endpoint = DecideEndpoint()
decide_application = Starlette(
    routes=[
        Route("/decide", endpoint=decide_endpoint),
        Route("/switches", endpoint=show_switches),
        Route("/decision_log", endpoint=show_log),
    ]
)


@bentoml.service(
    name="trimtab_decisions",
    workers=1,
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    http={"host": "127.0.0.1"},
)
@bentoml.asgi_app(decide_application, path="/", name="decide")
class DecisionService:
    """Decides with the release that this Bento carries."""

    def __init__(self) -> None:
        settings = read_settings(os.environ)
        if settings.fault is not None:
            settings.fault.delay_start()
        release = read_release(RELEASE_FOLDER)
        log = DecisionLog(settings.decision_logs, release.id, pid=os.getpid())
        log.keep_synced()
        decider = Decider(
            release,
            log=log,
            log_key_file=settings.log_key_file,
            stamps=Stamps(
                clock=time.time,
                timer_ms=lambda: time.perf_counter() * 1000,
                new_id=random_ids().__next__,
            ),
            fault=settings.fault,
            switches_file=settings.switches_file,
        )
        decider.warm_up()
        decide_endpoint.open(decider)

    async def __is_ready__(self) -> bool:
        return decide_endpoint.is_ready

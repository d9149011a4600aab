"""Runs the control service of one home: HTTP, the weight sender, the shipper, the ledger's signed checkpoints.

`python -m services.control --home DIR --base-port N`, started by the supervisor. The store is the one that
TRIMTAB_DATABASE_URL names, which is how the composition root tells it the conductor's, else the home's own. Whatever
part fails for good ends the process, so that it is started anew as a whole; until then the proxy is back on stable by
itself.
Must never import: sqlalchemy, flows.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from services.control import token
from services.control.admission import TokenBook
from services.control.service import control_app
from services.control.slow_clients import MOST_CONNECTIONS, TimedProtocol
from services.control.state import ControlState
from services.control.token import TokenError
from services.home import LOOPBACK, Home, Ports
from services.ledger.checkpoints import Checkpointer
from services.ledger.ledger import LedgerError
from services.signing.keys import SignatureError, signer_of
from services.store.database import StoreError, open_database
from services.telemetry.events import log_event
from services.telemetry.shipper import Shipper, ShipReport, run_shipper
from services.traffic.errors import TrafficError
from services.traffic.rtds import WeightServer

LOGGER = logging.getLogger("services.control")
SHIP_INTERVAL_S = 0.25
CHECKPOINT_EVERY_S = 30.0
DATABASE_VARIABLE = "TRIMTAB_DATABASE_URL"
"""Not an argument of the command line: it may hold a password, and everybody sees those."""


def main(argv: list[str] | None, environment: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.control", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="state directory")
    parser.add_argument("--base-port", type=int, required=True, help="first port of the home's block")
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    home = Home(arguments.home.resolve(), Ports(arguments.base_port))
    try:
        return _run(home, environment.get(DATABASE_VARIABLE, home.database_url))
    except (StoreError, TokenError, SignatureError, TrafficError, OSError) as error:
        log_event(LOGGER, "control_failed", level=logging.ERROR, error=type(error).__name__, why=error)
        return 1


def _run(home: Home, database_url: str) -> int:
    token.load_or_create(home.token_file)
    book = TokenBook(home.token_file, home.issued_tokens_file, clock=time.time)
    db = open_database(database_url, folder=home.root)
    state = ControlState(home, db, clock=time.time)
    config = uvicorn.Config(
        control_app(state, book),
        host=LOOPBACK,
        port=home.ports.control,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        headers=[("cache-control", "no-store"), ("x-content-type-options", "nosniff")],
        lifespan="off",
        http=TimedProtocol,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    weights = WeightServer(
        home.ports.rtds,
        state.reader,
        on_error=lambda why: log_event(LOGGER, "weight_read_failed", level=logging.ERROR, why=why),
    )
    signer_of(home.keys, name=home.root.name)  # made now, and a key that cannot be used is told at the start
    checkpointer = Checkpointer(
        db, lambda: signer_of(home.keys, name=home.root.name), every_s=CHECKPOINT_EVERY_S
    )

    def shipped(report: ShipReport) -> None:
        state.shipped(report)
        _sign_ledger(checkpointer)

    shipper = Shipper(db, home.decision_logs, home.access_log, clock=time.time)
    stop = threading.Event()
    thread = threading.Thread(
        target=_ship, args=(shipper, stop, shipped, server), name="shipper", daemon=True
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda _number, _frame: None)
    weights.start()
    thread.start()
    log_event(LOGGER, "control_started", port=home.ports.control, rtds=home.ports.rtds, home=home.root)
    try:
        server.run()
    finally:
        failed = not thread.is_alive()
        stop.set()
        weights.stop()
        thread.join(timeout=5)
        _sign_ledger(checkpointer, at_once=True)
        db.close()
        log_event(LOGGER, "control_stopped", failed=failed)
    return 1 if failed or not server.started else 0


def _ship(
    shipper: Shipper, stop: threading.Event, shipped: Callable[[ShipReport], None], server: uvicorn.Server
) -> None:
    """Ship until told to stop; an error that nobody foresaw ends the whole process, visibly."""
    try:
        run_shipper(shipper, stop, interval_s=SHIP_INTERVAL_S, on_report=shipped)
    finally:
        server.should_exit = True


def _sign_ledger(checkpointer: Checkpointer, *, at_once: bool = False) -> None:
    """A checkpoint that cannot be written must not stop the shipper; the next pass tries again."""
    try:
        checkpointer.look(time.time(), at_once=at_once)
    except (LedgerError, SignatureError, OSError) as error:
        log_event(LOGGER, "checkpoint_failed", level=logging.ERROR, error=type(error).__name__, why=error)


if __name__ == "__main__":
    sys.exit(main(None, os.environ))

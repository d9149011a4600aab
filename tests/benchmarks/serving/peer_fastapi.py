"""A decision service written by hand with FastAPI and uvicorn: checks, scores, decides, logs before it answers.

The same function as the product's /decide for single rows. `peer_fastapi.py PORT RELEASE_FOLDER CONTRACT LOG_FILE`.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header
from hand_written import Answer, DecisionMaker, row_model


def application(folder: Path, contract: Path, log_file: Path) -> FastAPI:
    """The service."""
    maker, model = DecisionMaker(folder, log_file), row_model(contract)
    app = FastAPI()

    @app.post("/decide", response_model=Answer)
    async def decide(
        row: model,  # type: ignore[valid-type]
        x_unit_id: Annotated[str | None, Header()] = None,
        x_request_id: Annotated[str | None, Header()] = None,
    ) -> Any:
        return Answer(**maker.decide(row.model_dump(), unit=x_unit_id, request_id=x_request_id))  # type: ignore[attr-defined]

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(*(Path(one) for one in sys.argv[2:5])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )

"""The same network as a BentoML service without our code: its own input model, its own server; no log.

`bentoml serve peer_bentoml:Decisions`. Tracing, metrics and the access log as they come, or off with BENCH_TUNED=1.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
from hand_written import Network, row_model
from pydantic import BaseModel

FOLDER = Path(os.environ["BENCH_RELEASE"])
TUNED: dict[str, Any] = {
    "tracing": {"excluded_urls": ".*"},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
}
Row = row_model(FOLDER / "contract.yaml")


class Score(BaseModel):
    """What is answered."""

    score: float


@bentoml.service(name="bench", workers=1, **(TUNED if os.environ.get("BENCH_TUNED") == "1" else {}))
class Decisions:
    """One row in, its probability out."""

    def __init__(self) -> None:
        self.network = Network(FOLDER)

    @bentoml.api(route="/decide")
    async def decide(self, row: Row, /) -> Score:  # type: ignore[valid-type]
        return Score(score=self.network.probability(row.model_dump()))  # type: ignore[attr-defined]

"""The same network behind LitServe: one worker, no checks, no log. `peer_litserve.py PORT RELEASE_FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import litserve
from hand_written import Network


class Api(litserve.LitAPI):  # type: ignore[misc]
    """One row in, its probability out."""

    def setup(self, device: str) -> None:
        self.network = Network(Path(sys.argv[2]))

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def predict(self, x: dict[str, Any]) -> float:
        return self.network.probability(x)

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": output}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/decide"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )

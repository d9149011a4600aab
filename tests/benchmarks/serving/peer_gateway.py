"""The split of Envoy done by a Python gateway: sticky hash, one retry on stable, a line for every decision.

Starlette and aiohttp, raw bodies. `peer_gateway.py PORT UPSTREAM_PORT LOG_FILE`.
"""

import os
import sys
import time
from hashlib import blake2b

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WEIGHT = 5000


def application(upstream: int, log_file: str) -> Starlette:
    """The gateway; canary and stable are the same process here, as for every other proxy of the benchmark."""
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    urls = {name: f"http://127.0.0.1:{upstream}/decide" for name in ("stable", "canary")}
    sessions: list[aiohttp.ClientSession] = []

    async def forward(variant: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        marked = {**headers, "x-trimtab-assigned": variant, "content-type": "application/json"}
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        async with sessions[0].post(urls[variant], data=body, headers=marked) as answer:
            return answer.status, await answer.read()

    async def decide(request: Request) -> Response:
        started = time.perf_counter()
        unit = request.headers.get("x-unit-id", "")
        bucket = int.from_bytes(blake2b(f"{unit}:s1".encode(), digest_size=8).digest()) % 10000
        variant = "canary" if bucket >= 10000 - WEIGHT else "stable"
        body = await request.body()
        try:
            status, content = await forward(variant, body, {"x-unit-id": unit})
        except aiohttp.ClientError:
            status, content = 502, b""
        if status >= 500 and variant == "canary":
            status, content = await forward("stable", body, {"x-unit-id": unit})
        took_ms = (time.perf_counter() - started) * 1000
        record = {
            "unit": unit,
            "assigned": variant,
            "at": time.time(),
            "status": status,
            "duration_ms": took_ms,
        }
        os.write(log, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        return Response(content, status, media_type="application/json")

    return Starlette(routes=[Route("/decide", decide, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(
        application(int(sys.argv[2]), sys.argv[3]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )

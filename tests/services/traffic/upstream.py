"""A real small HTTP server standing in for a release: `upstream.py NAME PORT`.

POST /decide answers {"name", "headers", "bytes"}; GET /readyz 200; GET /seen the headers of every decision received;
POST /mode/ok|error|refuse|hang|slow says how /decide behaves (health stays fine).
"""

import asyncio
import json
import sys
from typing import Any

SEEN: list[dict[str, Any]] = []
MODE = ["ok"]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (raw := (await reader.readline()).decode("utf-8", "replace").strip()) != "":
        key, _, value = raw.partition(":")
        headers[key.lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif int(headers.get("content-length", "0")):
        body = await reader.readexactly(int(headers["content-length"]))
    return method, path, headers, body


async def answer(name: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
    if path == "/readyz":
        return 200, {"name": name}
    if path == "/seen":
        return 200, SEEN
    if path.startswith("/mode/"):
        MODE[0] = path.removeprefix("/mode/")
        return 200, MODE[0]
    mode = MODE[0]
    SEEN.append({"path": path, **headers})
    if mode == "hang":
        await asyncio.sleep(60)
    if mode == "slow":
        await asyncio.sleep(1.5)
    if mode == "refuse":
        return 400, {"name": name, "error": "refused"}
    if mode == "error":
        return 500, {"name": name, "error": "broken"}
    return 200, {"name": name, "headers": headers, "bytes": len(body)}


async def serve(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while (request := await read_request(reader)) is not None:
            _, path, headers, body = request
            status, value = await answer(name, path, headers, body)
            text = json.dumps(value).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                f"content-length: {len(text)}\r\n\r\n".encode()
                + text
            )
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(name: str, port: int) -> None:
    server = await asyncio.start_server(lambda r, w: serve(name, r, w), "127.0.0.1", port, limit=1 << 22)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

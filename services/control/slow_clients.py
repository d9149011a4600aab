"""HTTP connections that give up on clients which never finish sending their headers, or send too many.

uvicorn bounds how long a connection may be idle, and read_body how long and how large a body may be. Between them a
client that sends one header byte a minute would hold a connection, and a file descriptor, for ever; and one that sends
headers without end would fill the memory. Must never import: flows.
"""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_WITHIN_S = 10.0
MOST_HEADER_BYTES = 64 * 1024
MOST_CONNECTIONS = 256


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol; headers that are not complete in time, or in so many bytes, end the connection."""

    _headers_due: TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._headers_due is not None:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADERS_WITHIN_S, self.transport.close)

    def _headers_came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None
        self._header_bytes = 0

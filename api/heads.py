"""Bounds what stands before and after a request's body: the server would keep a head of any length in memory."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and headers, or of what follows a body: as h11, uvicorn's other parser, takes."""
_TOLD = b"the request line and headers are longer than 64 KiB"
_REFUSAL = b"".join(
    (
        STATUS_LINE[431],
        b"content-type: text/plain; charset=utf-8\r\n",
        b"content-length: %d\r\n" % len(_TOLD),
        b"connection: close\r\n\r\n",
        _TOLD,
    )
)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol; it ends a connection that sends more than so many bytes which are no body."""

    _beside_bodies = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Read on, and count what was no part of a body."""
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin to count anew."""
        self._beside_bodies, self._in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Begin to count anew."""
        self._beside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._beside_bodies, self._in_head = 0, True
        super().on_message_complete()

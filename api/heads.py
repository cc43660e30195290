"""Bounds what stands before and after a request's body: the server would keep a head of any length in memory."""

from typing import Final
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from models.schemas.envelope import ErrorBody, Failure

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and headers, or of what follows a body: as h11, uvicorn's other parser, takes."""
_TOLD = f"the request line and its headers are longer than {MAX_HEAD_BYTES // 1024} KiB: send fewer or shorter ones"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol; it ends a connection that sends more than so many bytes which are no body."""

    _beside_bodies = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(_refusal())
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._beside_bodies, self._in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._beside_bodies, self._in_head = 0, True
        super().on_message_complete()


def _refusal() -> bytes:
    """Write the answer by hand: there is no request yet that the application could answer."""
    error = ErrorBody(code="head_too_long", message=_TOLD, requestId=f"req_{uuid4().hex}")
    body = Failure(error=error).model_dump_json(exclude_none=True).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[431] + head + body

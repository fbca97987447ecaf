"""A small HTTP server for pages and probes: one request a connection, every length and every wait limited."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.errors import PortInUse

REQUEST_MAX_S = 5.0
CONNECTIONS_MAX = 256
LINE_BYTES_MAX = 8192
HEADERS_MAX = 100
BODY_BYTES_MAX = 65_536
STATUS_TEXT = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    421: "Misdirected Request",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """What came is no request that is served here; `status` is the answer."""

    def __init__(self, status: int = 400) -> None:
        super().__init__(STATUS_TEXT[status])
        self.status = status


@dataclass(frozen=True)
class Request:
    """One request; names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, with_body: bool = True) -> bytes:
        return head(self.status, self.content_type, self.headers, len(self.body)) + (self.body if with_body else b"")


def head(status: int, content_type: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    """The lines before a body; without a length it lasts until the connection ends."""
    lines = [f"HTTP/1.1 {status} {STATUS_TEXT[status]}", f"Content-Type: {content_type}", "Connection: close"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Reads one; raises BadRequest, or what a connection raises that ends or is too slow."""
    async with asyncio.timeout(REQUEST_MAX_S):
        try:
            method, target, _ = (await reader.readline()).decode("latin-1").split(" ", 2)
            parts = urlsplit(target)
            headers = await _read_headers(reader)
            length = int(headers.get("content-length", "0"))
        except ValueError:  # also of a line that is too long
            raise BadRequest from None
        if not 0 <= length <= BODY_BYTES_MAX:
            raise BadRequest(413)
        body = await reader.readexactly(length)
    query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20))
    return Request(method, unquote(parts.path), query, headers, body)


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(HEADERS_MAX):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    raise BadRequest


@contextlib.asynccontextmanager
async def listening(
    host: str,
    port: int,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    remedy: str,
) -> AsyncIterator[int]:
    """Serves connections while the block runs; yields the port. `remedy` ends the line about one that is taken."""
    serving: set[asyncio.Task] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await serve(reader, writer)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(serving) >= CONNECTIONS_MAX:
            return writer.close()
        task = asyncio.create_task(one(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    try:
        server = await asyncio.start_server(connected, host, port, limit=LINE_BYTES_MAX)
    except OSError as error:
        raise _refused(error, host, port, remedy) from None
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def _refused(error: OSError, host: str, port: int, remedy: str) -> PortInUse:
    if error.errno == errno.EADDRINUSE:
        why = "is in use by another process"
    elif error.errno is None or isinstance(error, socket.gaierror):
        why = "is no address of this machine"
    else:
        why = f"cannot be opened ({os.strerror(error.errno)})"
    return PortInUse(f"HTTP address {host}:{port} {why}: {remedy}")

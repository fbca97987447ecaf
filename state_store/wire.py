"""A connection that speaks RESP2 by itself: sending is split from waiting, and costs nothing per command.

The server answers requests in order, one reply each, so a connection only has to know how many replies are still
owed. Whoever stops waiting in the middle (timeout, cancellation) ends the connection: its next reply would belong to
somebody else's question.
"""

import asyncio
from typing import Any

import hiredis

from state_store.errors import StoreUnavailable, WrongServer
from state_store.refusals import unreachable

ServerError = hiredis.ReplyError
_INCOMPLETE = object()


def encode(*words: bytes | str) -> bytes:
    """Writes one command."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


class Connection(asyncio.Protocol):
    """One socket: requests out, replies in, counted."""

    def __init__(self, where: str):
        self.where = where
        self._transport: Any = None
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._reader.setmaxbuf(0)
        self._replies: list[Any] = []
        self._owed = 0  # Replies asked for that have not arrived.
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Exception | None = None

    @property
    def broken(self) -> bool:
        """True when nothing can be asked any more."""
        return self._fault is not None

    def send(self, request: bytes, replies: int) -> None:
        """Sends a request that will be answered by this many replies."""
        if self._fault is not None:
            raise self._fault
        self._owed += replies
        self._transport.write(request)

    async def receive(self, count: int, timeout_s: float) -> list[Any]:
        """Waits for the next replies; errors among them are values of type ServerError."""
        assert self._waiter is None, "only one may wait at a time"
        if len(self._replies) < count:
            await self._wait(count, timeout_s)
        taken = self._replies[:count]
        del self._replies[:count]
        return taken

    async def ask(self, request: bytes, replies: int, timeout_s: float) -> list[Any]:
        """Sends and waits."""
        self.send(request, replies)
        return await self.receive(replies, timeout_s)

    async def _wait(self, count: int, timeout_s: float) -> None:
        if self._fault is not None:
            raise self._fault
        loop = asyncio.get_running_loop()
        self._wanted, self._waiter = count, loop.create_future()
        late = loop.call_later(timeout_s, self._late)  # cheaper than asyncio.timeout, and once for each question
        try:
            await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            late.cancel()
            self._waiter = None

    def _late(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._fail(unreachable(TimeoutError(), self.where))

    def abort(self) -> None:
        """Ends the connection at once."""
        self._fail(StoreUnavailable(f"The connection to {self.where} is closed."))
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        self._fault = self._fault or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._fault)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(unreachable(exc or ConnectionResetError("closed by the server"), self.where))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._replies.append(reply)
                self._owed -= 1
        except hiredis.ProtocolError:
            self._refuse()
        if self._owed < 0:
            self._refuse()
        if self._waiter is not None and len(self._replies) >= self._wanted and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self) -> None:
        self._fail(WrongServer(f"{self.where} does not speak the Redis protocol: check host and port in the URL."))
        self._transport.abort()

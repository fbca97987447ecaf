"""Tells workers at once that there is something new: a small stream, read by each on a connection of its own.

News are hints. What is true is found by looking, which workers do every now and then anyway, so news that are lost,
come late or come twice do no harm.
"""

from state_store.refusals import refusal
from state_store.route import Route
from state_store.wire import Connection, ServerError, encode

DOCUMENT, NUMBERS = "document", "numbers"
NEWS_MAX = 100
READ_MAX = 100
ANSWER_S = 5.0  # beyond the time that the read may wait


class News:
    """One listener; after an error the next call connects anew."""

    def __init__(self, route: Route, key: str) -> None:
        self._route, self._key = route, key
        self._wire: Connection | None = None
        self._after = ""

    async def hear(self, wait_ms: int) -> set[str]:
        """What is new since the last time, as soon as there is something; empty when the time is over."""
        if self._wire is None or self._wire.broken:
            self._wire = await self._route.connect(self._key.encode())
        if not self._after:
            self._after = await self._newest()
        words = ("COUNT", str(READ_MAX), "BLOCK", str(wait_ms), "STREAMS", self._key, self._after)
        (reply,) = await self._ask(encode("XREAD", *words), wait_ms)
        if not reply:
            return set()
        entries = reply[0][1]
        self._after = entries[-1][0].decode()
        return {fields[1].decode(errors="replace") for _, fields in entries}

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def _newest(self) -> str:
        """Where the stream ends now; a stream that is not there yet has no news."""
        wire = self._wire
        assert wire is not None
        (about,) = await wire.ask(encode("XINFO", "STREAM", self._key), 1, ANSWER_S)
        if isinstance(about, ServerError):
            return "0-0"
        return dict(zip(about[0::2], about[1::2], strict=True))[b"last-generated-id"].decode()

    async def _ask(self, request: bytes, wait_ms: int) -> list:
        assert self._wire is not None
        replies = await self._wire.ask(request, 1, wait_ms / 1000 + ANSWER_S)
        if isinstance(replies[0], ServerError):
            self._wire.abort()
            error = refusal(str(replies[0]), str(self._wire.where))
            self._route.heed(error)
            raise error
        return replies

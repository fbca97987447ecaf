"""Reads what lies in the server as it is: whole logs, a page at a time, and plain answers to plain questions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from state_store.client import Address, Timeouts
from state_store.contract import START
from state_store.keys import Keys
from state_store.refusals import refusal
from state_store.wire import Connection, ServerError, encode

PAGE = 2000
Entry = tuple[bytes, dict[bytes, bytes]]


class Looking:
    """A connection for questions: one at a time, an error reply raised as ours."""

    def __init__(self, url: str, timeouts: Timeouts | None = None) -> None:
        self.address = Address.parse(url)
        self._timeouts = timeouts or Timeouts()
        self._wire: Connection | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "Looking":
        self._wire = await self.address.connect(self._timeouts)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def ask(self, *words: bytes | str) -> Any:
        """The answer to one command."""
        return (await self._exchange([words]))[0]

    async def together(self, *commands: Sequence[bytes | str]) -> list[Any]:
        """The answers to several commands as of one moment."""
        *queued, answers = await self._exchange([("MULTI",), *commands, ("EXEC",)])
        for answer in answers:
            self._raise_error(answer)
        return answers

    async def _exchange(self, commands: Sequence[Sequence[bytes | str]]) -> list[Any]:
        """Nothing is sent twice; only a connection that broke before is made anew."""
        async with self._turn:
            if self._wire is None or self._wire.broken:
                self._wire = await self.address.connect(self._timeouts)
            request = b"".join(encode(*words) for words in commands)
            replies = await self._wire.ask(request, len(commands), self._timeouts.reply_s)
        for reply in replies:
            self._raise_error(reply)
        return replies

    def _raise_error(self, reply: Any) -> None:
        if isinstance(reply, ServerError):
            raise refusal(str(reply), str(self.address))


class Logs:
    """The streams of one fleet."""

    def __init__(self, looking: Looking, namespace: str) -> None:
        self.looking, self.keys = looking, Keys(namespace)

    async def pages(
        self, partition: int, log: str, after: bytes = START, until: bytes = b"+"
    ) -> AsyncIterator[list[Entry]]:
        """Entries of `ticks`, `predictions` or `rejected` after an id, up to another or the present end."""
        key = getattr(self.keys.of(partition), log)
        while True:
            page = await self.looking.ask("XRANGE", key, b"(" + after, until, "COUNT", str(PAGE))
            if page:
                yield [_entry(raw) for raw in page]
                after = page[-1][0]
            if len(page) < PAGE:
                return

    async def entry(self, partition: int, log: str, entry_id: bytes) -> dict[bytes, bytes] | None:
        """The fields of one entry, if it is there."""
        found = await self.looking.ask("XRANGE", getattr(self.keys.of(partition), log), entry_id, entry_id)
        return _entry(found[0])[1] if found else None

    async def first_id(self, partition: int, log: str) -> bytes | None:
        """The oldest entry's id."""
        found = await self.looking.ask("XRANGE", getattr(self.keys.of(partition), log), "-", "+", "COUNT", "1")
        return found[0][0] if found else None


def _entry(raw: list) -> Entry:
    entry_id, fields = raw
    return entry_id, dict(zip(fields[0::2], fields[1::2], strict=False))

"""Reads what lies in Redis as it is: whole logs, a page at a time, and what the server says of itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from state_store import START
from state_store.client import Address, Timeouts
from state_store.keys import ASSET_BYTES_MAX, Keys
from state_store.refusals import refusal
from state_store.wire import Connection, ServerError, encode

PAGE = 2000
Entry = tuple[bytes, dict[bytes, bytes]]


class Looking:
    """A connection that only looks: one question, one plain answer."""

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self._timeouts = Timeouts()
        self._wire: Connection | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "Looking":
        self._wire = await self.address.connect(self._timeouts)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def ask(self, *words: bytes | str) -> Any:
        """The answer; a broken connection is made anew, since looking twice does no harm."""
        async with self._turn:
            if self._wire is None or self._wire.broken:
                self._wire = await self.address.connect(self._timeouts)
            reply = (await self._wire.ask(encode(*words), 1, self._timeouts.reply_s))[0]
        if isinstance(reply, ServerError):
            raise refusal(str(reply), str(self.address))
        return reply


class Logs:
    """The streams of one fleet."""

    def __init__(self, looking: Looking, namespace: str) -> None:
        self._looking, self._keys = looking, Keys(namespace)

    async def pages(
        self, partition: int, log: str, after: bytes = START, until: bytes = b"+"
    ) -> AsyncIterator[list[Entry]]:
        """Entries of `ticks`, `predictions` or `rejected` after an id, up to another or the present end."""
        key = getattr(self._keys.of(partition), log)
        while True:
            page = await self._looking.ask("XRANGE", key, b"(" + after, until, "COUNT", str(PAGE))
            if page:
                yield [(entry_id, dict(zip(fields[0::2], fields[1::2], strict=False))) for entry_id, fields in page]
                after = page[-1][0]
            if len(page) < PAGE:
                return


def asset_of(fields: dict[bytes, bytes]) -> str:
    """The asset's name as the dead letters have it; empty where a tick has none."""
    return fields.get(b"a", b"")[:ASSET_BYTES_MAX].decode("utf-8", "backslashreplace")


async def server_info(looking: Looking) -> dict[str, str]:
    """INFO as names and texts."""
    text = (await looking.ask("INFO")).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def server_time_s(looking: Looking) -> float:
    seconds, microseconds = await looking.ask("TIME")
    return int(seconds) + int(microseconds) / 1e6


async def server_config(looking: Looking, *names: str) -> dict[str, str]:
    """CONFIG GET, name by name, as servers before 7.0 want it."""
    found: dict[str, str] = {}
    for name in names:
        reply = [part.decode() for part in await looking.ask("CONFIG", "GET", name)]
        found.update(zip(reply[0::2], reply[1::2], strict=True))
    return found

"""Reads what lies in the server as it is: whole logs, a page at a time, and plain answers to plain questions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from state_store.client import Address, Timeouts
from state_store.contract import START, Meta
from state_store.errors import SlotMoved
from state_store.keys import Keys
from state_store.refusals import refusal
from state_store.route import Route
from state_store.slots import key_of
from state_store.wire import Connection, ServerError, encode

PAGE = 2000
Entry = tuple[bytes, dict[bytes, bytes]]


class Looking:
    """A connection for questions: one at a time, an error reply raised as ours."""

    def __init__(self, place: str | Address, timeouts: Timeouts | None = None) -> None:
        self.address = Address.parse(place) if isinstance(place, str) else place
        self.route = Route(self.address, timeouts or Timeouts())
        self._wires: dict[Address, Connection] = {}
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "Looking":
        await self._wire(self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        for wire in self._wires.values():
            wire.abort()

    async def ask(self, *words: bytes | str) -> Any:
        """The answer to one command."""
        return (await self._exchange(key_of(words), [words]))[0]

    async def each(self, *commands: Sequence[bytes | str]) -> list[Any]:
        """The answers to several commands, not of one moment; to a server that is alone they travel together."""
        if await self.route.is_cluster():
            return [await self.ask(*words) for words in commands]
        return await self._exchange(None, commands) if commands else []

    async def together(self, *commands: Sequence[bytes | str]) -> list[Any]:
        """The answers to several commands as of one moment."""
        key = key_of(tuple(commands[0]))
        *_, answers = await self._exchange(key, [("MULTI",), *commands, ("EXEC",)])
        for answer in answers:
            _raise_error(answer, str(self.address))
        return answers

    async def _exchange(self, key: bytes | None, commands: Sequence[Sequence[bytes | str]]) -> list[Any]:
        """Nothing is executed twice; only a connection that broke before is made anew."""

        async def attempt(address: Address, asking: bool) -> list[Any]:
            if asking and len(commands) > 1:  # ASKING holds for one command only.
                raise SlotMoved(f"{address} does not have all keys yet.")
            told = [("ASKING",), *commands] if asking else commands
            return (await self._exchange_at(address, told))[-len(commands) :]

        async with self._turn:
            return await self.route.follow(key, attempt)

    async def _exchange_at(self, address: Address, commands: Sequence[Sequence[bytes | str]]) -> list[Any]:
        wire = await self._wire(address)
        request = b"".join(encode(*words) for words in commands)
        replies = await wire.ask(request, len(commands), self.route.timeouts.reply_s)
        for reply in replies:
            _raise_error(reply, wire.where)
        return replies

    async def _wire(self, address: Address) -> Connection:
        if address not in self._wires or self._wires[address].broken:
            self._wires[address] = await address.connect(self.route.timeouts)
        return self._wires[address]


def _raise_error(reply: Any, where: str) -> None:
    if isinstance(reply, ServerError):
        raise refusal(str(reply), where)


class Logs:
    """The streams of one fleet, in one generation of its partitions."""

    def __init__(self, looking: Looking, namespace: str, generation: int = 0) -> None:
        self.looking, self.keys = looking, Keys(namespace, generation)

    def of(self, meta: Meta) -> "Logs":
        """Those of a fleet where `meta` says that it is."""
        return Logs(self.looking, self.keys.namespace, meta.generation)

    async def pages(
        self, partition: int, log: str, after: bytes = START, until: bytes = b"+"
    ) -> AsyncIterator[list[Entry]]:
        """Entries of `ticks`, `predictions` or `rejected` after an id, up to another or the present end."""
        key = getattr(self.keys.of(partition), log)
        while True:
            page = await self.looking.ask("XRANGE", key, b"(" + after, until, "COUNT", str(PAGE))
            if page:
                yield [entry_of(raw) for raw in page]
                after = page[-1][0]
            if len(page) < PAGE:
                return

    async def entry(self, partition: int, log: str, entry_id: bytes) -> dict[bytes, bytes] | None:
        """The fields of one entry, if it is there."""
        found = await self.looking.ask("XRANGE", getattr(self.keys.of(partition), log), entry_id, entry_id)
        return entry_of(found[0])[1] if found else None

    async def first_id(self, partition: int, log: str) -> bytes | None:
        """The oldest entry's id."""
        found = await self.looking.ask("XRANGE", getattr(self.keys.of(partition), log), "-", "+", "COUNT", "1")
        return found[0][0] if found else None


def entry_of(raw: list) -> Entry:
    """An entry as the server answers it."""
    entry_id, fields = raw
    return entry_id, dict(zip(fields[0::2], fields[1::2], strict=False))

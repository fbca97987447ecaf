"""Reads what lies in the server as it is: whole logs, a page at a time, and plain answers to plain questions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from state_store.client import UNHURRIED, Address, Timeouts
from state_store.contract import START, Meta, Probe, id_order, tick_fields
from state_store.errors import SlotMoved
from state_store.frames import Opened, is_frame, ticks_in
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
        self.route = Route(self.address, timeouts or UNHURRIED)
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
        """Entries of `ticks`, `predictions` or `rejected` after an id, up to another or the present end.

        Ticks of a frame come one by one, as if each had been sent alone.
        """
        key = getattr(self.keys.of(partition), log)
        while True:
            page = await self.looking.ask("XRANGE", key, b"(" + after, until, "COUNT", str(PAGE))
            entries: list[Entry] = []
            for raw in page:
                entries += ticks_of(raw, after) if log == "ticks" else [entry_of(raw)]
                after = raw[0]
                if len(entries) >= PAGE:
                    yield entries
                    entries = []
            if entries:
                yield entries
            if len(page) < PAGE:
                return

    async def ticks_gone(self, probe: Probe) -> int:
        """How many of a partition's ticks its log holds no more."""
        if not probe.framed or not probe.trimmed:
            return probe.trimmed
        cursor, kept = id_order(probe.cursor), 0  # What was cut off counts entries: the ticks are told by what is left.
        async for page in self.pages(probe.partition, "ticks"):
            applied = [fields for entry_id, fields in page if id_order(entry_id) <= cursor]
            kept += sum(ticks_in(list(chain.from_iterable(fields.items()))) for fields in applied)  # One may be broken.
            if id_order(page[-1][0]) > cursor:
                break
        return probe.applied - kept

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


def ticks_of(raw: list, after: bytes = START) -> list[Entry]:
    """The ticks of an entry after an id; those of a frame as if each had been sent alone."""
    entry_id, fields = raw
    if not is_frame(fields):
        return [entry_of(raw)]
    opened = Opened()
    opened.add(entry_id, fields, id_order(after))
    if opened.broken:
        return [entry_of(raw)]
    values, times_ns = np.frombuffer(b"".join(opened.values), "<f8"), np.frombuffer(b"".join(opened.times), "<i8")
    ticks = map(tick_fields, opened.assets, values, times_ns)
    return [entry_of([tick_id, tick]) for tick_id, tick in zip(opened.ids, ticks, strict=True)]

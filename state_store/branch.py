"""A reader's connection to one place: the predictions of partitions that lie together, and how far they were read.

A server that is alone has one branch for all partitions; in a Redis Cluster each partition has its own, since one XREAD
cannot span slots.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from state_store.contract import START, id_order
from state_store.errors import SlotMoved, StoreUnavailable
from state_store.keys import Keys
from state_store.refusals import refusal
from state_store.route import Route
from state_store.wire import Connection, ServerError, encode

COUNT_MAX = 512  # Predictions of each partition in one read.
LATEST, LAST = "latest", "$"


@dataclass(frozen=True, slots=True)
class RawPredictions:
    """Predictions of one partition as they lie in the stream: `p` is the packed payload."""

    partition: int
    ids: list[bytes]
    entries: list[dict[bytes, bytes]]
    generation: int = 0  # Of the partitions.

    def __len__(self) -> int:
        return len(self.ids)


class Branch:
    """Begins at `start` ("latest", "$" or an id for each partition) and reads on; one read at a time."""

    def __init__(self, route: Route, keys: Keys, partitions: Sequence[int], start: str | dict[int, bytes]):
        self.rollbacks = 0
        self.at_end = False  # The last read found nothing more.
        self.first: dict[int, bytes] = {}  # Where each partition began.
        self._route = route
        self._keys = keys
        self._partitions = partitions
        self._start = start
        self._wire: Connection | None = None
        self._begun = False
        self._cursors: dict[int, bytes] = {}
        self._reached: set[int] = set()  # Partitions whose cursor is an id that the server has held.
        self._rolled_back: set[int] = set()
        self._newest: dict[bytes, bytes] = {}  # Asset -> event time last given.
        self._ready: deque[RawPredictions] = deque()
        self._partition_of = {keys.of(partition).predictions: partition for partition in partitions}

    def close(self) -> None:
        """Ends the connection; the next read goes on from the same place."""
        if self._wire is not None:
            self._wire.abort()
        self._wire = None

    async def read(self, block_ms: int) -> list[RawPredictions]:
        """Reads what is there, or waits up to `block_ms` for it; may be cancelled at any time."""
        try:
            wire = await self.connected()
            if self._ready:
                ready = list(self._ready)
                self._ready.clear()
                return ready
            reply = (await wire.ask(self._request(block_ms), 1, self._route.timeouts.reply_s + block_ms / 1000))[0]
            _raise_error(reply, wire.where)
            self.at_end = reply is None
            if reply is None:
                await self._look_back(wire)
                return []
        except StoreUnavailable as error:
            self._route.heed(error)
            if isinstance(error, SlotMoved):
                self.close()
            raise
        return [raw for key, entries in reply if (raw := self._take(self._partition_of[key], entries))]

    def _request(self, block_ms: int) -> bytes:
        keys = [self._keys.of(partition).predictions for partition in self._cursors]
        block = ("BLOCK", str(block_ms)) if block_ms else ()
        return encode("XREAD", "COUNT", str(COUNT_MAX), *block, "STREAMS", *keys, *self._cursors.values())

    def _take(self, partition: int, entries: list) -> RawPredictions | None:
        """Moves the cursor behind these entries and leaves out those given before."""
        self._cursors[partition] = entries[-1][0]
        self._reached.add(partition)
        ids = [entry_id for entry_id, _ in entries]
        named = [dict(zip(fields[0::2], fields[1::2], strict=False)) for _, fields in entries]
        if partition in self._rolled_back:
            fresh = [place for place, fields in enumerate(named) if self._is_fresh(fields)]
            ids, named = [ids[place] for place in fresh], [named[place] for place in fresh]
        self._newest.update((fields.get(b"a", b""), fields.get(b"t", b"")) for fields in named)
        return RawPredictions(partition, ids, named, self._keys.generation) if ids else None

    def _is_fresh(self, fields: dict[bytes, bytes]) -> bool:
        given = self._newest.get(fields.get(b"a", b""))
        return given is None or int(fields[b"t"]) > int(given)

    async def connected(self) -> Connection:
        """Gives a connection; a new one first looks whether the server has gone back."""
        if self._wire is None or self._wire.broken:
            wire = await self._route.connect(self._keys.of(self._partitions[0]).predictions)
            try:
                await (self._look_back(wire) if self._begun else self._begin(wire))
            except BaseException:
                wire.abort()
                raise
            if not self._begun:
                self._begun, self.first = True, dict(self._cursors)
            self._wire = wire
        return self._wire

    async def _begin(self, wire: Connection) -> None:
        if self._start == LATEST:
            self._ready.clear()
            for partition in self._partitions:
                await self._take_latest(wire, partition)
        elif self._start == LAST:
            self._cursors = await self._last_ids(wire, self._partitions)
        else:
            assert isinstance(self._start, dict)
            self._cursors = dict(self._start)

    async def _take_latest(self, wire: Connection, partition: int) -> None:
        keys = self._keys.of(partition)
        inside = encode("HGETALL", keys.latest) + encode("XINFO", "STREAM", keys.predictions)
        request = encode("MULTI") + inside + encode("EXEC")
        result = (await wire.ask(request, 4, self._route.timeouts.reply_s))[3]
        _raise_error(result, wire.where)
        latest, info = result
        _raise_error(latest, wire.where)
        found = []
        for asset, value in zip(latest[0::2], latest[1::2], strict=True):
            entry_id, time_ns, payload = split_latest(value)
            found.append([entry_id, [b"a", asset, b"t", time_ns, b"p", payload]])
        found.sort(key=lambda entry: id_order(entry[0]))
        if found and (raw := self._take(partition, found)):
            self._ready.append(raw)
        self._cursors[partition] = _last_id(info, wire.where)

    async def _last_ids(self, wire: Connection, partitions: Sequence[int]) -> dict[int, bytes]:
        words = [encode("XINFO", "STREAM", self._keys.of(partition).predictions) for partition in partitions]
        replies = await wire.ask(b"".join(words), len(words), self._route.timeouts.reply_s)
        return {p: _last_id(reply, wire.where) for p, reply in zip(partitions, replies, strict=True)}

    async def _look_back(self, wire: Connection) -> None:
        """Goes back where the server's last id lies before what was already read from it."""
        reached = sorted(self._reached)
        for partition, last in (await self._last_ids(wire, reached)).items():
            if id_order(last) < id_order(self._cursors[partition]):
                self._cursors[partition] = last
                self._rolled_back.add(partition)
                self.rollbacks += 1


def _raise_error(reply: Any, where: str) -> None:
    if isinstance(reply, ServerError):
        raise refusal(str(reply), where)


def _last_id(info: Any, where: str) -> bytes:
    """Reads the last id out of XINFO STREAM; a stream that does not exist has none."""
    if isinstance(info, ServerError):
        if "no such key" in str(info):
            return START
        raise refusal(str(info), where)
    return dict(zip(info[0::2], info[1::2], strict=True))[b"last-generated-id"]


def split_latest(value: bytes) -> tuple[bytes, bytes, bytes]:
    """Takes a value of `latest` apart: tick id, event time, payload as it was packed."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    unpacker.read_array_header()
    entry_id = unpacker.unpack().encode()
    payload = value[unpacker.tell() :]
    return entry_id, b"%d" % msgpack.unpackb(payload).get("timestamp_ns", 0), payload

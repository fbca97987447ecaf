"""`PredictionReader`: follows the predictions of all partitions without a gap and without a repetition.

A late reader first gets each asset's newest prediction; that snapshot and the place to go on from are taken in one
transaction. After a failover the server's last id may lie before the one already read: then the reader goes back to
it, and leaves out what it has given before (an asset's event times only rise).
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import msgpack

from state_store.client import Address, Timeouts
from state_store.contract import START, Meta, id_order
from state_store.errors import BadUrl, FleetMissing, StoreUnavailable, WrongServer
from state_store.keys import Keys
from state_store.meta import decode_meta
from state_store.refusals import refusal
from state_store.wire import Connection, ServerError, encode

COUNT_MAX = 512  # Predictions of each partition in one read.


@dataclass(frozen=True, slots=True)
class Prediction:
    """One asset's forecast for its next value, made after one tick."""

    partition: int
    tick_id: str
    asset: str
    timestamp_ns: int
    reference_prediction: float
    confidence_lower: float
    confidence_upper: float
    quantiles: tuple[float, ...]
    operating_mode: int
    events: int
    depth: int
    made_by: bytes
    telemetry_names: tuple[str, ...]
    telemetry_values: tuple[float, ...]
    request_id: str | None = None

    @property
    def telemetry(self) -> dict[str, float]:
        """The telemetry by name."""
        return dict(zip(self.telemetry_names, self.telemetry_values, strict=True))


@dataclass(frozen=True, slots=True)
class RawPredictions:
    """Predictions of one partition as they lie in the stream: `p` is the packed payload."""

    partition: int
    ids: list[bytes]
    entries: list[dict[bytes, bytes]]

    def __len__(self) -> int:
        return len(self.ids)


class PredictionReader:
    """Use as `async for prediction in PredictionReader(url)`, within `async with` when you may leave early.

    `start` is "latest" (the newest of each asset, then all that follow), "$" (only what follows), "0" (all that is
    kept), a tick id, or a tick id for each partition.
    """

    def __init__(
        self,
        url: str,
        namespace: str = "usp",
        start: str | bytes | Mapping[int, str | bytes] = "latest",
        partitions: Sequence[int] | None = None,
        *,
        block_ms: int = 1000,
        timeouts: Timeouts | None = None,
    ):
        self.rollbacks = 0
        self.meta: Meta | None = None
        self._address = Address.parse(url)
        self._keys = Keys(namespace)
        self._start = start
        self._partitions = partitions
        self._block_ms = block_ms
        self._timeouts = timeouts or Timeouts()
        self._wire: Connection | None = None
        self._cursors: dict[int, bytes] = {}
        self._reached: set[int] = set()  # Partitions whose cursor is an id that the server has held.
        self._rolled_back: set[int] = set()
        self._newest: dict[bytes, bytes] = {}  # Asset -> event time last given.
        self._ready: deque[RawPredictions] = deque()
        self._names: tuple[str, ...] = ()
        self._partition_of: dict[bytes, int] = {}  # By the key of its predictions.

    async def __aenter__(self) -> "PredictionReader":
        await self._connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; reading again goes on from the same place."""
        if self._wire is not None:
            self._wire.abort()
        self._wire = None

    async def __aiter__(self) -> AsyncIterator[Prediction]:
        async for raw in self.batches():
            for prediction in self.decode(raw):
                yield prediction

    async def batches(self) -> AsyncIterator[RawPredictions]:
        """Yields the predictions undecoded, a partition's batch at a time; for those who count or store them."""
        try:
            while True:
                for raw in await self.read_raw():
                    yield raw
        finally:
            await self.close()

    async def read(self, block_ms: int | None = None) -> list[Prediction]:
        """Reads what is there, or waits up to `block_ms` for it; may be cancelled at any time."""
        return [prediction for raw in await self.read_raw(block_ms) for prediction in self.decode(raw)]

    async def read_raw(self, block_ms: int | None = None) -> list[RawPredictions]:
        """Like `read`, undecoded."""
        wire = await self._connected()
        if self._ready:
            ready = list(self._ready)
            self._ready.clear()
            return ready
        block_ms = self._block_ms if block_ms is None else block_ms
        reply = (await wire.ask(self._request(block_ms), 1, self._timeouts.reply_s + block_ms / 1000))[0]
        self._raise_error(reply)
        if reply is None:
            await self._look_back(wire)
            return []
        return [raw for key, entries in reply if (raw := self._take(self._partition_of[key], entries))]

    def decode(self, raw: RawPredictions) -> list[Prediction]:
        """Decodes predictions."""
        return [
            self._decode(raw.partition, entry_id, named)
            for entry_id, named in zip(raw.ids, raw.entries, strict=True)
        ]

    def _decode(self, partition: int, entry_id: bytes, named: dict[bytes, bytes]) -> Prediction:
        request = named.get(b"r")
        try:
            made = msgpack.unpackb(named[b"p"])
            return Prediction(
                partition=partition,
                tick_id=entry_id.decode(),
                asset=named[b"a"].decode(),
                timestamp_ns=made["timestamp_ns"],
                reference_prediction=made["reference_prediction"],
                confidence_lower=made["confidence_lower"],
                confidence_upper=made["confidence_upper"],
                quantiles=tuple(made["quantiles"]),
                operating_mode=made["operating_mode"],
                events=made["events"],
                depth=made["depth"],
                made_by=made["made_by"],
                telemetry_names=self._names,
                telemetry_values=tuple(made["telemetry"]),
                request_id=None if request is None else request.decode(errors="replace"),
            )
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            place = f"{self._keys.of(partition).predictions.decode()} {entry_id.decode()}"
            raise WrongServer(f"The prediction {place} cannot be decoded ({error!r}): who wrote it?") from error

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
        return RawPredictions(partition, ids, named) if ids else None

    def _is_fresh(self, fields: dict[bytes, bytes]) -> bool:
        given = self._newest.get(fields.get(b"a", b""))
        return given is None or int(fields[b"t"]) > int(given)

    async def _connected(self) -> Connection:
        """Gives a connection; a new one first looks whether the server has gone back."""
        if self._wire is None or self._wire.broken:
            wire = await self._address.connect(self._timeouts)
            try:
                if self.meta is None:
                    await self._begin(wire)
                else:
                    await self._look_back(wire)
            except BaseException:
                wire.abort()
                raise
            self._wire = wire
        return self._wire

    async def _begin(self, wire: Connection) -> None:
        meta = await self._read_meta(wire)
        self._names = tuple(meta.fields.get("telemetry", ()))
        partitions = list(range(meta.partitions) if self._partitions is None else self._partitions)
        self._partition_of = {self._keys.of(partition).predictions: partition for partition in partitions}
        if self._start == "latest":
            for partition in partitions:
                await self._take_latest(wire, partition)
        elif self._start == "$":
            self._cursors = await self._last_ids(wire, partitions)
        else:
            self._cursors = {partition: self._start_of(partition) for partition in partitions}
        self.meta = meta

    def _start_of(self, partition: int) -> bytes:
        start = self._start.get(partition, START) if isinstance(self._start, Mapping) else self._start
        text = start.encode() if isinstance(start, str) else start
        try:
            id_order(text)
        except ValueError:
            raise BadUrl(f"{start!r} is no place to start from: take latest, $, 0 or a tick id like 1700-0.") from None
        return text

    async def _read_meta(self, wire: Connection) -> Meta:
        kept = (await wire.ask(encode("HGETALL", self._keys.meta), 1, self._timeouts.reply_s))[0]
        self._raise_error(kept)
        fleet = f"The fleet '{self._keys.namespace}' at {self._address}"
        if not kept:
            raise FleetMissing(f"{fleet} does not exist yet: make it with `predictor init`.")
        return decode_meta(dict(zip(kept[0::2], kept[1::2], strict=True)), fleet)

    async def _take_latest(self, wire: Connection, partition: int) -> None:
        keys = self._keys.of(partition)
        inside = encode("HGETALL", keys.latest) + encode("XINFO", "STREAM", keys.predictions)
        request = encode("MULTI") + inside + encode("EXEC")
        result = (await wire.ask(request, 4, self._timeouts.reply_s))[3]
        self._raise_error(result)
        latest, info = result
        self._raise_error(latest)
        found = []
        for asset, value in zip(latest[0::2], latest[1::2], strict=True):
            entry_id, time_ns, payload = _split_latest(value)
            found.append([entry_id, [b"a", asset, b"t", time_ns, b"p", payload]])
        found.sort(key=lambda entry: id_order(entry[0]))
        if found and (raw := self._take(partition, found)):
            self._ready.append(raw)
        self._cursors[partition] = _last_id(info)

    async def _last_ids(self, wire: Connection, partitions: Sequence[int]) -> dict[int, bytes]:
        words = [encode("XINFO", "STREAM", self._keys.of(partition).predictions) for partition in partitions]
        replies = await wire.ask(b"".join(words), len(words), self._timeouts.reply_s)
        return dict(zip(partitions, map(_last_id, replies), strict=True))

    async def _look_back(self, wire: Connection) -> None:
        """Goes back where the server's last id lies before what was already read from it."""
        reached = sorted(self._reached)
        for partition, last in (await self._last_ids(wire, reached)).items():
            if id_order(last) < id_order(self._cursors[partition]):
                self._cursors[partition] = last
                self._rolled_back.add(partition)
                self.rollbacks += 1

    def _raise_error(self, reply: Any) -> None:
        if isinstance(reply, ServerError):
            raise refusal(str(reply), str(self._address))


def _last_id(info: Any) -> bytes:
    """Reads the last id out of XINFO STREAM; a stream that does not exist has none."""
    if isinstance(info, ServerError):
        if "no such key" in str(info):
            return START
        raise StoreUnavailable(f"XINFO answered '{info}'.")
    return dict(zip(info[0::2], info[1::2], strict=True))[b"last-generated-id"]


def _split_latest(value: bytes) -> tuple[bytes, bytes, bytes]:
    """Takes a value of `latest` apart: tick id, event time, payload as it was packed."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    unpacker.read_array_header()
    entry_id = unpacker.unpack().encode()
    payload = value[unpacker.tell() :]
    return entry_id, b"%d" % msgpack.unpackb(payload).get("timestamp_ns", 0), payload

"""`PredictionReader`: follows the predictions of all partitions without a gap and without a repetition.

A late reader first gets each asset's newest prediction; that snapshot and the place to go on from are taken in one
transaction. After a failover the server's last id may lie before the one already read: then the reader goes back to
it, and leaves out what it has given before (an asset's event times only rise). When the fleet got another number of
partitions, the old ones are read to their ends, and then the next ones from their beginning.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType

import msgpack

from state_store.branch import LAST, LATEST, Branch, RawPredictions
from state_store.client import Address, Timeouts
from state_store.contract import START, Meta, id_order
from state_store.errors import BadUrl, FleetMismatch, StoreUnavailable, WrongServer
from state_store.keys import Keys, tag_of
from state_store.meta import look_at_fleet
from state_store.route import Route

AWAY_S_MAX = 30.0  # A node of a cluster may be away for a failover before reading fails.
AWAY_PAUSE_S = 0.1
LOOK_EVERY_S = 1.0  # Whether the fleet has other partitions, while nothing comes.
AT_ONCE_S = 0.25  # What a read that does not wait gives the nodes of a cluster to answer.


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
    generation: int = 0  # Of the partitions: how often their number had been changed.

    @property
    def telemetry(self) -> dict[str, float]:
        """The telemetry by name."""
        return dict(zip(self.telemetry_names, self.telemetry_values, strict=True))


class PredictionReader:
    """Use as `async for prediction in PredictionReader(url)`, within `async with` when you may leave early.

    `start` is "latest" (the newest of each asset, then all that follow), "$" (only what follows), "0" (all that is
    kept), a tick id, a tick id for each partition, or the `positions` of an earlier reader. Whoever reads only some
    `partitions` is told by FleetMismatch when their numbers come to mean other assets.
    """

    def __init__(
        self,
        url: str,
        namespace: str = "usp",
        start: str | bytes | Mapping[int, str | bytes] | Mapping[str, str | bytes] = "latest",
        partitions: Sequence[int] | None = None,
        *,
        block_ms: int = 1000,
        timeouts: Timeouts | None = None,
    ):
        self.meta: Meta | None = None
        self._address = Address.parse(url)
        self._keys = Keys(namespace)
        self._start = start
        self._partitions = partitions
        self._block_ms = block_ms
        self._route = Route(self._address, timeouts or Timeouts())
        self._names: tuple[str, ...] = ()
        self._branches: list[Branch] = []
        self._reading: dict[Branch, asyncio.Task[list[RawPredictions]]] = {}  # In a cluster, all at once.
        self._away_since: dict[Branch, float] = {}
        self._ready: deque[RawPredictions] = deque()
        self._given: dict[int, bytes] = {}
        self._rollbacks_before = 0  # In earlier generations of partitions.
        self._fleet: Meta | None = None  # Where the fleet is; behind it, as `meta` says, what is read now.
        self._looked = -LOOK_EVERY_S

    @property
    def rollbacks(self) -> int:
        """How often a server had gone back behind what was read."""
        return self._rollbacks_before + sum(branch.rollbacks for branch in self._branches)

    @property
    def positions(self) -> dict[str, str]:
        """How far all that `read` gave reaches, by partition; another reader can start there, also after a restart."""
        reached = {p: entry_id for branch in self._branches for p, entry_id in branch.first.items()} | self._given
        return {tag_of(self._keys.generation, p): entry_id.decode() for p, entry_id in sorted(reached.items())}

    async def __aenter__(self) -> "PredictionReader":
        await self._begun()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections; reading again goes on from the same place."""
        await self._stop_reading()
        for branch in self._branches:
            branch.close()

    async def _stop_reading(self) -> None:
        """What was read already is given later."""
        for task in self._reading.values():
            task.cancel()
        for raws in await asyncio.gather(*self._reading.values(), return_exceptions=True):
            self._ready.extend(raws if isinstance(raws, list) else ())
        self._reading.clear()

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
        fleet, meta = await self._begun()
        if not self._ready and meta.generation < fleet.generation:
            await self._read_out(fleet, meta)
        elif not self._ready:
            self._ready += await self._read_on(self._block_ms if block_ms is None else block_ms)
            if not self._ready:
                await self._look_out(fleet)
        found = list(self._ready)
        self._ready.clear()
        self._given.update((raw.partition, raw.ids[-1]) for raw in found)
        return found

    async def _read_on(self, block_ms: int) -> list[RawPredictions]:
        if await self._route.is_cluster():
            return await self._read_all(block_ms)
        return await self._branches[0].read(block_ms)

    async def _look_out(self, fleet: Meta) -> None:
        """Nothing came: the fleet may have other partitions now. A server that is away is asked again later."""
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        with suppress(StoreUnavailable):
            fleet, _ = await look_at_fleet(self._route, self._keys)
        if fleet.generation > self._keys.generation and self._partitions is not None:
            raise FleetMismatch(
                f"The fleet '{self._keys.namespace}' has {fleet.partitions} partitions now, and their numbers mean "
                "other assets than those asked for: choose anew."
            )
        self._fleet = fleet

    async def _read_out(self, fleet: Meta, meta: Meta) -> None:
        """Reads what partitions of the past still have, to which nobody adds; at their ends the next ones begin."""
        await self._stop_reading()
        for branch in self._branches:
            self._ready += await branch.read(0)
        if not self._ready and all(branch.at_end for branch in self._branches):
            await self._enter(fleet, max(meta.generation + 1, fleet.oldest), began=True)

    def decode(self, raw: RawPredictions) -> list[Prediction]:
        """Decodes predictions."""
        return [
            self._decode(raw, entry_id, named) for entry_id, named in zip(raw.ids, raw.entries, strict=True)
        ]

    def _decode(self, raw: RawPredictions, entry_id: bytes, named: dict[bytes, bytes]) -> Prediction:
        request = named.get(b"r")
        try:
            made = msgpack.unpackb(named[b"p"])
            return Prediction(
                partition=raw.partition,
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
                generation=raw.generation,
            )
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            keys = replace(self._keys, generation=raw.generation).of(raw.partition)
            place = f"{keys.predictions.decode()} {entry_id.decode()}"
            raise WrongServer(f"The prediction {place} cannot be decoded ({error!r}): who wrote it?") from error

    async def _begun(self) -> tuple[Meta, Meta]:
        """Where the fleet is, and what is read now."""
        if self._fleet is None or self.meta is None:
            fleet, _ = await look_at_fleet(self._route, self._keys)
            await self._enter(fleet, self._first_generation(fleet))
        assert self._fleet is not None and self.meta is not None
        return self._fleet, self.meta

    def _first_generation(self, fleet: Meta) -> int:
        """The generation of partitions in which `start` lies, as far as it is kept."""
        if self._start in (LATEST, LAST) or self._partitions is not None:
            return fleet.generation
        if not isinstance(self._start, Mapping):
            return fleet.oldest
        tagged = {_place_of(place)[0] for place in self._start}
        if len(tagged) > 1 or max(tagged, default=0) > fleet.generation:
            raise BadUrl(f"The places {dict(self._start)!r} are not of one time of this fleet: start elsewhere.")
        return max(fleet.oldest, *tagged) if tagged else fleet.generation

    async def _enter(self, fleet: Meta, generation: int, began: bool = False) -> None:
        """Reads the partitions of one generation from now on; after those before, they begin at their beginning."""
        meta, keys = fleet.of(generation), replace(self._keys, generation=generation)
        partitions = list(range(meta.partitions) if self._partitions is None else self._partitions)
        shares = [[each] for each in partitions] if await self._route.is_cluster() else [partitions]
        starts = [self._start_of(share, generation, began) for share in shares]
        branches = [Branch(self._route, keys, *each) for each in zip(shares, starts, strict=True)]
        try:
            await asyncio.gather(*(branch.connected() for branch in branches))
        except BaseException:
            for branch in branches:
                branch.close()
            raise
        self._rollbacks_before = self.rollbacks
        for branch in self._branches:
            branch.close()
        self._names = tuple(meta.fields.get("telemetry", ()))
        self._branches, self._keys, self._fleet, self.meta = branches, keys, fleet, meta
        self._given.clear()
        self._away_since.clear()

    def _start_of(self, partitions: Sequence[int], generation: int, began: bool) -> str | dict[int, bytes]:
        if self._start in (LATEST, LAST) and not began:
            return str(self._start)
        return {partition: self._id_of(partition, generation) for partition in partitions}

    def _id_of(self, partition: int, generation: int) -> bytes:
        start = self._start
        if isinstance(start, Mapping):
            places = {_place_of(place): entry_id for place, entry_id in start.items()}
            start = places.get((generation, partition), START)
        elif start in (LATEST, LAST):
            start = START
        text = start.encode() if isinstance(start, str) else start
        try:
            id_order(text)
        except ValueError:
            raise BadUrl(f"{start!r} is no place to start from: take latest, $, 0 or a tick id like 1700-0.") from None
        return text

    async def _read_all(self, block_ms: int) -> list[RawPredictions]:
        """Reads all branches at the same time, and gives what comes first: a slow node holds up only its own."""
        deadline = time.monotonic() + max(block_ms / 1000, AT_ONCE_S)
        until = asyncio.FIRST_COMPLETED if block_ms else asyncio.ALL_COMPLETED
        while True:
            for branch in self._branches:
                if branch not in self._reading:
                    self._reading[branch] = asyncio.create_task(self._read_one(branch, block_ms))
            left_s = max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait(self._reading.values(), timeout=left_s, return_when=until)
            found = self._taken()
            if found or not done or not block_ms:
                return found

    def _taken(self) -> list[RawPredictions]:
        """Takes over what was read; raises what stands in the way only when there is nothing."""
        found: list[RawPredictions] = []
        failed = None
        for branch, task in list(self._reading.items()):
            if task.done() and task.exception() is None:
                found += self._reading.pop(branch).result()
            elif task.done():
                failed = branch
        if failed is not None and not found:
            self._reading.pop(failed).result()
        return found

    async def _read_one(self, branch: Branch, block_ms: int) -> list[RawPredictions]:
        try:
            found = await branch.read(block_ms)
        except StoreUnavailable:
            if time.monotonic() - self._away_since.setdefault(branch, time.monotonic()) > AWAY_S_MAX:
                del self._away_since[branch]
                raise
            await asyncio.sleep(AWAY_PAUSE_S)
            return []
        self._away_since.pop(branch, None)
        return found


def _place_of(place: int | str) -> tuple[int, int]:
    """Generation and partition of a place: `3`, `"3"` or `"1.3"`, as in the braces of its keys."""
    generation, dot, partition = str(place).rpartition(".")
    try:
        return int(generation) if dot else 0, int(partition)
    except ValueError:
        raise BadUrl(f"{place!r} is no partition: take a number, or GENERATION.NUMBER.") from None

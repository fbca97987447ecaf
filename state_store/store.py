"""The store in Redis: fleet-wide matters by `control`, each held partition by its own two connections."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any

from state_store.client import Address, Timeouts
from state_store.contract import (
    Carried,
    Commit,
    ConfigGeneration,
    Control,
    Held,
    Lease,
    Meta,
    Outcome,
    Probe,
    Retention,
    Ticks,
    WorkerInfo,
)
from state_store.control import FleetControl
from state_store.errors import FleetMissing, MoveRefused
from state_store.keys import Keys
from state_store.lease import decode_lease
from state_store.moving import Moving, next_meta, not_begun
from state_store.nodes import Nodes
from state_store.partition import Partition
from state_store.route import Route
from state_store.ticks import AssetCheck


class RedisStateStore:
    """Keeps the contract of `StateStore` in a Redis server."""

    def __init__(
        self,
        url: str,
        namespace: str = "usp",
        *,
        retention: Retention | None = None,
        timeouts: Timeouts | None = None,
    ):
        self.address = Address.parse(url)
        self.keys = Keys(namespace)
        self.retention = retention or Retention()
        self.timeouts = timeouts or Timeouts()
        self.route = Route(self.address, self.timeouts)
        self._control = FleetControl(Nodes(self.route), self.keys, str(self.address))
        self._partitions: dict[int, Partition] = {}
        self._checks: dict[int, AssetCheck] = {}
        self._nonces: dict[int, bytes] = {}  # Of acquisitions whose reply was lost: asked again with the same.
        self._followed: Meta | None = None  # Says which generation of partitions this store works on.

    async def open_fleet(self, partitions: int, layout: bytes, fields: Mapping[str, Any]) -> Meta:
        return await self.open_as(Meta(partitions, layout, dict(fields)))

    async def open_as(self, wanted: Meta) -> Meta:
        """Like `open_fleet`; a fleet that is made here begins in the generation that is wanted."""
        meta = await self._control.open_fleet(wanted)
        if self._followed is None:
            self.follow(meta)
        return meta

    async def read_meta(self) -> Meta:
        meta = await self._control.read_meta()
        if self._followed is None:
            self.follow(meta)
        return meta

    def follow(self, meta: Meta) -> None:
        self.keys = self._control.keys = replace(self.keys, generation=meta.generation)
        self._followed = meta
        for held in self._partitions.values():
            held.close()
        for each in (self._partitions, self._checks, self._nonces):
            each.clear()

    async def _orient(self) -> None:
        """A fleet that is not there yet has its first generation to come."""
        if self._followed is None:
            with suppress(FleetMissing):
                await self.read_meta()

    async def _current(self) -> tuple[Meta, Moving]:
        meta = await self.read_meta()
        return meta, Moving(self._control.call, self.keys, self._control.probe, self.route)

    async def begin_move(self, partitions: int) -> Meta:
        meta, moving = await self._current()
        if next_meta(meta, partitions).generation == self.keys.generation:
            await moving.begin(partitions)
        return next_meta(await self.read_meta(), partitions)

    async def close_partition(self, partition: int) -> Probe:
        meta, moving = await self._current()
        if meta.generation == self.keys.generation and not meta.next_partitions:
            raise not_begun()
        return await moving.close(partition)

    async def carry(self, partition: int) -> Carried:
        meta, moving = await self._current()
        if meta.generation != self.keys.generation:  # Somebody else has ended the move.
            return Carried(0, 0)
        return await moving.carry(partition, meta)

    async def end_move(self) -> Meta:
        meta, moving = await self._current()
        try:
            if meta.generation == self.keys.generation:
                await moving.end(meta)
        except MoveRefused:  # Once somebody else has ended it, workers write to what was counted.
            if (await self.read_meta()).generation == meta.generation:
                raise
        return await self.read_meta()

    async def forget_past(self) -> Meta:
        meta, moving = await self._current()
        await moving.forget(meta)
        return await self.read_meta()

    async def acquire(self, partition: int, worker: str, ttl_ms: int) -> Lease | Held:
        await self._orient()
        nonce = self._nonces.setdefault(partition, token_hex(16).encode())
        keys = self.keys.of(partition)
        reply = await self._control.lease("acquire", keys, worker, nonce, ttl_ms)
        answer, _, _ = decode_lease(partition, reply, ttl_ms, keys.control)
        if isinstance(answer, Lease):
            answer = await self._hold(answer)
        self._nonces.pop(partition, None)
        return answer

    async def _hold(self, lease: Lease) -> Lease | Held:
        """Opens the connections of a fresh lease, and looks whether it is still mine under the watch."""
        held = self._partition(lease.partition)
        held.close()
        control = await held.hold()
        if (control.epoch, control.nonce) == (lease.epoch, lease.nonce):
            return lease
        held.close()
        return Held(lease.partition, "", 0, control.cursor)

    async def renew(self, lease: Lease) -> Lease | Held:
        held = self._partition(lease.partition)
        renewed = await held.renew(lease)
        if isinstance(renewed, Held):
            held.close()
        return renewed

    async def release(self, lease: Lease) -> None:
        held = self._partition(lease.partition)
        try:
            await held.release(lease)
        finally:
            held.close()

    async def want(self, partition: int, worker: str) -> None:
        await self._orient()
        await self._control.lease("want", self.keys.of(partition), worker)

    def seen(self, partition: int) -> Control:
        return self._partition(partition).control

    async def read(self, partition: int, after: bytes, count: int, block_ms: int) -> Ticks:
        check = await self._check(partition)
        return await self._partition(partition).read(after, count, block_ms, check)

    async def _check(self, partition: int) -> AssetCheck:
        """Asks the node with the fleet's keys only where nothing was asked of it before."""
        if partition not in self._checks:
            meta = self._followed or await self.read_meta()
            self._checks[partition] = AssetCheck(partition, meta.partitions)
        return self._checks[partition]

    async def load(self, partition: int, assets: list[bytes]) -> list[bytes | None]:
        await self._orient()
        return await self._partition(partition).load(assets)

    async def predictions(self, partition: int, after: bytes, until: bytes) -> dict[bytes, bytes]:
        await self._orient()
        return await self._partition(partition).predictions(after, until)

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        return await self._partition(lease.partition).commit(lease, commit)

    async def make_room(self, partition: int) -> int:
        await self._orient()
        return await self._partition(partition).make_room()

    def lie_together(self, one: int, other: int) -> bool:
        return self.route.guess(self.keys.of(one).ticks) == self.route.guess(self.keys.of(other).ticks)

    async def probe(self, partition: int) -> Probe:
        await self._orient()
        return await self._control.probe(partition)

    async def register_worker(self, name: str, info: Mapping[str, Any]) -> None:
        await self._control.register_worker(name, info)

    async def deregister_worker(self, name: str) -> None:
        await self._control.deregister_worker(name)

    async def workers(self) -> list[WorkerInfo]:
        return await self._control.workers()

    async def read_config(self) -> ConfigGeneration:
        return await self._control.read_config()

    async def config_history(self) -> list[ConfigGeneration]:
        return await self._control.config_history()

    async def publish_config(self, known: int, values: Mapping[str, Any]) -> int | None:
        return await self._control.publish_config(known, values)

    async def append_audit(self, event: Mapping[str, Any]) -> bytes:
        return await self._control.append_audit(event)

    async def close(self) -> None:
        for held in self._partitions.values():
            held.close()
        self._partitions.clear()
        await self._control.client.aclose()

    def _partition(self, partition: int) -> Partition:
        if partition not in self._partitions:
            keys = self.keys.of(partition)
            self._partitions[partition] = Partition(partition, keys, self.route, self.retention)
        return self._partitions[partition]

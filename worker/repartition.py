"""Leads a running fleet to another number of partitions, and says on the way what it waits for.

Every step of the store may be repeated, so this begins wherever an earlier run was killed.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from state_store import Meta, PartitionSealed, Probe, StateStore
from state_store.logs import Logs, Looking
from worker.errors import BadInput
from worker.exits import notice
from worker.reach import open_store
from worker.settings import Settings

LOOK_EVERY_S = 0.05  # At first; then after a twentieth of the time that it has taken so far.
TELL_EVERY_S = 5.0
Say = Callable[[str], None]


async def move(settings: Settings, partitions: int) -> dict[str, Any]:
    """Moves the fleet of the settings."""
    began = time.monotonic()
    async with open_store(settings) as store:
        before = await store.read_meta()
        meta, states = await lead(store, partitions, notice)
        if meta.generation == before.generation:
            return _facts(meta)
        await store.append_audit({"event": "repartition", "from": before.partitions, "to": meta.partitions})
    return _facts(meta) | {"states": states, "seconds": round(time.monotonic() - began, 3)}


async def lead(store: StateStore, partitions: int, say: Say) -> tuple[Meta, int]:
    """Closes, drains, carries, switches; returns once the next partitions are the current ones."""
    await _refuse_sealed(store, await store.read_meta())
    meta = await store.begin_move(partitions)
    if not meta.next_partitions:
        say(f"the fleet has {meta.partitions} partitions already: nothing to do")
        return meta, 0
    say(f"{meta.partitions} -> {partitions} partitions: closing the old ones; new ticks wait with their senders")
    await _drain(store, meta, say)
    states = await _carry(store, meta, say)
    meta = await store.end_move()
    say(f"the fleet has {meta.partitions} partitions now; workers, producers and readers follow by themselves")
    return meta, states


async def _refuse_sealed(store: StateStore, meta: Meta) -> None:
    """Before anything is closed: a sealed partition can never be worked off."""
    for partition in range(meta.partitions):
        if seal := (await store.probe(partition)).seal:
            raise PartitionSealed(f"Partition {partition} is sealed ({seal}): restore and open it first.")


async def _drain(store: StateStore, meta: Meta, say: Say) -> None:
    """Until nothing of the old partitions can change any more."""
    now = asyncio.get_running_loop().time
    waiting, began = list(range(meta.partitions)), now()
    told = began
    while True:
        probes = [await store.close_partition(partition) for partition in waiting]
        for probe in probes:
            if probe.drained:
                say(f"partition {probe.partition}: worked off")
        late = [probe for probe in probes if not probe.drained]
        if not late:
            return
        waiting = [probe.partition for probe in late]
        if now() - told > TELL_EVERY_S:
            told = now()
            for probe in late:
                say(_waits_for(probe))
        await asyncio.sleep(max(LOOK_EVERY_S, (now() - began) / 20))


async def _carry(store: StateStore, meta: Meta, say: Say) -> int:
    total = 0
    for partition in range(meta.partitions):
        carried = await store.carry(partition)
        say(f"partition {partition}: {carried.states} states copied")
        total += carried.states
    return total


def _waits_for(probe: Probe) -> str:
    if not probe.lease_left_ms:
        return f"partition {probe.partition}: {probe.backlog} ticks wait and nobody holds it: start a worker"
    return f"partition {probe.partition}: waiting for {probe.owner}, {probe.backlog} ticks to go"


async def standing(settings: Settings) -> dict[str, Any]:
    """Which partitions the fleet has, and how far it is on its way to others."""
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        meta = await store.read_meta()
        probes = [await store.probe(partition) for partition in range(meta.partitions)]
        return _facts(meta) | {
            "next_partitions": meta.next_partitions or None,
            "closed": sum(probe.closed for probe in probes),
            "worked_off": sum(probe.drained for probe in probes),
            "waiting_for": [_waits_for(probe) for probe in probes if probe.closed and not probe.drained],
            "rejected_before": await _rejected(looking, settings.redis.namespace, meta),
        }


async def forget_past(settings: Settings, discard_rejected: bool) -> dict[str, Any]:
    """Empties the partitions of earlier generations."""
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        meta = await store.read_meta()
        rejected = await _rejected(looking, settings.redis.namespace, meta)
        if rejected and not discard_rejected:
            raise BadInput(
                f"the partitions before hold {rejected} dead letters, which would go too: add --discard-rejected, or "
                "look at them first (predictor rejected ls)"
            )
        removed = meta.generation - meta.oldest
        return _facts(await store.forget_past()) | {"generations_removed": removed, "rejected_removed": rejected}


async def _rejected(looking: Looking, namespace: str, meta: Meta) -> int:
    """Dead letters of partitions before."""
    total = 0
    for generation in range(meta.oldest, meta.generation):
        keys = Logs(looking, namespace, generation).keys
        total += sum([await looking.ask("XLEN", keys.of(p).rejected) for p in range(meta.past[generation])])
    return total


def _facts(meta: Meta) -> dict[str, Any]:
    told = asdict(meta)
    return {name: told[name] for name in ("partitions", "generation", "past", "oldest", "moved_ms")}

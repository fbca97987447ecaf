"""Hurts a real fleet in every way we know, and lets the calm reference judge: `python -m loadtests.chaos`.

A history is a feed, one to three faults drawn by its seed, and a judgement. Times are real, so a seed repeats what is
done and not when: a failing history prints the command that plays it again, and may take several turns to fail again.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from pathlib import Path
from random import Random

from loadtests.arena import NUMBERS, Arena, Failed, Fault, History, Member, Shape, until
from loadtests.judge import Reference
from loadtests.proxy import Proxy
from state_store import EmbeddedRedis, Meta, MoveRefused, RedisStateStore, StateStoreError, StoreFull, find_server
from state_store.cluster import EmbeddedCluster
from state_store.contract import id_order
from state_store.keys import partition_of
from state_store.logs import Looking
from state_store.server import _packaged as packaged_server
from state_store.slots import slot_of
from worker.repartition import lead
from worker.settings import load

HOME = Path(".predictor")
CACHE = HOME / "cache"
EXIT_S_MAX = 3.0
DOWN_S = (0.0, 3.0)
KILLS = (1, 3)
MOVES = (1, 3)
STALL_S_MAX = 3.0
OPEN_S = (1.0, 6.0)
GO_ON_S_MAX = 10.0  # a worker tries again after 5 s at most
HISTORIES_PER_FLEET = 10
BURST = 3000
FULL_BURST = 12_000
ROOM_BYTES = 1 << 20


async def kill_workers(history: History) -> None:
    """SIGKILL, again and again; others take over, new ones join."""
    arena = history.arena
    for _ in range(history.random.randint(*KILLS)):
        await asyncio.sleep(history.random.random() * 0.3)
        (await arena.owner(history.random)).signal(signal.SIGKILL)
        await arena.start_worker()
        await arena.progress()
        await arena.all_ready()


async def wake_a_zombie(history: History) -> None:
    """SIGSTOP for longer than the lease, with work in hand; once awake it finds itself fenced."""
    arena = history.arena
    zombie = await arena.owner(history.random)
    history.feed.burst(history.random.randrange(BURST))
    await asyncio.sleep(history.random.random() * 0.2)
    zombie.signal(signal.SIGSTOP)

    async def replaced() -> bool:
        return all(probe.owner != zombie.name and probe.lease_left_ms for probe in await arena.probes())

    try:
        await until(replaced, "a takeover from the zombie")
        await arena.progress()
        lost = len(zombie.lines("partition_lost"))
    finally:
        zombie.signal(signal.SIGCONT)

    async def fenced() -> bool:
        return len(zombie.lines("partition_lost")) > lost

    await until(fenced, "the zombie's discovery that it is fenced")


async def end_a_worker(history: History) -> None:
    """SIGTERM with a full pipeline: exit 0, soon."""
    arena = history.arena
    member = await arena.owner(history.random)
    history.feed.burst(BURST)
    await asyncio.sleep(history.random.random() * 0.3)
    await end_in_time(member)
    await arena.start_worker()
    await arena.progress()


async def end_in_time(member: Member) -> float:
    """How long a worker takes from SIGTERM to exit 0."""
    started = time.monotonic()
    member.signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(4 * EXIT_S_MAX):
            code = await member.process.wait()
    except TimeoutError:
        raise Failed(f"{member.name} did not end after SIGTERM: {member.said()}") from None
    seconds = time.monotonic() - started
    if code or seconds > EXIT_S_MAX:
        ended = f"{member.name} ended with {code} after {seconds:.1f} s, expected 0 within {EXIT_S_MAX:.0f} s"
        raise Failed(f"{ended}: {member.said()}")
    return seconds


async def restart_redis(history: History) -> None:
    """Redis goes and comes back with all it had; every worker goes on by itself."""
    arena = history.arena
    await arena.end_server(kill=history.random.random() < 0.5)
    await asyncio.sleep(history.random.uniform(*DOWN_S))
    await arena.restart_server()
    await arena.progress()
    await arena.all_serve()


async def cut_the_file(history: History) -> None:
    """Redis is killed, and its append-only file ends at some byte of the last seconds."""
    arena = history.arena
    file = arena.aof()
    begin = file.stat().st_size
    history.feed.burst(history.random.randrange(BURST))
    await asyncio.sleep(history.random.uniform(0.1, 0.8))
    await arena.end_server(kill=True)
    os.truncate(file, history.random.randint(begin, file.stat().st_size))
    await arena.restart_server()
    await check_consistent(arena)
    await arena.progress()
    await arena.all_serve()


async def fail_over(history: History) -> None:
    """The primary dies with its replica's link frozen; the replica, which misses the last ticks, is promoted."""
    async with replaced_by_a_replica(history):
        history.feed.burst(history.random.randrange(BURST))
        await asyncio.sleep(history.random.uniform(0.1, 0.8))
    await history.arena.progress()
    await history.arena.all_serve()


@asynccontextmanager
async def replaced_by_a_replica(history: History) -> AsyncIterator[None]:
    """What happens inside, the replica does not hear of; at its end the primary dies, and the replica is promoted."""
    arena, old = history.arena, history.arena.server
    replica = arena.new_server()
    await asyncio.to_thread(replica.start)
    try:
        async with Proxy(arena.port) as link:
            async with Looking(replica.url) as there:
                await there.ask("REPLICAOF", "127.0.0.1", str(link.port))

                async def in_step() -> bool:
                    return b"master_link_status:up" in await there.ask("INFO", "replication")

                await until(in_step, "a replica in step")
                link.freeze()
                yield
                await arena.end_server(kill=True)
                link.cut()
                await there.ask("REPLICAOF", "NO", "ONE")
        arena.server, replica = replica, old
    finally:
        await asyncio.to_thread(replica.stop)
    await check_consistent(arena)
    arena.proxy.upstream = arena.port
    arena.proxy.cut()


async def check_consistent(arena: Arena) -> None:
    """All keys of a partition stand at the same tick, whatever the server has lost. Our feed has no dead letters."""
    await arena.probes()
    for partition in range(arena.meta.partitions):
        keys = arena.keys(partition)
        script = (
            "local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1] "
            "local kept = redis.call('HMGET', KEYS[1], 'cursor', 'state_cursor') "
            "return {kept[1] or '0-0', kept[2] or '0-0', last and last[1] or '0-0'}"
        )
        found = await arena.ask("EVAL", script, "2", keys.control, keys.predictions)
        cursor, states, last = found
        if cursor != last or id_order(states) > id_order(cursor):
            raise Failed(f"partition {partition} is torn: cursor, state cursor and last prediction are {found}")


async def cut_connections(history: History) -> None:
    """Connections end, between messages and inside them."""
    proxy = history.arena.proxy
    for _ in range(history.random.randint(3, 12)):
        await asyncio.sleep(history.random.random() * 0.4)
        history.random.choice((proxy.cut, proxy.tear))()
    await history.arena.progress()


async def slow_connections(history: History) -> None:
    """Everything takes long, then nothing arrives at all for longer than a lease."""
    arena, proxy = history.arena, history.arena.proxy
    proxy.delay_s = history.random.uniform(0.05, 0.4)
    try:
        await arena.progress()
        proxy.freeze()
        await asyncio.sleep(history.random.uniform(0.5, 2.0) * arena.shape.lease_ms / 1000)
    finally:
        proxy.delay_s = 0.0
        proxy.thaw()
    await arena.progress()


async def flush_scripts(history: History) -> None:
    """The script cache is emptied again and again."""
    for _ in range(20):
        await history.arena.ask("SCRIPT", "FLUSH")
        await asyncio.sleep(history.random.random() * 0.05)
    await history.arena.progress()


async def fill_redis(history: History) -> None:
    """Redis reaches its maxmemory with ticks that nobody has read; the fleet works them off all the same."""
    arena = history.arena
    history.judge.move_to(arena.server.url)  # after a failover it is another
    watching = asyncio.create_task(_watch(history))
    history.feed.burst(FULL_BURST)
    await arena.progress()
    await arena.caught_up()
    for member in arena.running:
        member.signal(signal.SIGSTOP)
    try:
        used = (await arena.ask("INFO", "memory")).decode().partition("used_memory:")[2].split()[0]
        await arena.ask("CONFIG", "SET", "maxmemory", str(int(used) + ROOM_BYTES))
        await _fill(history)
    finally:
        for member in arena.running:
            member.signal(signal.SIGCONT)
    try:
        await arena.idle()
        if not any(member.lines("history_cut") for member in arena.members):
            raise Failed("no history was cut: the server cannot have been full")
    finally:
        await arena.ask("CONFIG", "SET", "maxmemory", "0")
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    await arena.progress()


async def _fill(history: History) -> None:
    """Plain XADD until the server refuses; these clients know nothing of room that is left for others."""
    arena, feed = history.arena, history.feed
    async with Looking(arena.server.url) as looking:
        while True:
            asset = history.random.choice(feed.strangers)
            key = arena.keys(partition_of(asset.encode(), arena.meta.partitions)).ticks
            value, time_ns = feed.next_tick(asset)
            fields = ("a", asset, "y", repr(value), "t", str(time_ns))
            try:
                await looking.ask("XADD", key, "*", *fields)
            except StoreFull:
                feed.sent[asset].pop()
                return


async def _watch(history: History) -> None:
    """The judge reads along, since history is cut behind it."""
    while True:
        await history.judge.read()
        await asyncio.sleep(0.02)


async def repartition(history: History) -> None:
    """The fleet gets another number of partitions; the command is given up half-way, or somebody dies meanwhile."""
    arena, random = history.arena, history.random
    number = random.choice([number for number in NUMBERS if number != arena.meta.partitions])
    goal = arena.meta.generation + 1
    history.feed.burst(random.randrange(BURST))
    await random.choice(HURTS if isinstance(arena.server, EmbeddedRedis) else HURTS[:-1])(history, number)

    async def there() -> bool:
        with suppress(MoveRefused):
            return (await lead_to(arena, number)).generation == goal
        return False

    await until(there, f"{number} partitions")
    await arena.progress()
    await arena.all_serve()


async def lead_to(arena: Arena, partitions: int) -> Meta:
    """What `predictor repartition` does."""
    store = RedisStateStore(arena.proxy.url)
    try:
        return (await lead(store, partitions, lambda line: None))[0]
    finally:
        await store.close()


async def give_up_half_way(history: History, partitions: int) -> None:
    """The command dies, wherever it is."""
    leading = asyncio.create_task(lead_to(history.arena, partitions))
    await asyncio.sleep(history.random.random())
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def kill_a_worker_half_way(history: History, partitions: int) -> None:
    """A worker dies with what was to be worked off."""
    leading = asyncio.create_task(lead_to(history.arena, partitions))
    await asyncio.sleep(history.random.random() * 0.2)
    (await history.arena.owner(history.random)).signal(signal.SIGKILL)
    await history.arena.start_worker()
    await asyncio.gather(leading, return_exceptions=True)


async def fail_over_half_way(history: History, partitions: int) -> None:
    """The replica that takes over has heard nothing of it, or only of its beginning."""
    leading = None
    if history.random.random() < 0.5:
        leading = asyncio.create_task(lead_to(history.arena, partitions))
        await asyncio.sleep(history.random.random() * 0.2)
    async with replaced_by_a_replica(history):
        leading = leading or asyncio.create_task(lead_to(history.arena, partitions))
        await asyncio.sleep(history.random.random())
    await asyncio.gather(leading, return_exceptions=True)


HURTS = (give_up_half_way, kill_a_worker_half_way, fail_over_half_way)


async def move_slots(history: History) -> None:
    """Slots go to other nodes of the cluster, key by key, under load."""
    arena, cluster = history.arena, cluster_of(history.arena)
    for _ in range(history.random.randint(*MOVES)):
        slot = slot_of(arena.keys(history.random.randrange(arena.meta.partitions)).ticks)
        owner = await asyncio.to_thread(cluster.owner, slot)
        target = history.random.choice([node for node in await primaries(cluster) if node is not owner])
        history.feed.burst(history.random.randrange(BURST))
        await asyncio.to_thread(cluster.move_slot, slot, target, history.random.random() * 0.1)
        await arena.progress()
    await arena.all_serve()


async def leave_a_slot_open(history: History) -> None:
    """A slot's move stops half-way for seconds. Its partition waits, the others do not; then it goes on by itself."""
    arena, cluster, random = history.arena, cluster_of(history.arena), history.random
    slot = slot_of(arena.keys(random.randrange(arena.meta.partitions)).ticks)
    source = await asyncio.to_thread(cluster.owner, slot)
    target = random.choice([node for node in await primaries(cluster) if node is not source])
    others = [p for p in range(arena.meta.partitions) if slot_of(arena.keys(p).ticks) != slot]
    lost, watch = _losses(arena), await Watch.of(arena, others)
    await asyncio.to_thread(cluster.open_slot, slot, target)
    keys = await asyncio.to_thread(cluster.keys_in, slot)
    gone = random.sample(sorted(keys), random.randrange(1, len(keys)))
    await asyncio.to_thread(cluster.move_keys, source, target, gone)
    history.feed.burst(random.randrange(BURST))
    started = time.monotonic()
    await watch.progress()
    if time.monotonic() - started > STALL_S_MAX:
        raise Failed(f"one open slot held the others up for {time.monotonic() - started:.1f} s")
    await asyncio.sleep(random.uniform(*OPEN_S))
    await asyncio.to_thread(cluster.finish_move, slot, target)
    started = time.monotonic()
    await arena.progress()
    if time.monotonic() - started > GO_ON_S_MAX:
        raise Failed(f"the partition went on {time.monotonic() - started:.1f} s after its slot was closed")
    if _losses(arena) == lost:
        raise Failed("no worker said that it waits for the open slot")
    await arena.all_serve()


def _losses(arena: Arena) -> int:
    return sum(len(member.lines("partition_lost")) for member in arena.members)


async def fail_over_a_shard(history: History) -> None:
    """A primary is killed, or stands still for as long; its replica takes its slots. The other shards do not wait."""
    arena, cluster = history.arena, cluster_of(history.arena)
    slot = slot_of(arena.keys(history.random.randrange(arena.meta.partitions)).ticks)
    doomed = await asyncio.to_thread(cluster.owner, slot)
    others = [p for p in range(arena.meta.partitions) if await owner_of(arena, p) is not doomed]
    history.feed.burst(history.random.randrange(BURST))
    await asyncio.sleep(history.random.uniform(0.0, 0.3))
    frozen, watch = history.random.random() < 0.5, await Watch.of(arena, others)
    await asyncio.to_thread(cluster.freeze if frozen else cluster.kill, doomed)
    started = time.monotonic()
    await watch.progress()
    if time.monotonic() - started > STALL_S_MAX:
        raise Failed(f"one dead shard held the others up for {time.monotonic() - started:.1f} s")
    await asyncio.to_thread(cluster.await_failover, doomed, slot)
    await asyncio.to_thread(cluster.thaw if frozen else cluster.revive, doomed)
    arena.proxy.upstream = cluster.port
    await arena.progress()
    await arena.all_serve()


class Watch:
    """Some partitions seen from outside, by somebody who knew the fleet before a shard of it was hurt."""

    def __init__(self, store: RedisStateStore, partitions: Sequence[int]) -> None:
        self.store, self.partitions = store, partitions

    @classmethod
    async def of(cls, arena: Arena, partitions: Sequence[int]) -> "Watch":
        store = RedisStateStore(arena.server.url)
        await store.read_meta()  # its shard may be the one
        return cls(store, partitions)

    async def progress(self) -> None:
        """Waits until all of them have been committed to since now, without a word to the others."""
        before = {p: (await self.store.probe(p)).cursor for p in self.partitions}

        async def moved() -> bool:
            return all([(await self.store.probe(p)).cursor > cursor for p, cursor in before.items()])

        try:
            await until(moved, "a commit in every partition of the other shards")
        finally:
            await self.store.close()


async def owner_of(arena: Arena, partition: int) -> EmbeddedRedis:
    return await asyncio.to_thread(cluster_of(arena).owner, slot_of(arena.keys(partition).ticks))


async def primaries(cluster: EmbeddedCluster) -> list[EmbeddedRedis]:
    return await asyncio.to_thread(cluster.owners)


def cluster_of(arena: Arena) -> EmbeddedCluster:
    assert isinstance(arena.server, EmbeddedCluster), "this fault needs Shape(cluster=True)"
    return arena.server


FAULTS: dict[str, Fault] = {
    "kill": kill_workers,
    "zombie": wake_a_zombie,
    "term": end_a_worker,
    "restart": restart_redis,
    "cut-file": cut_the_file,
    "fail-over": fail_over,
    "cut": cut_connections,
    "slow": slow_connections,
    "flush": flush_scripts,
    "full": fill_redis,
    "repartition": repartition,
}
CLUSTER_FAULTS: dict[str, Fault] = {
    "kill": kill_workers,
    "zombie": wake_a_zombie,
    "term": end_a_worker,
    "move-slots": move_slots,
    "open-slot": leave_a_slot_open,
    "shard": fail_over_a_shard,
    "repartition": repartition,
}
ALL_FAULTS = FAULTS | CLUSTER_FAULTS


def drawn(seed: int, allowed: Sequence[str] = tuple(FAULTS)) -> list[str]:
    """The faults of a history."""
    random = Random(seed)
    return [random.choice(allowed) for _ in range(random.randint(1, 3))]


async def play(arena: Arena, seed: int, names: Sequence[str]) -> str:
    """Plays one history; gives the line that the log keeps."""
    started = time.monotonic()
    judged = await arena.play(f"h{seed}", [ALL_FAULTS[name] for name in names], Random(seed))
    return f"seed {seed}: {'+'.join(names)}: {judged} ticks, {time.monotonic() - started:.1f} s"


async def play_many(seeds: Sequence[int], allowed: Sequence[str], servers: Sequence[str], cluster: bool) -> int:
    """Plays histories, some on each fleet; gives how many went wrong."""
    reference, wrong, ticks = Reference(load()), [], Counter()
    for number, group in groupby(seeds, lambda seed: seed // HISTORIES_PER_FLEET):
        left = list(group)
        while left:
            shape = Shape(executable=servers[number % len(servers)], cluster=cluster)
            async with open_arena(shape, reference) as arena:
                while left:
                    seed = left.pop(0)
                    try:
                        print(await play(arena, seed, drawn(seed, allowed)), flush=True)
                    except (Failed, TimeoutError, StateStoreError) as error:
                        wrong.append(seed)
                        print(f"seed {seed} FAILED: {'+'.join(drawn(seed, allowed))}: {type(error).__name__}: {error}")
                        print(f"  play it again: {_again(seed, allowed, cluster)}")
                        print(f"  logs: {_keep_logs(arena, seed)}", flush=True)
                        break  # the next ones get a fleet that nothing has happened to
                    ticks.update(faults=len(drawn(seed, allowed)), histories=1)
    print(f"{len(seeds)} histories, {ticks['faults']} faults in those that went well, {len(wrong)} wrong {wrong or ''}")
    return len(wrong)


def _again(seed: int, allowed: Sequence[str], cluster: bool) -> str:
    everything = tuple(CLUSTER_FAULTS if cluster else FAULTS)
    only = "" if tuple(allowed) == everything else f" --only {' '.join(allowed)}"
    return f"python -m loadtests.chaos --histories 1 --seed {seed}{' --cluster' if cluster else ''}{only}"


def _keep_logs(arena: Arena, seed: int) -> Path:
    kept = HOME / f"chaos-failed-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in arena.home.glob("*.log"):
        shutil.copy(log, kept)
    return kept


@asynccontextmanager
async def open_arena(shape: Shape, reference: Reference, cache: Path = CACHE) -> AsyncIterator[Arena]:
    """A fleet in a directory that goes with it."""
    HOME.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="chaos-", dir=HOME)).absolute()
    try:
        async with Arena(home, shape, reference, cache.absolute()) as arena:
            yield arena
    finally:
        shutil.rmtree(home, ignore_errors=True)


def servers_here() -> list[str]:
    """An old and a newer server program, where this machine has them."""
    found = (find_server(), packaged_server(), "/usr/bin/redis-server")
    return list(dict.fromkeys(path for path in found if path and os.access(path, os.X_OK)))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.chaos", description=__doc__)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first history; the next has the next")
    parser.add_argument("--cluster", action="store_true", help="three primaries with a replica each, not one server")
    parser.add_argument("--only", nargs="+", metavar="FAULT", help=f"of {', '.join(ALL_FAULTS)}")
    asked = parser.parse_args(words)
    possible = tuple(CLUSTER_FAULTS if asked.cluster else FAULTS)
    allowed = tuple(asked.only or possible)
    if unfit := sorted(set(allowed) - set(possible)):
        parser.error(f"{unfit[0]} cannot happen here: take some of {', '.join(possible)}")
    seeds = range(asked.seed, asked.seed + asked.histories)
    return 1 if asyncio.run(play_many(seeds, allowed, servers_here(), asked.cluster)) else 0


if __name__ == "__main__":
    sys.exit(main())

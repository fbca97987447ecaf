"""Producers and readers over a change of partitions: each tick is taken once, each prediction read once, in order."""

import asyncio
from collections import defaultdict
from itertools import pairwise

import pytest

import state_store.moving
from state_store import (
    START,
    BadUrl,
    FleetMismatch,
    Lease,
    Meta,
    MoveRefused,
    Outcome,
    PartitionMoved,
    PredictionReader,
    ProducerLimits,
    RedisStateStore,
    TickProducer,
)
from state_store.client import Address
from state_store.keys import Keys, partition_of
from state_store.moving import Moving
from state_store.outboxes import Outboxes
from tests.store.conftest import FIELDS, LAYOUT, PARTITIONS, SHORT_TIMEOUTS, ClusterFleet, RedisFleet, commit_of

ASSETS = [f"asset-{number}" for number in range(12)]


@pytest.fixture(params=["redis-6.2", "newer", "cluster"])
def open_real(request, servers, clusters, namespace):
    """A fleet on one server or on a cluster of three."""
    async def opened() -> RedisFleet:
        if request.param == "cluster":
            fleet = ClusterFleet(clusters("redis-6.2").url, namespace)
        else:
            fleet = RedisFleet(servers(request.param).url, namespace)
        await fleet.store().open_fleet(PARTITIONS, LAYOUT, FIELDS)
        return fleet

    return opened


async def work_off(store: RedisStateStore) -> None:
    """Predicts every tick in the partitions of the store's generation, as a worker would."""
    for partition in range((await store.read_meta()).of(store.keys.generation).partitions):
        if (await store.probe(partition)).drained:
            continue
        lease = await store.acquire(partition, "worker", 5000)
        assert isinstance(lease, Lease)
        while (ticks := await store.read(partition, lease.cursor, 100, 0)).ids:
            assert not ticks.malformed
            assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
            lease = await store.renew(lease)
        await store.release(lease)


async def close_all(store: RedisStateStore, partitions: int) -> None:
    meta = await store.begin_move(partitions)
    for partition in range(meta.partitions):
        await store.close_partition(partition)


async def move(store: RedisStateStore, partitions: int) -> None:
    await close_all(store, partitions)
    await work_off(store)
    old = (await store.read_meta()).partitions
    for partition in range(old):
        assert (await store.close_partition(partition)).drained
    for partition in range(old):
        await store.carry(partition)
    store.follow(await store.end_move())


async def send(producer: TickProducer, rounds: range) -> None:
    for number in rounds:
        for asset in ASSETS:
            await producer.send(asset, float(number), number + 1)


async def logged(fleet: RedisFleet, *generations: int) -> dict[str, list[int]]:
    """The event times of every asset's ticks, one generation after the other."""
    found = defaultdict(list)
    for generation, partitions in enumerate(generations):
        for partition in range(partitions):
            key = Keys(fleet.namespace, generation).of(partition).ticks
            for _, fields in await fleet.client.xrange(key):
                found[fields[b"a"].decode()].append(int(fields[b"t"]))
    return found


async def test_a_producer_takes_what_was_not_taken_to_the_next_partitions(open_real):
    fleet = await open_real()
    store = fleet.stores[0]
    async with TickProducer(fleet.url, fleet.namespace) as producer:
        await send(producer, range(10))
        await producer.flush()
        await close_all(store, 7)
        await send(producer, range(10, 20))
        flushing = asyncio.create_task(producer.flush())
        await asyncio.sleep(0.1)
        assert not flushing.done() and producer.accepted == 10 * len(ASSETS)
        await move(store, 7)
        await flushing
        await send(producer, range(20, 30))
        await move(store, 3)  # It was told nothing of these before it sends there.
        await send(producer, range(30, 40))
        await producer.flush()
        assert producer.accepted == producer.sent == 40 * len(ASSETS) and not producer.lost
    assert await logged(fleet, PARTITIONS, 7, 3) == {asset: list(range(1, 41)) for asset in ASSETS}
    await fleet.close()


async def test_a_batch_of_unknown_outcome_is_asked_for_where_it_went(open_redis, proxy):
    async with open_redis() as fleet, proxy:
        store = fleet.stores[0]
        proxy.matches = b"EVALSHA"
        async with TickProducer(f"unix://{proxy.path}", fleet.namespace, timeouts=SHORT_TIMEOUTS) as producer:
            await send(producer, range(1))
            await producer.flush()
            for lost, mode in enumerate(("reply", "half", "request"), 1):
                proxy.lose = mode
                await send(producer, range(2 * lost - 1, 2 * lost + 1))
                while proxy.lost < lost:
                    await asyncio.sleep(0.001)
                await move(store, (7, 3, 5)[lost - 1])
                await producer.flush()
            assert producer.accepted == producer.sent
        assert await logged(fleet, PARTITIONS, 7, 3, 5) == {asset: list(range(1, 8)) for asset in ASSETS}


async def test_a_producer_that_waits_is_told_and_grows_no_further(open_redis):
    async with open_redis() as fleet:
        store = fleet.stores[0]
        limits = ProducerLimits(waiting_max=4, patience_s=1.0)
        async with TickProducer(fleet.url, fleet.namespace, limits=limits) as producer:
            await close_all(store, 7)
            with pytest.raises(PartitionMoved, match="is closed while the fleet gets another number"):
                await send(producer, range(100))
            assert producer.sent <= 4 * PARTITIONS
            await move(store, 7)
            producer.limits = ProducerLimits()
            await producer.flush()
            assert producer.accepted == producer.sent


async def fed(fleet: RedisFleet, rounds: range) -> None:
    async with TickProducer(fleet.url, fleet.namespace) as producer:
        await send(producer, rounds)


async def all_of(reader: PredictionReader, count: int) -> dict[str, list[int]]:
    """So many predictions, and then no more."""
    found, total = defaultdict(list), 0
    async with asyncio.timeout(20):
        while total < count:
            for prediction in await reader.read(block_ms=50):
                found[prediction.asset].append(prediction.timestamp_ns & ~(1 << 60))
                total += 1
    assert total == count
    return found


async def test_a_reader_reads_the_old_partitions_to_their_ends_then_the_new_ones(open_real):
    fleet = await open_real()
    store = fleet.stores[0]
    everything = {asset: list(range(1, 31)) for asset in ASSETS}
    async with PredictionReader(fleet.url, fleet.namespace, start="0") as reader:
        await fed(fleet, range(10))
        await work_off(store)
        read = await all_of(reader, 10 * len(ASSETS))
        for first, partitions in ((10, 7), (20, 3)):
            await fed(fleet, range(first, first + 5))  # What is there when the partitions are closed.
            await move(store, partitions)
            await fed(fleet, range(first + 5, first + 10))
            await work_off(store)
            for asset, times in (await all_of(reader, 10 * len(ASSETS))).items():
                read[asset] += times
        assert read == everything and reader.meta.partitions == 3
        assert set(reader.positions) == {"2.0", "2.1", "2.2"}
    async with PredictionReader(fleet.url, fleet.namespace, start="0") as late:
        assert await all_of(late, 30 * len(ASSETS)) == everything
    async with PredictionReader(fleet.url, fleet.namespace) as latest:
        newest = await all_of(latest, len(ASSETS))
        assert newest == {asset: [30] for asset in ASSETS}
        assert await latest.read(block_ms=10) == []
    await fleet.close()


async def test_a_reader_goes_on_from_any_place_it_was_left_at(open_redis):
    async with open_redis() as fleet:
        store, places = fleet.stores[0], []
        for first, partitions in ((0, 7), (10, 3), (20, 0)):
            await fed(fleet, range(first, first + 10))
            await work_off(store)
            if partitions:
                await move(store, partitions)
        async with PredictionReader(fleet.url, fleet.namespace, start="0") as reader:
            counts = [0]
            while len(counts) < 2 or counts[-1] < 30 * len(ASSETS):
                found = await reader.read(block_ms=10)
                if found or reader.meta.generation:
                    places.append((counts[-1], reader.positions))
                    places[-1] = (counts[-1] + len(found), reader.positions)
                    counts.append(counts[-1] + len(found))
        assert {str(place).count(".") > 0 for _, place in places} == {True, False}
        for done, place in places:
            async with PredictionReader(fleet.url, fleet.namespace, start=place) as again:
                found = await all_of(again, 30 * len(ASSETS) - done)
                assert all(one < two for times in found.values() for one, two in pairwise(times))
        by_number = {int(partition): id for partition, id in places[0][1].items()}  # A place of before the first move.
        async with PredictionReader(fleet.url, fleet.namespace, start=by_number) as old:
            await all_of(old, 30 * len(ASSETS) - places[0][0])
        await store.forget_past()
        async with PredictionReader(fleet.url, fleet.namespace, start=by_number) as old:
            await all_of(old, 10 * len(ASSETS))


async def test_a_reader_of_some_partitions_is_told_when_their_numbers_mean_others(open_redis):
    async with open_redis() as fleet:
        async with PredictionReader(fleet.url, fleet.namespace, start="0", partitions=[1]) as reader:
            await reader.read(block_ms=10)
            await move(fleet.stores[0], 7)
            reader._looked = 0.0
            with pytest.raises(FleetMismatch, match="has 7 partitions now"):
                await reader.read(block_ms=10)
        for wrong in ({"x": "0"}, {"0": "0", "1.0": "0"}, {"9.0": "0"}):
            with pytest.raises(BadUrl):
                async with PredictionReader(fleet.url, fleet.namespace, start=wrong):
                    pass


async def test_a_copy_that_comes_late_finds_its_partition_open_and_writes_nothing(open_real):
    fleet = await open_real()
    store = fleet.stores[0]
    await fed(fleet, range(2))
    stalled = fleet.store()
    before = await store.begin_move(7)
    await stalled.read_meta()
    await move(store, 7)
    await fed(fleet, range(2, 4))
    await work_off(store)
    homes = {partition_of(asset.encode(), 7): asset.encode() for asset in ASSETS}
    newer = [await store.load(home, [asset]) for home, asset in homes.items()]
    for partition in range(PARTITIONS):
        moving = Moving(stalled._control.call, stalled.keys, stalled.probe, stalled.route)
        assert (await moving.carry(partition, before)).states
    assert [await store.load(home, [asset]) for home, asset in homes.items()] == newer
    await fleet.close()


async def test_a_producer_waits_until_the_last_old_partition_has_said_what_it_took(open_redis):
    async with open_redis() as fleet:
        store = fleet.stores[0]
        async with TickProducer(fleet.url, fleet.namespace) as producer:
            await send(producer, range(1))
            await producer.flush()
            slow = producer._outboxes.by_partition[3]
            slow.lane.outboxes.pop(3)  # As one whose node does not answer.
            await close_all(store, 7)  # So that every partition has something to refuse.
            await send(producer, range(1, 3))
            await move(store, 7)
            others = [outbox for partition, outbox in producer._outboxes.by_partition.items() if partition != 3]
            async with asyncio.timeout(20):
                while not all(outbox.closed for outbox in others):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert producer._outboxes.by_partition[3] is slow and slow.waiting and not slow.closed
            slow.lane.take(3, slow)
            await producer.flush()
            assert producer._outboxes.by_partition.get(3) is not slow
        assert await logged(fleet, PARTITIONS, 7) == {asset: [1, 2, 3] for asset in ASSETS}


async def test_a_producer_that_slept_until_the_past_was_forgotten_sends_nothing_twice(open_redis):
    async with open_redis() as fleet:
        store = fleet.stores[0]
        async with TickProducer(fleet.url, fleet.namespace) as producer:
            await send(producer, range(1))
            await producer.flush()
            await move(store, 7)
            await store.forget_past()
            await send(producer, range(1, 2))
        assert await logged(fleet, PARTITIONS, 7) == {asset: [2] for asset in ASSETS}
        assert (producer.accepted, producer.lost) == (2 * len(ASSETS), 0)


async def test_nothing_is_opened_before_the_replicas_know_that_all_is_drained(open_redis, monkeypatch):
    monkeypatch.setattr(state_store.moving, "REPLICAS_MS_MAX", 50)
    async with open_redis() as fleet:
        store = fleet.stores[0]
        await fed(fleet, range(1))
        await close_all(store, 7)
        await work_off(store)
        for step in (store.close_partition, store.carry):
            for partition in range(PARTITIONS):
                await step(partition)
        address = Address.parse(fleet.url)
        _, late = await asyncio.open_connection(address.host, address.port)
        late.write(b"SYNC\r\n")  # A replica that never says how far it is.
        await replicas(fleet, 1)
        with pytest.raises(MoveRefused, match="0 of 1 replicas"):
            await store.end_move()
        controls = [Keys(fleet.namespace, 1).of(partition).control for partition in range(7)]
        assert not any([await fleet.client.hexists(key, "opened") for key in controls])
        late.close()
        await replicas(fleet, 0)
        assert (await store.end_move()).generation == 1
        assert all([await fleet.client.hexists(key, "opened") for key in controls])


async def replicas(fleet: RedisFleet, count: int) -> None:
    async with asyncio.timeout(20):
        while (await fleet.client.info("replication"))["connected_slaves"] != count:
            await asyncio.sleep(0.02)


def test_ticks_of_two_generations_that_are_both_gone_go_back_in_their_order():
    metas = [Meta(1, b"", {}, generation=n, past=(1,) * n, openings=(5, 6)[:n]) for n in range(3)]
    outboxes = Outboxes(metas[0], 100, lambda tick: tick)
    for meta in metas:
        if meta.generation:
            outboxes.home(b"x")[1].close(1)
            outboxes = outboxes.moved_to(meta)
        _, outbox = outboxes.home(b"x")
        outbox.waiting.append(b"%d" % meta.generation)
        outbox.acknowledge(1)
    for generation in (2, 1):
        assert outboxes.generation == generation and not outboxes.may_move(metas[0])
        outboxes.home(b"x")[1].close(0)  # It is not open, and nothing is there.
        assert outboxes.may_move(metas[0])
        outboxes = outboxes.moved_to(metas[0])
    _, outbox = outboxes.home(b"x")
    assert (outboxes.generation, list(outbox.waiting)) == (0, [b"1", b"2"])
    assert (outboxes.accepted, outboxes.lost) == (1, 0)


async def kept_by(fleet: RedisFleet) -> dict[bytes, bytes]:
    return {key: await fleet.client.dump(key) async for key in fleet.client.scan_iter(f"{fleet.namespace}:*")}


async def take_back(fleet: RedisFleet, kept: dict[bytes, bytes]) -> None:
    """As a failover to a replica that lagged, all at once."""
    async with fleet.client.pipeline(transaction=True) as together:
        together.delete(*[key async for key in fleet.client.scan_iter(f"{fleet.namespace}:*")])
        for key, value in kept.items():
            together.restore(key, 0, value)
        await together.execute()


@pytest.mark.parametrize("moves_again", [(7,), (7, 3), (3,)])
async def test_a_producer_that_slept_while_the_fleet_went_back_and_moved_again_loses_nothing(open_redis, moves_again):
    async with open_redis() as fleet, TickProducer(fleet.url, fleet.namespace) as producer:
        await send(producer, range(3))
        await producer.flush()
        kept = await kept_by(fleet)
        await send(producer, range(3, 6))
        await producer.flush()
        await move(fleet.stores[0], 7)
        await send(producer, range(6, 9))
        await producer.flush()
        await take_back(fleet, kept)
        again = fleet.store()
        for partitions in moves_again:
            await move(again, partitions)
        await send(producer, range(9, 12))
        await producer.flush()
        found = await logged(fleet, PARTITIONS, *moves_again)
        assert found == {asset: list(range(1, 13)) for asset in ASSETS}
        assert (producer.accepted, producer.lost) == (12 * len(ASSETS), 0)


async def test_those_who_end_a_move_at_once_end_it_together(open_redis):
    async with open_redis() as fleet:
        stores = [fleet.stores[0], *(fleet.store() for _ in range(4))]
        await asyncio.gather(*(store.read_meta() for store in stores))
        await close_all(stores[0], 7)
        for partition in range(PARTITIONS):
            await stores[0].carry(partition)
        async with TickProducer(fleet.url, fleet.namespace) as producer:
            metas = await asyncio.gather(*(store.end_move() for store in stores))
            meta = await fleet.store().read_meta()
            assert metas == [meta] * 5 and meta.generation == 1 and meta.next_opening == 0
            keys = [Keys(fleet.namespace, 1).of(partition).control for partition in range(7)]
            assert {await fleet.client.hget(key, "opened") for key in keys} == {b"%d" % meta.opening}
            await send(producer, range(1))


async def test_a_reader_that_went_back_reads_the_old_partitions_to_their_ends_too(open_redis):
    async with open_redis() as fleet:
        store, asset, repeated = fleet.stores[0], ASSETS[0], 600
        async with PredictionReader(fleet.url, fleet.namespace, start="0") as reader:
            async with TickProducer(fleet.url, fleet.namespace) as producer:
                for number in range(repeated):
                    await producer.send(asset, 1.0, number + 1)
            await work_off(store)
            await all_of(reader, repeated)
            async with TickProducer(fleet.url, fleet.namespace) as producer:
                for number in range(repeated, repeated + 10):
                    await producer.send(asset, 1.0, number + 1)
            await move(store, 7)
            (branch,) = reader._branches
            branch._cursors = dict.fromkeys(branch._cursors, START)  # As after a failover that lost what was read.
            branch._rolled_back = set(branch._cursors)
            reader._fleet = await store.read_meta()
            assert await all_of(reader, 10) == {asset: list(range(repeated + 1, repeated + 11))}


async def test_the_past_stays_where_a_failover_left_ticks_behind_in_it(open_redis):
    async with open_redis() as fleet:
        store = fleet.stores[0]
        await fed(fleet, range(2))
        await move(store, 7)
        key = fleet.key("ticks")
        last = (await fleet.client.xrevrange(key, count=1))[0][0].decode()
        await fleet.client.execute_command("XSETID", key, last)  # As a replica that had not heard of the closing.
        await fleet.append({b"a": ASSETS[0].encode(), b"y": b"1", b"t": b"1"})
        with pytest.raises(MoveRefused, match="holds ticks that nobody predicted"):
            await store.forget_past()
        assert await fleet.client.exists(fleet.key("states"))

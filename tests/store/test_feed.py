"""Ticks in by `TickProducer`, predictions out by `PredictionReader`, through everything that can go wrong between."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from state_store import (
    BadTick,
    BadUrl,
    FleetMissing,
    Outcome,
    PartitionFull,
    PartitionSealed,
    PredictionReader,
    ProducerFenced,
    ProducerLimits,
    Retention,
    StateStoreError,
    StoreFull,
    TickProducer,
)
from state_store.keys import partition_of

P, PARTITIONS = 3, 4
QUICK = ProducerLimits(batch_size_max=16, linger_ms=1.0, patience_s=5.0)
IMPATIENT = ProducerLimits(batch_size_max=16, linger_ms=1.0, backlog_max=20, patience_s=1.0)


def producer_of(fleet, url=None, name=None, limits=QUICK):
    return TickProducer(url or fleet.url, fleet.namespace, name, limits=limits)


async def ticks_of(fleet, partition=P):
    return [named for _, named in await fleet.client.xrange(fleet.key("ticks", partition))]


@asynccontextmanager
async def working(fleet, commit_of):
    """A worker that predicts everything in every partition until left."""
    store = fleet.store()
    leases = {partition: await store.acquire(partition, "worker", 60_000) for partition in range(PARTITIONS)}
    leaving = asyncio.Event()

    async def work(lease):
        cursor = lease.cursor
        while not leaving.is_set():
            ticks = await store.read(lease.partition, cursor, 100, 20)
            if len(ticks):
                assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
                cursor = ticks.ids[-1]

    async with asyncio.TaskGroup() as group:
        for lease in leases.values():
            group.create_task(work(lease))
        yield store
        leaving.set()
    for lease in leases.values():
        await store.release(lease)


async def test_every_tick_arrives_once_in_its_partition_and_in_order(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            for n in range(200):
                await producer.send(f"asset-{n % 7}", n, timestamp_ns=n)
        assert producer.sent == producer.accepted == 200
        arrived = {partition: await ticks_of(fleet, partition) for partition in range(PARTITIONS)}
        for partition, ticks in arrived.items():
            assert all(partition_of(named[b"a"], PARTITIONS) == partition for named in ticks)
            times = [int(named[b"t"]) for named in ticks]
            assert times == sorted(times)
        assert sorted(int(named[b"t"]) for ticks in arrived.values() for named in ticks) == list(range(200))


async def test_a_tick_carries_what_was_given(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            await producer.send(fleet.assets[0], 0.1, 17, request_id="mine")
            await producer.send(fleet.assets[0], 2)
        first, second = await ticks_of(fleet)
        assert first == {b"a": fleet.assets[0], b"y": b"0.1", b"t": b"17", b"r": b"mine"}
        assert second[b"y"] == b"2.0" and int(second[b"t"]) > 10**18 and b"r" not in second


@pytest.mark.parametrize(
    "asset, value, time_ns, named",
    [
        ("", 1, 1, "asset is empty"),
        ("x" * 257, 1, 1, "longer than 256"),
        (b"\xff", 1, 1, "not UTF-8"),
        ("x", "1_5", 1, "'1_5' is text: give a number"),
        ("x", [1], 1, "is not a number"),
        ("x", float("nan"), 1, "not finite"),
        ("x", 1, 1.5, "not an integer"),
        ("x", 1, 2**63, "does not fit"),
        pytest.param("x", 1, 10**5000, "does not fit", id="a time of 5000 digits"),
        (5, 1, 1, "text or bytes, not of type int"),
        (None, 1, 1, "text or bytes, not of type NoneType"),
        (["x"], 1, 1, "text or bytes, not of type list"),
        ("\ud800", 1, 1, "not UTF-8"),
        ("x", 10**400, 1, "larger than any 64-bit float"),
        pytest.param("x", 10**5000, 1, "larger than any 64-bit float", id="a value of 5000 digits"),
    ],
)
async def test_a_tick_that_can_never_be_accepted_is_refused_at_once(open_redis, asset, value, time_ns, named):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            with pytest.raises(BadTick, match=named) as caught:
                await producer.send(asset, value, time_ns)
        assert producer.sent == 0 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "request_id, named", [("\ud800", "not UTF-8"), (5, "type int"), ("r" * 257, "longer than 256")]
)
async def test_a_request_id_that_no_worker_could_give_back_is_refused(open_redis, request_id, named):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            with pytest.raises(BadTick, match=named):
                await producer.send("x", 1, 1, request_id)
        assert producer.sent == 0


async def test_a_producer_that_was_not_entered_says_how():
    with pytest.raises(StateStoreError, match="use `async with TickProducer"):
        await TickProducer("redis://localhost").send("x", 1, 1)


async def test_a_producer_that_was_left_takes_no_more(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            await producer.send(fleet.assets[0], 1, 1)
        with pytest.raises(StateStoreError, match="is closed"):
            await producer.send(fleet.assets[0], 2, 2)
        assert len(await ticks_of(fleet)) == 1


async def test_a_lost_reply_makes_no_second_tick(open_redis, proxy):
    async with open_redis() as fleet, proxy:
        async with producer_of(fleet, f"unix://{proxy.path}") as producer:
            for n in range(300):
                await producer.send(fleet.assets[0], n, n)
                if n % 60 == 59:
                    await asyncio.sleep(0)  # Lets a round go out.
                    proxy.cut()
                    await producer.flush()
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == list(range(300))


async def test_a_server_that_lost_ticks_gets_them_again(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet, name="p") as producer:
            for n in range(50):
                await producer.send(fleet.assets[0], n, n)
            await producer.flush()
            ids = await fleet.tick_ids()
            session, _, _ = (await fleet.client.hget(fleet.key("producers"), "p")).split(b":")
            await fleet.client.xdel(fleet.key("ticks"), *ids[30:])  # As after a failover: log and marks go back.
            await fleet.client.hset(fleet.key("producers"), "p", session + b":30:0")
            await producer.send(fleet.assets[0], 50, 50)
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == list(range(51))
        assert (producer.rewinds, producer.lost, producer.accepted) == (1, 0, 51)


async def test_what_cannot_be_sent_again_is_counted_as_lost(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet, name="p", limits=ProducerLimits(rewind_max=5)) as producer:
            for n in range(50):
                await producer.send(fleet.assets[0], n, n)
            await producer.flush()
            session, _, _ = (await fleet.client.hget(fleet.key("producers"), "p")).split(b":")
            await fleet.client.hset(fleet.key("producers"), "p", session + b":30:0")
            await fleet.client.delete(fleet.key("ticks"))
            await producer.send(fleet.assets[0], 50, 50)
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == [45, 46, 47, 48, 49, 50]
        assert (producer.lost, producer.accepted) == (15, 36)


async def test_a_full_partition_holds_the_producer_back_and_nothing_is_dropped(open_redis):
    async with open_redis() as fleet:
        with pytest.raises(PartitionFull, match="20 unread ticks"):
            async with producer_of(fleet, limits=IMPATIENT) as producer:
                for n in range(50):
                    await producer.send(fleet.assets[0], n, n)
        assert producer.accepted == 20
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == list(range(20))


async def test_a_partition_takes_more_as_soon_as_it_is_read(open_redis, commit_of):
    async with open_redis() as fleet:
        limits = ProducerLimits(batch_size_max=16, backlog_max=20, waiting_max=32, patience_s=5.0)
        async with working(fleet, commit_of) as store, producer_of(fleet, limits=limits) as producer:
            for n in range(500):
                await producer.send(fleet.assets[0], n, n + 1)
        assert producer.accepted == 500 and (await store.probe(P)).added == 500


async def test_the_backlog_limit_also_holds_after_trimming(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store(retention=Retention(ticks=100))
        lease = await store.acquire(P, "one", 60_000)
        await fleet.feed(1000)
        cursor = lease.cursor
        while len(ticks := await store.read(P, cursor, 250, 0)):
            await store.commit(lease, commit_of(lease, ticks, before=cursor))
            cursor = ticks.ids[-1]
        assert len(await fleet.tick_ids()) < 500
        with pytest.raises(PartitionFull):
            async with producer_of(fleet, limits=IMPATIENT) as producer:
                for n in range(50):
                    await producer.send(fleet.assets[0], n, n)
        assert producer.accepted == (await store.probe(P)).backlog == 20


async def test_a_sealed_partition_and_a_full_server_are_named(open_redis):
    async with open_redis() as fleet:
        await fleet.client.hset(fleet.key("control"), "seal", "broken")
        with pytest.raises(PartitionSealed, match="broken"):
            async with producer_of(fleet, limits=IMPATIENT) as producer:
                await producer.send(fleet.assets[0], 1)
        await fleet.client.hdel(fleet.key("control"), "seal")
        await fleet.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreFull):
                async with producer_of(fleet, limits=IMPATIENT) as producer:
                    await producer.send(fleet.assets[0], 1)
        finally:
            await fleet.client.config_set("maxmemory", 0)
        assert await ticks_of(fleet) == []


async def test_a_newer_producer_of_the_same_name_takes_over(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet, name="same") as newer:
            with pytest.raises(ProducerFenced, match="'same'"):
                async with producer_of(fleet, name="same") as older:
                    older._sender = replace(older._sender, session=newer._sender.session - 1)
                    await newer.send(fleet.assets[0], 1, 1)
                    await newer.flush()
                    await older.send(fleet.assets[0], 2, 2)
                    await older.flush()
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == [1]


async def test_a_restarted_producer_begins_anew_under_its_name(open_redis):
    async with open_redis() as fleet:
        for start in (0, 10):
            async with producer_of(fleet, name="same") as producer:
                for n in range(start, start + 10):
                    await producer.send(fleet.assets[0], n, n)
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == list(range(20))
        assert await fleet.client.hlen(fleet.key("producers")) == 1


async def test_a_flushed_script_cache_loses_nothing(open_redis):
    async with open_redis() as fleet:
        async with producer_of(fleet) as producer:
            for n in range(5):
                await fleet.client.script_flush()
                await producer.send(fleet.assets[0], n, n)
                await producer.flush()
        assert [int(named[b"t"]) for named in await ticks_of(fleet)] == list(range(5))


async def test_a_missing_fleet_is_named(server, namespace):
    with pytest.raises(FleetMissing, match=f"'{namespace}'.*predictor init"):
        async with TickProducer(server.url, namespace):
            pass
    with pytest.raises(FleetMissing, match=f"'{namespace}'.*predictor init"):
        await PredictionReader(server.url, namespace).read(0)


async def test_a_reader_gets_every_prediction_once_with_its_telemetry(open_redis, commit_of):
    async with open_redis() as fleet:
        async with working(fleet, commit_of):
            async with producer_of(fleet) as producer:
                for n in range(300):
                    await producer.send(f"asset-{n % 5}", n, n + 1, request_id="q" if n == 7 else None)
            found = []
            async for prediction in PredictionReader(fleet.url, fleet.namespace, start="0"):
                found.append(prediction)
                if len(found) == 300:
                    break
        assert len({(prediction.partition, prediction.tick_id) for prediction in found}) == 300
        assert sorted(prediction.reference_prediction for prediction in found) == [float(n) for n in range(300)]
        assert found[0].telemetry == {"one": 1.5, "two": 2.5} and len(found[0].quantiles) == 3
        assert [p.reference_prediction for p in found if p.request_id == "q"] == [7.0]


async def test_a_late_reader_starts_with_the_newest_and_follows_without_gap_or_repetition(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", 60_000)
        ids = await fleet.feed(12, fleet.assets[:3])
        ticks = await store.read(P, lease.cursor, 20, 0)
        await store.commit(lease, commit_of(lease, ticks[:8]))
        async with PredictionReader(fleet.url, fleet.namespace, block_ms=50) as reader:
            await store.commit(lease, commit_of(lease, ticks[8:], before=ids[7]))
            found = await reader.read() + await reader.read()
            assert [prediction.tick_id.encode() for prediction in found] == ids[5:]
            assert await reader.read() == []


@pytest.mark.parametrize("start, expected", [("0", slice(0, 8)), ("$", slice(4, 8)), ("id", slice(2, 8))])
async def test_a_reader_starts_where_it_is_told(open_redis, commit_of, start, expected):
    async with open_redis() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", 60_000)
        ids = await fleet.feed(8)
        ticks = await store.read(P, lease.cursor, 20, 0)
        await store.commit(lease, commit_of(lease, ticks[:4]))
        place = ids[1] if start == "id" else start
        async with PredictionReader(fleet.url, fleet.namespace, start=place, partitions=[P]) as reader:
            await store.commit(lease, commit_of(lease, ticks[4:], before=ids[3]))
            found = await reader.read()
        assert [prediction.tick_id.encode() for prediction in found] == ids[expected]


async def test_a_reader_goes_back_with_the_server_and_repeats_nothing(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", 60_000)
        ids = await fleet.feed(10)
        ticks = await store.read(P, lease.cursor, 20, 0)
        first, second = commit_of(lease, ticks[:4]), commit_of(lease, ticks[4:8], before=ids[3])
        await store.commit(lease, first)
        saved = {key: await fleet.client.dump(fleet.key(key)) for key in ("control", "predictions")}
        await store.commit(lease, second)
        async with PredictionReader(fleet.url, fleet.namespace, start="0", block_ms=20) as reader:
            assert len(await reader.read()) == 8
            for key, dump in saved.items():  # The server is as it was four predictions ago.
                await fleet.client.restore(fleet.key(key), 0, dump, replace=True)
            assert await reader.read() == [] and reader.rollbacks == 1
            again = commit_of(lease, ticks[4:], before=ids[3])
            assert await store.commit(lease, again) is Outcome.OK
            assert [prediction.tick_id.encode() for prediction in await reader.read()] == ids[8:]


async def test_a_reader_outlives_its_connection_and_being_cancelled(open_redis, commit_of, proxy):
    async with open_redis() as fleet, proxy:
        store = fleet.store()
        lease = await store.acquire(P, "one", 60_000)
        async with PredictionReader(f"unix://{proxy.path}", fleet.namespace, start="0") as reader:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(60_000)
            proxy.cut()
            await asyncio.sleep(0)
            ids = await fleet.feed(3)
            await store.commit(lease, commit_of(lease, await store.read(P, lease.cursor, 9, 0)))
            assert [prediction.tick_id.encode() for prediction in await reader.read()] == ids


async def test_a_wrong_start_is_refused(open_redis):
    async with open_redis() as fleet:
        with pytest.raises(BadUrl, match="'yesterday' is no place to start from"):
            await PredictionReader(fleet.url, fleet.namespace, start="yesterday").read(0)

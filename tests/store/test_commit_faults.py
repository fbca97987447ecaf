"""Commits through lost replies, foreign touches, full servers and broken keys: once, or not at all."""

import asyncio

import numpy as np
import pytest
import uvloop

from state_store import (
    Held,
    Outcome,
    PartitionSealed,
    PredictionReader,
    RedisStateStore,
    StoreFull,
    StoreUnavailable,
    TickProducer,
    Timeouts,
)

P = 3
TTL_MS = 60_000


@pytest.fixture
def begin(open_redis, commit_of):
    """A holder with three commits of three ticks each, not yet sent."""

    async def begun(fleet, store):
        lease = await store.acquire(P, "one", TTL_MS)
        await fleet.feed(9)
        ticks = await store.read(P, lease.cursor, 9, 0)
        cursors = [lease.cursor, ticks.ids[2], ticks.ids[5]]
        parts = [ticks[start : start + 3] for start in (0, 3, 6)]
        return lease, [commit_of(lease, part, before=c) for part, c in zip(parts, cursors, strict=True)]

    return begun


@pytest.mark.parametrize("mode, made", [("request", 3), ("reply", 6), ("half", 3)])
async def test_after_a_broken_connection_a_commit_is_told_but_none_is_sent(open_redis, begin, proxy, mode, made):
    async with open_redis() as fleet, proxy:
        store = fleet.store(f"unix://{proxy.path}")
        lease, commits = await begin(fleet, store)
        outcomes = []
        for commit in commits:
            proxy.lose = mode if commit is commits[1] else None
            outcomes.append(await store.commit(lease, commit))
        told = Outcome.ALREADY if made == 6 else Outcome.CONFLICT
        assert proxy.lost == 1 and outcomes == [Outcome.OK, told, Outcome.CONFLICT]
        ids = [entry_id for commit in commits for entry_id in commit.ids]
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids[:made]
        assert (await store.probe(P)).applied == made


@pytest.mark.parametrize("again", [False, True])
async def test_ticks_that_a_failover_took_get_no_predictions(open_redis, begin, again):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        await fleet.client.client_kill_filter(_type="normal", skipme=True)
        await fleet.client.delete(fleet.key("ticks"))
        for tick_id in commits[1].ids if again else ():  # The new primary's clock is behind and gives the ids again.
            await fleet.client.xadd(fleet.key("ticks"), {"a": fleet.assets[0], "y": "2", "t": "3"}, id=tick_id)
        assert await store.commit(lease, commits[1]) is Outcome.CONFLICT
        assert [entry_id for entry_id, _ in await fleet.predictions()] == commits[0].ids


async def test_a_takeover_while_the_reply_was_lost_is_told_from_a_failure(open_redis, begin, proxy, commit_of):
    async with open_redis() as fleet, proxy:
        store, heir = fleet.store(f"unix://{proxy.path}"), fleet.store()
        lease, commits = await begin(fleet, store)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        await fleet.client.hset(fleet.key("control"), "until", 0)
        new = await heir.acquire(P, "heir", TTL_MS)
        proxy.cut()
        assert await store.commit(lease, commits[1]) is Outcome.FENCED
        assert await heir.commit(new, commit_of(new, await heir.read(P, new.cursor, 3, 0))) is Outcome.OK
        assert await store.commit(lease, commits[1]) is Outcome.ALREADY  # The heir has made the same step.
        assert await store.commit(lease, commits[2]) is Outcome.FENCED
        assert len(await fleet.predictions()) == 6


async def test_a_foreign_touch_voids_and_the_commit_is_sent_again(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        for commit in commits:
            await fleet.store().want(P, "other")
            await fleet.client.hset(fleet.key("control"), "unknown", "field")
            assert await store.commit(lease, commit) is Outcome.OK
        assert len(await fleet.predictions()) == 9


async def test_a_takeover_between_two_commits_fences_the_second(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        await fleet.client.hset(fleet.key("control"), "until", 0)
        await fleet.store().acquire(P, "heir", TTL_MS)
        assert await store.commit(lease, commits[1]) is Outcome.FENCED
        assert len(await fleet.predictions()) == 3


async def test_a_cursor_ahead_of_the_server_conflicts_and_the_renewal_tells_the_servers(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        await fleet.client.hset(fleet.key("control"), "cursor", "0-0")  # As after a failover.
        assert await store.commit(lease, commits[1]) is Outcome.CONFLICT
        assert store.seen(P).cursor == b"0-0"
        assert (await store.renew(lease)).cursor == b"0-0"


async def test_an_acquire_whose_reply_was_lost_gives_the_same_lease(open_redis, proxy):
    async with open_redis() as fleet, proxy:
        store = fleet.store(f"unix://{proxy.path}")
        proxy.lose, proxy.matches = "reply", b"acquire"
        with pytest.raises(StoreUnavailable):
            await store.acquire(P, "one", TTL_MS)
        assert proxy.lost == 1 and (await fleet.store().probe(P)).owner == "one"
        lease = await store.acquire(P, "one", TTL_MS)
        assert not isinstance(lease, Held) and (lease.epoch, lease.attempts) == (1, 1)


async def test_renewals_and_commits_in_any_order(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        answers = await asyncio.gather(
            store.renew(lease), store.commit(lease, commits[0]), store.renew(lease), store.commit(lease, commits[1])
        )
        assert [answers[1], answers[3]] == [Outcome.OK, Outcome.OK]
        assert answers[2].cursor == commits[0].after


async def test_a_commit_extends_the_lease(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        await fleet.client.hset(fleet.key("control"), "until", 1)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        assert TTL_MS - 5000 < (await store.probe(P)).lease_left_ms <= TTL_MS


async def test_a_full_server_refuses_the_whole_commit(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        await fleet.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreFull, match="raise maxmemory"):
                await store.commit(lease, commits[0])
        finally:
            await fleet.client.config_set("maxmemory", 0)
        assert await fleet.predictions() == [] and not await fleet.client.exists(fleet.key("states"))
        assert (await store.probe(P)).cursor == b"0-0"
        assert await store.commit(lease, commits[0]) is Outcome.OK


async def test_on_a_full_server_leases_move_and_history_makes_room(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        assert await store.commit(lease, commits[0]) is Outcome.OK
        await fleet.client.config_set("maxmemory", 1)
        try:
            assert not isinstance(await store.renew(lease), Held)
            assert await store.make_room(P) == 2
            await store.register_worker("late", {})
            await store.release(lease)
            new = await fleet.store().acquire(P, "late", TTL_MS)
            assert not isinstance(new, Held) and new.cursor == commits[0].after
        finally:
            await fleet.client.config_set("maxmemory", 0)
        probe = await store.probe(P)
        assert (probe.trimmed, probe.length, probe.backlog) == (2, 7, 6)


@pytest.mark.parametrize("key", ["states", "latest", "predictions"])
async def test_a_key_of_another_kind_seals_the_partition(open_redis, begin, key):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        await fleet.client.set(fleet.key(key), "not ours")
        with pytest.raises(PartitionSealed, match=r"Partition 3 is sealed.*HDEL test\d+:\{3\}:control seal"):
            await store.commit(lease, commits[0])
        assert b"WRONGTYPE" in await fleet.client.hget(fleet.key("control"), "seal")
        with pytest.raises(PartitionSealed):
            await fleet.store().acquire(P, "two", TTL_MS)
        with pytest.raises(PartitionSealed):
            await store.commit(lease, commits[1])


async def test_predictions_that_somebody_else_wrote_seal_the_partition(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        await fleet.client.xadd(fleet.key("predictions"), {"p": "foreign"}, id=commits[0].ids[1])
        with pytest.raises(PartitionSealed, match="smaller"):
            await store.commit(lease, commits[0])


async def test_a_flushed_script_cache_is_no_matter(open_redis, begin):
    async with open_redis() as fleet:
        store = fleet.store()
        lease, commits = await begin(fleet, store)
        for commit in commits:
            await fleet.client.script_flush()
            assert await store.commit(lease, commit) is Outcome.OK
            assert not isinstance(await store.renew(lease), Held)


async def test_an_unreachable_server_is_reported_and_a_new_lease_goes_on(open_redis, begin, proxy):
    async with open_redis() as fleet:
        async with proxy:
            store = fleet.store(f"unix://{proxy.path}", timeouts=Timeouts(resolve_s=0.2))
            lease, commits = await begin(fleet, store)
        with pytest.raises(StoreUnavailable):
            await store.commit(lease, commits[0])
        async with proxy:
            assert await store.commit(lease, commits[0]) is Outcome.CONFLICT
            await store.release(lease)
            again = await store.acquire(P, "one", TTL_MS)
            assert await store.commit(again, commits[0]) is Outcome.OK
        assert len(await fleet.predictions()) == 3


def test_the_same_on_uvloop(server, namespace, commit_of):
    async def predict_everything():
        store = RedisStateStore(server.url, namespace)
        await store.open_fleet(1, bytes(8), {})
        lease = await store.acquire(0, "one", TTL_MS)
        async with TickProducer(server.url, namespace) as producer:
            for n in range(2000):
                await producer.send(f"asset-{n % 50}", n)
        ticks = await store.read(0, lease.cursor, 2000, 1000)
        large = np.zeros((50, 8192), np.uint8)
        assert await store.commit(lease, commit_of(lease, ticks, state_records=large)) is Outcome.OK
        async with PredictionReader(server.url, namespace, start="0") as reader:
            found = []
            while len(found) < 2000:
                found += await reader.read()
        assert [prediction.tick_id.encode() for prediction in found] == ticks.ids
        await store.release(lease)
        await store.close()

    uvloop.run(predict_everything())

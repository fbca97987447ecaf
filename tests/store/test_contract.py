"""What every store promises, asked of the double and of real servers alike."""

import asyncio

import msgpack
import numpy as np
import pytest

from state_store import FleetMismatch, FleetMissing, Held, Lease, Outcome, Retention
from state_store.contract import CONFIG_GENERATIONS_MAX, ascending

P = 3
TTL_MS = 60_000
SHORT_MS = 50


async def test_a_fleet_opens_again_with_the_same_values(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        meta = await store.read_meta()
        assert await store.open_fleet(meta.partitions, meta.layout, meta.fields) == meta


@pytest.mark.parametrize(
    "change, named",
    [
        ({"partitions": 8}, "with 4 partitions, 8 were asked for"),
        ({"layout": b"x" * 8}, "7878787878787878"),
        ({"fields": {"telemetry": ["one"]}}, "quantile_levels"),
    ],
)
async def test_a_fleet_made_with_other_values_is_refused(open_fleet, change, named):
    async with open_fleet() as fleet:
        store = fleet.store()
        meta = await store.read_meta()
        asked = {"partitions": meta.partitions, "layout": meta.layout, "fields": meta.fields} | change
        with pytest.raises(FleetMismatch, match=named):
            await store.open_fleet(**asked)
        assert await store.read_meta() == meta


async def test_one_holder_at_a_time(open_fleet):
    async with open_fleet() as fleet:
        lease = await fleet.store().acquire(P, "one", TTL_MS)
        held = await fleet.store().acquire(P, "two", TTL_MS)
        assert isinstance(lease, Lease) and (lease.epoch, lease.attempts, lease.cursor) == (1, 1, b"0-0")
        assert isinstance(held, Held) and held.owner == "one" and 0 < held.left_ms <= TTL_MS


async def test_release_frees_the_partition_and_counts_no_attempt(open_fleet):
    async with open_fleet() as fleet:
        one = fleet.store()
        await one.release(await one.acquire(P, "one", TTL_MS))
        lease = await fleet.store().acquire(P, "two", TTL_MS)
        assert isinstance(lease, Lease) and (lease.epoch, lease.attempts) == (2, 1)


async def test_takeover_after_expiry_counts_the_attempt_while_ticks_wait(open_fleet):
    async with open_fleet() as fleet:
        for epoch in (1, 2):
            lease = await fleet.store().acquire(P, "one", SHORT_MS)
            await fleet.until_expired()
            assert isinstance(lease, Lease) and (lease.epoch, lease.attempts) == (epoch, 1)
        await fleet.feed(1)
        await fleet.store().acquire(P, "one", SHORT_MS)
        await fleet.until_expired()
        lease = await fleet.store().acquire(P, "two", TTL_MS)
        assert isinstance(lease, Lease) and (lease.epoch, lease.attempts) == (4, 3)


async def test_renewal_after_expiry_succeeds_while_nobody_took_over(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", SHORT_MS)
        await fleet.until_expired()
        renewed = await store.renew(lease)
        assert isinstance(renewed, Lease) and renewed.epoch == lease.epoch


async def test_a_lost_lease_cannot_be_renewed_nor_released(open_fleet):
    async with open_fleet() as fleet:
        zombie = fleet.store()
        lease = await zombie.acquire(P, "zombie", SHORT_MS)
        await fleet.until_expired()
        await fleet.store().acquire(P, "heir", TTL_MS)
        held = await zombie.renew(lease)
        assert isinstance(held, Held) and held.owner == "heir"
        await zombie.release(lease)
        assert (await zombie.probe(P)).owner == "heir"


async def test_the_holder_hears_who_wants_its_partition(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        await fleet.feed(2)
        await fleet.store().want(P, "two")
        ticks = await store.read(P, lease.cursor, 10, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        assert store.seen(P).wanted_by == "two"
        assert (await store.renew(lease)).wanted_by == "two"


async def test_a_commit_moves_everything_together(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(5)
        ticks = await store.read(P, lease.cursor, 10, 0)
        commit = commit_of(lease, ticks)
        assert await store.commit(lease, commit) is Outcome.OK
        predictions = await fleet.predictions()
        assert [entry_id for entry_id, _ in predictions] == ids
        assert [named[b"p"] for _, named in predictions] == commit.payloads.tolist()
        assert [named[b"t"] for _, named in predictions] == [b"%d" % t for t in ticks.times_ns]
        records = await store.load(P, [*commit.state_assets, b"never seen"])
        assert records == [*map(bytes, commit.state_records), None]
        assert store.seen(P).cursor == ids[-1] and store.seen(P).applied == 5
        probe = await store.probe(P)
        assert (probe.cursor, probe.applied, probe.backlog, probe.attempts) == (ids[-1], 5, 0, 0)


async def test_latest_holds_id_and_prediction_of_each_assets_last_tick(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(5, fleet.assets[:2])
        commit = commit_of(lease, await store.read(P, lease.cursor, 10, 0))
        await store.commit(lease, commit)
        latest = {asset: msgpack.unpackb(value) for asset, value in (await fleet.latest()).items()}
        last = {fleet.assets[0]: 4, fleet.assets[1]: 3}
        assert latest == {a: [ids[n].decode(), msgpack.unpackb(bytes(commit.payloads[n]))] for a, n in last.items()}


async def test_the_same_commit_again_is_already_there(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        await fleet.feed(3)
        commit = commit_of(lease, await store.read(P, lease.cursor, 10, 0))
        outcomes = [await store.commit(lease, commit) for _ in range(3)]
        assert outcomes == [Outcome.OK, Outcome.ALREADY, Outcome.ALREADY]
        assert len(await fleet.predictions()) == 3


async def test_a_commit_from_another_cursor_conflicts(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(4)
        ticks = await store.read(P, lease.cursor, 10, 0)
        await store.commit(lease, commit_of(lease, ticks[:2]))
        assert await store.commit(lease, commit_of(lease, ticks[2:], before=ids[0])) is Outcome.CONFLICT
        assert len(await fleet.predictions()) == 2


async def test_a_zombies_commit_is_fenced(open_fleet, commit_of):
    async with open_fleet() as fleet:
        zombie, heir = fleet.store(), fleet.store()
        old = await zombie.acquire(P, "zombie", SHORT_MS)
        await fleet.feed(4)
        ticks = await zombie.read(P, old.cursor, 10, 0)
        await fleet.until_expired()
        new = await heir.acquire(P, "heir", TTL_MS)
        assert await zombie.commit(old, commit_of(old, ticks)) is Outcome.FENCED
        assert len(await fleet.predictions()) == 0
        assert await heir.commit(new, commit_of(new, ticks)) is Outcome.OK
        assert len(await fleet.predictions()) == 4


async def test_an_expired_lease_commits_while_nobody_took_over(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", SHORT_MS)
        await fleet.feed(1)
        await fleet.until_expired()
        commit = commit_of(lease, await store.read(P, lease.cursor, 10, 0))
        assert await store.commit(lease, commit) is Outcome.OK


async def test_commits_follow_each_other_and_a_takeover_goes_on_behind_them(open_fleet, commit_of):
    async with open_fleet() as fleet:
        one, two = fleet.store(), fleet.store()
        lease = await one.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(9)
        cursor = lease.cursor
        for _ in range(2):
            ticks = await one.read(P, cursor, 3, 0)
            assert await one.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
            cursor = ticks.ids[-1]
        await one.release(lease)
        heir = await two.acquire(P, "two", TTL_MS)
        assert (heir.cursor, heir.applied) == (ids[5], 6)
        ticks = await two.read(P, heir.cursor, 10, 0)
        assert await two.commit(heir, commit_of(heir, ticks)) is Outcome.OK
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids


async def test_dead_letters_go_with_the_commit(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        await fleet.feed(1)
        bad = {b"a": fleet.assets[0], b"y": b"nan", b"t": b"17", b"x": b"\xff\x00"}
        bad_id = await fleet.append(bad)
        ticks = await store.read(P, lease.cursor, 10, 0)
        assert ticks.malformed == {1: "not finite: 'nan'"}
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        ((entry_id, letter),) = await fleet.rejected()
        assert (entry_id, letter[b"a"], letter[b"reason"]) == (bad_id, fleet.assets[0], b"not finite: 'nan'")
        assert msgpack.unpackb(letter[b"payload"]) == [piece for pair in bad.items() for piece in pair]
        assert (await store.probe(P)).applied == 2


async def test_a_batch_of_nothing_but_dead_letters_moves_the_cursor(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        bad_id = await fleet.append({b"q": b"1"})
        ticks = await store.read(P, lease.cursor, 10, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        assert store.seen(P).cursor == bad_id and len(await fleet.rejected()) == 1


async def test_request_ids_travel_from_tick_to_prediction(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        await fleet.feed(1)
        await fleet.append({b"a": fleet.assets[0], b"y": b"1", b"t": b"17", b"r": b"mine"})
        ticks = await store.read(P, lease.cursor, 10, 0)
        assert ticks.request_ids == [None, b"mine"]
        await store.commit(lease, commit_of(lease, ticks))
        assert [named.get(b"r") for _, named in await fleet.predictions()] == [None, b"mine"]


async def test_states_may_trail_the_cursor(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(4)
        ticks = await store.read(P, lease.cursor, 10, 0)
        await store.commit(lease, commit_of(lease, ticks[:2]))
        none = np.zeros((0, 32), np.uint8)
        later = commit_of(lease, ticks[2:], before=ids[1], state_assets=[], state_records=none, state_cursor=ids[1])
        assert await store.commit(lease, later) is Outcome.OK
        await store.release(lease)
        heir = await fleet.store().acquire(P, "two", TTL_MS)
        assert (heir.cursor, heir.state_cursor) == (ids[3], ids[1])


async def test_a_late_copy_of_some_states_does_not_say_that_the_others_are_missing(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store, ids = fleet.store(), await fleet.feed(2)
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 10, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        nothing = {"ids": [], "assets": [], "times_ns": ticks.times_ns[:0], "payloads": np.empty(0, "V1"), "applied": 0}
        copy = {"before": ids[1], "after": ids[1], "state_cursor": b"0-0", **nothing, "request_ids": None}
        assert await store.commit(lease, commit_of(lease, ticks[1:], **copy)) is Outcome.CONFLICT
        assert (await store.probe(P)).state_cursor == ids[1]


async def test_trimming_keeps_the_retention_and_every_unread_tick(open_fleet, commit_of):
    async with open_fleet() as fleet:
        kept, total, step = 400, 1600, 200
        store = fleet.store(retention=Retention(ticks=kept, predictions=kept))
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(total)
        cursor = lease.cursor
        for _ in range(6):
            ticks = await store.read(P, cursor, step, 0)
            assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
            cursor = ticks.ids[-1]
        left = await fleet.tick_ids()
        probe = await store.probe(P)
        read = ids.index(cursor) + 1
        assert left == ids[-len(left) :] and ids.index(left[0]) <= read - kept
        assert len(left) < total - read + kept + 300  # The server cuts whole nodes only.
        assert probe.trimmed == total - len(left) and probe.backlog == total - read
        assert kept <= len(await fleet.predictions()) < kept + 300


async def test_room_is_made_of_applied_ticks_then_of_old_predictions_never_of_unread_ticks(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store(retention=Retention(predictions=100))
        lease = await store.acquire(P, "one", TTL_MS)
        assert await store.make_room(P) == 0
        ids = await fleet.feed(90)
        ticks = await store.read(P, lease.cursor, 60, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        assert await store.make_room(P) == 59
        assert await fleet.tick_ids() == ids[59:]  # The last applied one stays.
        assert await store.make_room(P) == 0  # The predictions are fewer than a reader may count on.
        probe = await store.probe(P)
        assert (probe.trimmed, probe.backlog) == (59, 30)
        ticks = await store.read(P, ids[59], 30, 0)
        assert await store.commit(lease, commit_of(lease, ticks, before=ids[59])) is Outcome.OK
        sparing = fleet.store(retention=Retention(predictions=10))
        assert await sparing.make_room(P) == 30
        assert [await sparing.make_room(P) for _ in range(4)] == [45, 22, 11, 2]
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids[-10:]


async def test_a_new_holder_goes_on_trimming(open_fleet, commit_of):
    async with open_fleet() as fleet:
        ids = await fleet.feed(1000)
        cursor = b"0-0"
        for name in "abcde":
            store = fleet.store(retention=Retention(ticks=300))
            lease = await store.acquire(P, name, TTL_MS)
            ticks = await store.read(P, lease.cursor, 200, 0)
            assert lease.cursor == cursor and await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
            cursor = ticks.ids[-1]
            await store.release(lease)
        assert cursor == ids[-1] and 300 <= len(await fleet.tick_ids()) <= 700


async def test_reading_waits_for_the_first_tick(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        assert len(await store.read(P, b"0-0", 10, 0)) == 0
        reading = asyncio.create_task(store.read(P, b"0-0", 10, 5000))
        await asyncio.sleep(0)
        ids = await fleet.feed(1)
        assert (await reading).ids == ids


async def test_a_cancelled_read_leaves_the_store_usable(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.read(P, b"0-0", 10, 60_000)
        ids = await fleet.feed(1)
        assert (await store.read(P, b"0-0", 10, 1000)).ids == ids


async def test_a_task_that_asks_ends_when_it_is_cancelled_at_whatever_moment(open_fleet):
    async def ask_on(store):
        for _ in range(1000):
            await store.read_meta()
            await asyncio.sleep(0)

    async with open_fleet() as fleet:
        store = fleet.store()
        await store.read_meta()
        for steps in range(60):
            asking = asyncio.create_task(ask_on(store))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            assert asking.cancelled(), f"cancelled after {steps} steps, it goes on"


async def test_the_probe_counts_unread_ticks(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        assert (await store.probe(P)).backlog == 0
        ids = await fleet.feed(7)
        probe = await store.probe(P)
        assert (probe.added, probe.length, probe.backlog, probe.last_id) == (7, 7, 7, ids[-1])


async def test_many_may_ask_at_once(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        probes = await asyncio.gather(*(store.probe(P) for _ in range(64)))
        assert {probe.backlog for probe in probes} == {0}


async def test_workers_are_listed_until_they_leave(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        await store.register_worker("b", {"capacity": 2})
        await store.register_worker("a", {"held": [1]})
        listed = await store.workers()
        assert [(worker.name, worker.info) for worker in listed] == [("a", {"held": [1]}), ("b", {"capacity": 2})]
        assert all(0 <= worker.age_ms < 5000 for worker in listed)
        await store.deregister_worker("a")
        assert [worker.name for worker in await store.workers()] == ["b"]


async def test_only_one_publishes_a_generation(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        assert (await store.read_config()).number == 0
        assert await store.publish_config(0, {"x": 1}) == 1
        assert await store.publish_config(0, {"x": 2}) is None
        config = await store.read_config()
        assert (config.number, config.values) == (1, {"x": 1})
        newest = CONFIG_GENERATIONS_MAX + 8
        for number in range(1, newest):
            assert await store.publish_config(number, {"x": number}) == number + 1
        history = await store.config_history()
        assert [config.number for config in history] == list(range(9, newest + 1))
        assert history[-1] == await store.read_config()


async def test_audit_events_get_rising_ids(open_fleet):
    async with open_fleet() as fleet:
        store = fleet.store()
        ids = [await store.append_audit({"who": who}) for who in "abc"]
        assert ascending(ids)


async def test_a_namespace_without_a_fleet_is_missing(open_redis):
    async with open_redis() as fleet:
        await fleet.client.delete(f"{fleet.namespace}:meta")
        with pytest.raises(FleetMissing, match="predictor init"):
            await fleet.store().read_meta()

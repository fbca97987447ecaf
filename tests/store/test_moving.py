"""Another number of partitions, over every kind of store: each step, and what is done twice or out of turn."""

from dataclasses import replace

import pytest

from state_store import FleetMismatch, Held, Lease, MoveRefused, Outcome, PartitionMoved
from state_store.keys import partition_of
from tests.store.conftest import FIELDS, LAYOUT, PARTITIONS

NEXT = 7


async def worked_off(fleet, store, commit_of) -> None:
    """Every tick is predicted, and every state stored."""
    for partition in range(PARTITIONS):
        lease = await store.acquire(partition, "worker", 5000)
        assert isinstance(lease, Lease)
        ticks = await store.read(partition, lease.cursor, 1000, 0)
        if ticks.ids:
            assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        await store.release(lease)


async def feed_everywhere(fleet, count: int = 20) -> list[bytes]:
    assets = [b"asset-%d" % number for number in range(count)]
    for number, asset in enumerate(assets):
        fields = {b"a": asset, b"y": b"%d.5" % number, b"t": b"%d" % next(fleet.clock_ns)}
        await fleet.append(fields, partition_of(asset, PARTITIONS))
    return assets


async def moved(store) -> None:
    await store.begin_move(NEXT)
    for step in (store.close_partition, store.carry):
        for partition in range(PARTITIONS):
            await step(partition)
    await store.end_move()


async def test_every_state_is_in_its_next_partition_byte_for_byte(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        assets = await feed_everywhere(fleet)
        await worked_off(fleet, store, commit_of)
        before = {asset: (await store.load(partition_of(asset, PARTITIONS), [asset]))[0] for asset in assets}
        await moved(store)
        other = fleet.store()
        meta = await other.read_meta()
        assert (meta.generation, meta.partitions, meta.past, meta.next_partitions) == (1, NEXT, (PARTITIONS,), 0)
        after = {asset: (await other.load(partition_of(asset, NEXT), [asset]))[0] for asset in assets}
        assert after == before and None not in after.values()
        store.follow(meta)
        assert (await store.load(partition_of(assets[0], NEXT), [assets[0]]))[0] == before[assets[0]]


async def test_a_new_partition_takes_ticks_of_its_own_assets_only_and_goes_on_from_the_states(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        assets = await feed_everywhere(fleet)
        await worked_off(fleet, store, commit_of)
        await moved(store)
        store.follow(await store.read_meta())
        home = partition_of(assets[0], NEXT)
        await fleet.append_next({b"a": assets[0], b"y": b"1.5", b"t": b"1800000000000000000"}, home)
        stranger = next(asset for asset in assets if partition_of(asset, NEXT) != home)
        await fleet.append_next({b"a": stranger, b"y": b"1.5", b"t": b"1800000000000000000"}, home)
        lease = await store.acquire(home, "worker", 5000)
        ticks = await store.read(home, lease.cursor, 10, 0)
        assert ticks.assets == [assets[0], stranger] and list(ticks.malformed) == [1]
        assert await store.commit(lease, commit_of(lease, ticks[:1])) is Outcome.OK


async def test_a_closed_partition_takes_no_tick_and_is_drained_by_its_worker(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        await fleet.feed(5)
        await store.begin_move(NEXT)
        probe = await store.close_partition(fleet.partition)
        assert (probe.closed, probe.drained, probe.backlog) == (True, False, 5)
        with pytest.raises(Exception, match="(?i)exhausted|takes no ticks"):
            await fleet.feed(1)
        with pytest.raises(MoveRefused):
            await store.carry(fleet.partition)
        lease = await store.acquire(fleet.partition, "worker", 5000)
        ticks = await store.read(fleet.partition, lease.cursor, 10, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        probe = await store.close_partition(fleet.partition)
        assert (probe.drained, probe.backlog, probe.last_id) == (True, 0, ticks.ids[-1])
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.ALREADY
        assert isinstance(await store.renew(lease), Held)
        with pytest.raises(PartitionMoved):
            await store.acquire(fleet.partition, "other", 5000)


async def test_whoever_held_a_drained_partition_writes_nothing_more(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        await fleet.feed(3)
        lease = await store.acquire(fleet.partition, "worker", 5000)
        ticks = await store.read(fleet.partition, lease.cursor, 10, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        await store.begin_move(NEXT)
        assert (await store.close_partition(fleet.partition)).drained
        whole = commit_of(lease, ticks)
        nothing = {"ids": [], "assets": [], "times_ns": whole.times_ns[:0], "payloads": whole.payloads[:0]}
        states_alone = replace(whole, before=whole.after, applied=0, request_ids=None, **nothing)
        assert await store.commit(lease, states_alone) is Outcome.FENCED


async def test_every_step_may_be_done_again_and_none_out_of_turn(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        for early in (store.end_move(), store.close_partition(0), store.carry(0)):
            with pytest.raises(MoveRefused):
                await early
        assets = await feed_everywhere(fleet)
        await worked_off(fleet, store, commit_of)
        for _ in range(2):
            assert (await store.begin_move(NEXT)).next_partitions == NEXT
        with pytest.raises(MoveRefused, match="on its way to 7"):
            await store.begin_move(NEXT + 1)
        with pytest.raises(MoveRefused):
            await store.end_move()
        for partition in range(PARTITIONS):
            assert (await store.close_partition(partition)).drained
        with pytest.raises(MoveRefused, match="were carried over"):
            await store.end_move()
        late = fleet.store()
        await late.read_meta()
        carried = [await store.carry(partition) for _ in range(2) for partition in range(PARTITIONS)]
        assert sum(each.states for each in carried) == 2 * len(assets)
        for _ in range(2):
            assert (await store.end_move()).generation == 1
        assert (await late.carry(0)).states == 0
        assert (await late.end_move()).generation == 1
        assert (await late.begin_move(NEXT)).next_partitions == 0


async def test_whoever_asks_for_the_number_it_was_made_with_is_let_in(open_fleet):
    async with open_fleet() as fleet:
        await moved(fleet.store())
        for asked in (PARTITIONS, NEXT):
            assert (await fleet.store().open_fleet(asked, LAYOUT, FIELDS)).partitions == NEXT
        with pytest.raises(FleetMismatch, match="has 7 partitions now"):
            await fleet.store().open_fleet(5, LAYOUT, FIELDS)


async def test_the_past_is_emptied_when_asked_and_its_logs_stay_closed(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        assets = await feed_everywhere(fleet)
        await worked_off(fleet, store, commit_of)
        await moved(store)
        for _ in range(2):
            assert (await store.forget_past()).oldest == 1
        assert await store.load(partition_of(assets[0], PARTITIONS), [assets[0]]) == [None]
        with pytest.raises(Exception, match="(?i)exhausted|takes no ticks"):
            await fleet.feed(1)
        assert (await store.probe(fleet.partition)).length == 0

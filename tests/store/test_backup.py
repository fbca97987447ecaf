"""Backups: whole or refused, of one moment, and what is put back goes on as if nothing had happened."""

import asyncio

import pytest

from state_store import BackupRefused, BadBackup, FleetMismatch, MoveRefused, PartitionHeld, RedisStateStore, Retention
from state_store.backup import DIGEST_BYTES, Backup, write_backup
from state_store.keys import Keys
from state_store.logs import Logs, Looking
from state_store.restore import restore


async def work(fleet, commit_of, count=10, **options):
    """Feeds some ticks and commits them as a worker would; the lease is given back."""
    await fleet.feed(count)
    store = fleet.store(**options)
    lease = await store.acquire(3, "worker", 5000)
    ticks = await store.read(3, lease.cursor, 10_000, 0)
    await store.commit(lease, commit_of(lease, ticks))
    await store.release(lease)
    return store


async def back_up(fleet, path, partitions=(0, 1, 2, 3)):
    async with Looking(fleet.url) as looking:
        meta = await fleet.store().read_meta()
        return await write_backup(Logs(looking, fleet.namespace), meta, path, list(partitions))


async def put_back(fleet, path, namespace=None):
    namespace = namespace or fleet.namespace
    store = RedisStateStore(fleet.url, namespace)
    try:
        async with Looking(fleet.url) as looking:
            backup = Backup(path)
            await restore(store, Logs(looking, namespace), backup, sorted(backup.summary.moments))
    finally:
        await store.close()


async def remembered(fleet, namespace=None):
    """Everything of partition 3 that decides what comes next, whoever held it when."""
    keys = [key.replace(fleet.namespace.encode(), (namespace or fleet.namespace).encode()) for key in map(fleet.key, (
        "states", "latest", "control"))]  # fmt: skip
    states, latest, control = [await fleet.client.hgetall(key) for key in keys]
    return states, latest, {name: control[name] for name in (b"cursor", b"state_cursor", b"applied")}


async def test_a_backup_goes_into_an_empty_namespace_and_work_goes_on(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        summary = await back_up(fleet, tmp_path / "b")
        assert (summary.states, summary.meta.partitions) == (3, 4)
        await put_back(fleet, tmp_path / "b", f"{fleet.namespace}new")
        assert await remembered(fleet, f"{fleet.namespace}new") == await remembered(fleet)
        before = (await remembered(fleet))[2][b"applied"]
        fleet.namespace += "new"
        store = await work(fleet, commit_of, 4)
        probe = await store.probe(3)
        assert (probe.applied, probe.backlog) == (int(before) + 4, 0)


async def test_a_new_log_goes_on_after_the_cursor_even_if_the_clock_is_behind(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        far = b"%d-5" % (4 * 10**12)
        await fleet.client.xadd(fleet.key("ticks"), {b"a": fleet.assets[0], b"y": b"1", b"t": b"1"}, id=far)
        await work(fleet, commit_of, 0)
        await back_up(fleet, tmp_path / "b")
        fleet.namespace += "new"
        await put_back(fleet, tmp_path / "b")
        (entry_id,) = await fleet.feed(1)
        assert entry_id > far
        store = fleet.store()
        assert (await store.probe(3)).backlog == 1
        assert (await store.read(3, far, 10, 0)).ids == [entry_id]


async def test_a_partition_goes_back_to_the_backup_and_makes_the_same_again(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
        then = await remembered(fleet)
        await fleet.append({b"a": fleet.assets[0], b"y": b"x", b"t": b"1"})
        await work(fleet, commit_of, 700)
        after = await remembered(fleet), await fleet.predictions(), await fleet.rejected()
        await put_back(fleet, tmp_path / "b")
        assert await remembered(fleet) == then
        assert len(await fleet.predictions()) == 10 and await fleet.rejected() == []
        store = await work(fleet, commit_of, 0)
        assert (await remembered(fleet), await fleet.predictions(), await fleet.rejected()) == after
        assert (await store.probe(3)).backlog == 0


async def test_a_note_on_a_letter_of_partitions_before_outlasts_going_back(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
        await work(fleet, commit_of, 1)
        later = (await fleet.tick_ids())[-1]
        notes = {later: "purged", b"0.2:%b" % later: b"requeued as %b" % later}
        await fleet.client.hset(fleet.key("put_aside"), mapping=notes)
        await put_back(fleet, tmp_path / "b")
        assert list(await fleet.client.hgetall(fleet.key("put_aside"))) == [b"0.2:%b" % later]


async def test_a_backup_of_a_busy_partition_is_of_one_moment(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        store = fleet.store()
        lease = await store.acquire(3, "worker", 5000)

        done = asyncio.Event()

        async def keep_working():
            cursor = lease.cursor
            while not done.is_set():
                await fleet.feed(3)
                ticks = await store.read(3, cursor, 100, 0)
                await store.commit(lease, commit_of(lease, ticks, before=cursor))
                cursor = ticks.ids[-1]

        working = asyncio.create_task(keep_working())
        try:
            for number in range(20):
                await asyncio.sleep(0.005)
                summary = await back_up(fleet, tmp_path / str(number), [3])
                cursor, states = summary.moments[3].cursor, {}
                for name, flat in Backup(tmp_path / str(number)).pairs(3):
                    if name == "states":
                        states = dict(zip(flat[0::2], flat[1::2], strict=True))
                newest = max((record.rstrip(b"\0") for record in states.values()), default=b"0-0")
                assert newest == cursor  # a record of the test holds the id of its last tick
        finally:
            done.set()
            await working
        assert summary.moments[3].applied > 3


async def test_a_held_partition_is_not_touched(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        store = await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
        await work(fleet, commit_of)
        lease = await store.acquire(3, "the owner", 60_000)
        then = await remembered(fleet)
        with pytest.raises(PartitionHeld, match="Partition 3 is held by the owner"):
            await put_back(fleet, tmp_path / "b")
        assert await remembered(fleet) == then
        await store.release(lease)
        probes = [await store.probe(partition) for partition in range(4)]
        assert not any(probe.owner for probe in probes)  # the leases of the others were given back


async def test_other_partitions_or_layouts_are_refused_by_name(open_redis, tmp_path):
    async with open_redis() as fleet:
        await back_up(fleet, tmp_path / "b")
        other = fleet.namespace + "other"
        store = RedisStateStore(fleet.url, other)
        await store.open_fleet(8, bytes(range(8)), {"telemetry": ["one", "two"], "quantile_levels": [0.1, 0.5, 0.9]})
        with pytest.raises(FleetMismatch, match="made with 8 partitions, 4 were asked for"):
            await put_back(fleet, tmp_path / "b", other)
        store.keys = type(store.keys)(other + "layout")
        await store.close()
        store = RedisStateStore(fleet.url, other + "layout")
        await store.open_fleet(4, b"anything", {})
        await store.close()
        with pytest.raises(FleetMismatch, match=f"layout {b'anything'.hex()}"):
            await put_back(fleet, tmp_path / "b", other + "layout")


async def test_a_backup_older_than_the_log_is_refused(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
        for _ in range(3):
            await work(fleet, commit_of, 300, retention=Retention(ticks=1))
        assert (await fleet.store().probe(3)).trimmed > 10
        then = await remembered(fleet)
        with pytest.raises(BackupRefused, match="ticks in between are gone"):
            await put_back(fleet, tmp_path / "b")
        assert await remembered(fleet) == then


async def test_any_damaged_byte_is_found(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    damaged = tmp_path / "damaged"
    for place in [*range(0, len(whole), 97), len(whole) - 1]:
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BadBackup):
            Backup(damaged)
        damaged.write_bytes(whole[:place])
        with pytest.raises(BadBackup):
            Backup(damaged)


async def test_an_export_that_fails_leaves_the_old_file(open_redis, commit_of, tmp_path):
    async with open_redis() as fleet:
        await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "b")
        whole = (tmp_path / "b").read_bytes()
        with pytest.raises(BadBackup, match="could not be written"):
            await back_up(fleet, tmp_path / "none" / "b")
        await fleet.client.set(fleet.key("states", 1), "not a hash")
        with pytest.raises(Exception, match="another kind of key"):
            await back_up(fleet, tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == whole
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
        assert len(whole) > DIGEST_BYTES


async def moved(store, partitions):
    before = await store.begin_move(partitions)
    for step in (store.close_partition, store.carry):
        for partition in range(before.partitions):
            await step(partition)
    store.follow(await store.end_move())


async def test_a_backup_of_other_partitions_is_refused_by_name_and_goes_into_an_empty_namespace(
    open_redis, commit_of, tmp_path
):
    async with open_redis() as fleet:
        store = await work(fleet, commit_of)
        await back_up(fleet, tmp_path / "old")
        await moved(store, 7)
        await moved(store, 4)  # As many as at first: only the generation tells them apart.
        with pytest.raises(FleetMismatch, match="repartitioned since"):
            await put_back(fleet, tmp_path / "old")
        assert (await back_up(fleet, tmp_path / "new")).states == 3
        await put_back(fleet, tmp_path / "new")
        await put_back(fleet, tmp_path / "new", f"{fleet.namespace}new")
        fleet.namespace += "new"
        other = fleet.store()
        meta = await other.read_meta()
        assert (meta.generation, meta.partitions, meta.oldest) == (2, 4, 2)
        assert meta.openings == (await store.read_meta()).openings
        control = Keys(fleet.namespace, 2).of(0).control
        assert await fleet.client.hget(control, "opened") == b"%d" % meta.opening > b"1"
        assert await other.load(3, fleet.assets[:3]) == await store.load(3, fleet.assets[:3]) != [None] * 3
        await put_back(fleet, tmp_path / "new")  # An import that died is given again.
        await other.begin_move(5)
        with pytest.raises(MoveRefused, match="on its way to 5"):
            await put_back(fleet, tmp_path / "new")

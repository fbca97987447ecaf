"""A real cluster whose slots move and whose nodes die: nothing is lost, doubled or out of order, and nobody waits."""

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from state_store import (
    BadUrl,
    Held,
    Lease,
    Outcome,
    PredictionReader,
    RedisStateStore,
    ServerNotStarted,
    StoreUnavailable,
    TickProducer,
    Timeouts,
    WrongPassword,
)
from state_store.client import Address
from state_store.cluster import EmbeddedCluster
from state_store.errors import SlotMoved
from state_store.keys import Keys, partition_of
from state_store.logs import Logs, Looking
from state_store.refusals import refusal
from state_store.slots import SLOTS, key_of, read_slots, slot_of

P, PARTITIONS, TTL_MS = 3, 4, 60_000
ROLES = ("producer", "worker", "reader", "operator")
ACL = Path(__file__).parents[2] / "deploy" / "acl"
PATIENT = Timeouts(connect_s=2.0, reply_s=2.0, resolve_s=0.2)
ASSETS = {p: next(a for a in map("asset-{}".format, range(99)) if partition_of(a.encode(), 4) == p) for p in range(4)}


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 12739),  # The example of the cluster's specification.
        (b"usp:{3}:ticks", slot_of(b"3")),
        (b"{}x", slot_of(b"{}x")),
        (b"a{b}{c}", slot_of(b"b")),
        (b"a{b", slot_of(b"a{b")),
        (b"{{b}}", slot_of(b"{b")),
    ],
)
def test_a_keys_slot_is_that_of_its_first_tag(key, slot):
    assert slot_of(key) == slot < SLOTS


@pytest.mark.parametrize("name", [name for name in Keys.__dict__ if isinstance(Keys.__dict__[name], property)])
def test_every_fleet_key_stands_alone_or_with_those_of_its_script(name):
    named = getattr(Keys(), name)
    slots = {slot_of(key.encode()) for key in ([named] if isinstance(named, str) else map_of(named))}
    assert len(slots) == 1


def map_of(keys) -> list[str]:
    return [getattr(keys, name) for name in type(keys).__dataclass_fields__]


def test_the_key_of_a_command_is_found_where_it_stands():
    assert key_of(("HGET", "usp:meta", "a")) == key_of((b"xinfo", "STREAM", b"usp:meta")) == b"usp:meta"
    assert key_of(("EVAL", "return 1", "1", "k", "v")) == b"k"
    assert key_of(("INFO", "memory")) is key_of(("FLUSHALL",)) is None


def test_a_node_that_leaves_its_host_out_is_the_one_that_was_asked():
    nodes = read_slots([[0, 1, [b"", 7000, b"id"], [b"replica", 1, b"x"]], [2, 2, [None, 7001, b"id"]]], "here")
    assert nodes[:4] == [("here", 7000), ("here", 7000), ("here", 7001), None]


def test_a_redirection_is_read_and_says_whether_it_is_for_good():
    moved, asking, again = (refusal(text, "x") for text in ("MOVED 3999 ::1:7", "ASK 1 :6381", "TRYAGAIN Multiple"))
    assert isinstance(moved, SlotMoved) and (moved.slot, moved.node, moved.asking) == (3999, ("::1", 7), False)
    assert isinstance(asking, SlotMoved) and (asking.node, asking.asking) == (("", 6381), True)
    assert isinstance(again, SlotMoved) and again.node is None


def test_tls_user_and_password_hold_for_every_node():
    other = Address.parse("rediss://u:p@seed:1?ssl_cert_reqs=none").at("node", 2)
    assert str(other) == "rediss://u:***@node:2" and other.password == "p" and other.tls_context is not None
    assert str(Address.parse("unix:///x.sock").at("node", 2)) == "redis://node:2"


async def test_partitions_and_fleet_keys_lie_on_all_nodes(open_cluster, cluster):
    async with open_cluster() as fleet:
        store = fleet.store()
        assert await store.route.is_cluster() and sum((await store.route.primaries()).values()) == SLOTS
        owners = {cluster.owner(slot_of(fleet.key("ticks", partition))).port for partition in range(PARTITIONS)}
        assert len(owners) == 3
        for one in range(PARTITIONS):
            homes = [cluster.owner(slot_of(fleet.key("ticks", other))) for other in range(PARTITIONS)]
            together = [store.lie_together(one, other) for other in range(PARTITIONS)]
            assert together == [home is homes[one] for home in homes]


async def test_a_database_number_is_refused(cluster):
    store = RedisStateStore(f"{cluster.url}/1")
    with pytest.raises(BadUrl, match="has only database 0"):
        await store.read_meta()
    await store.close()


def elsewhere(cluster, slot):
    owner = cluster.owner(slot)
    return next(node for node in cluster.nodes[:3] if node is not owner)


def move(cluster, key: bytes, pause_s: float = 0.0) -> None:
    slot = slot_of(key)
    cluster.move_slot(slot, elsewhere(cluster, slot), pause_s)


async def commit_all(store, commit_of) -> None:
    """Acquires the partition and takes all that waits there."""
    lease = await store.acquire(P, "one", TTL_MS)
    cursor = lease.cursor
    while len(ticks := await store.read(P, cursor, 4, 0)):
        assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
        cursor = ticks.ids[-1]


async def test_a_commit_after_its_slot_moved_is_only_looked_up_and_the_next_lease_goes_on(
    open_cluster, cluster, commit_of
):
    async with open_cluster() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(6)
        ticks = await store.read(P, lease.cursor, 6, 0)
        assert await store.commit(lease, commit_of(lease, ticks[:3])) is Outcome.OK
        move(cluster, fleet.key("control"))
        assert await store.commit(lease, commit_of(lease, ticks[3:], before=ids[2])) is Outcome.CONFLICT
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids[:3]
        with pytest.raises(StoreUnavailable, match="has moved the keys to"):
            await store.read(P, ids[2], 6, 0)
        await store.release(lease)
        await commit_all(store, commit_of)
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids


async def test_of_a_slot_that_is_half_moved_nothing_is_written_and_nothing_is_refused_for_ever(
    open_cluster, cluster, commit_of
):
    async with open_cluster() as fleet:
        store = fleet.store(timeouts=PATIENT)
        lease = await store.acquire(P, "one", TTL_MS)
        ids = await fleet.feed(6)
        ticks = await store.read(P, lease.cursor, 6, 0)
        assert await store.commit(lease, commit_of(lease, ticks[:3])) is Outcome.OK
        slot = slot_of(fleet.key("control"))
        source, target = cluster.owner(slot), elsewhere(cluster, slot)
        cluster.open_slot(slot, target)
        cluster.ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", fleet.key("states"))
        assert await store.commit(lease, commit_of(lease, ticks[3:], before=ids[2])) is Outcome.CONFLICT
        assert cluster.ask(source, "HGET", fleet.key("control"), "cursor") == ids[2]
        assert cluster.ask(source, "XLEN", fleet.key("predictions")) == 3
        cluster.ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", fleet.key("control"))
        with pytest.raises(SlotMoved):
            await fleet.store(timeouts=PATIENT).acquire(P, "two", TTL_MS)
        cluster.finish_move(slot, target)
        with suppress(SlotMoved):  # Now it knows where to.
            await store.release(lease)
        await store.release(lease)
        await commit_all(store, commit_of)
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids


async def test_a_slot_from_which_no_key_has_gone_yet_takes_ticks_and_can_be_looked_at(open_cluster, cluster):
    async with open_cluster() as fleet:
        store = fleet.store()
        assert isinstance(await store.acquire(P, "one", TTL_MS), Lease)
        async with TickProducer(fleet.url, fleet.namespace, timeouts=PATIENT) as producer:
            await producer.send(ASSETS[P], 1.0)
            await producer.flush()
            slot = slot_of(fleet.key("ticks"))
            target = elsewhere(cluster, slot)
            cluster.open_slot(slot, target)
            try:
                await producer.send(ASSETS[P], 2.0)
                async with asyncio.timeout(20):
                    await producer.flush()
                assert (await store.probe(P)).backlog == producer.accepted == 2
            finally:
                cluster.finish_move(slot, target)


async def test_a_fleet_key_whose_slot_is_on_its_way_is_found_at_the_other_node(open_cluster, cluster):
    async with open_cluster() as fleet:
        store = fleet.store()
        key = Keys(fleet.namespace).config.encode()
        slot, target = slot_of(key), elsewhere(cluster, slot_of(key))
        cluster.open_slot(slot, target)
        assert (await store.read_config()).number == 0  # Not there: the old owner sends us to ask the new one.
        assert await store.publish_config(0, {"x": 1}) == 1
        async with Looking(fleet.url) as looking:
            assert await looking.ask("HGET", key, "generation") == b"1"
        cluster.finish_move(slot, target)
        assert (await store.read_config()).values == {"x": 1}
        assert await store.publish_config(0, {"x": 2}) is None


async def test_who_lives_is_told_though_the_node_of_the_url_stands_still(open_cluster, cluster):
    async with open_cluster() as fleet:
        registry = cluster.owner(slot_of(Keys(fleet.namespace).workers.encode()))
        first = next(node for node in cluster.nodes if node is not registry)
        store = RedisStateStore(first.url, fleet.namespace, timeouts=PATIENT)
        await store.register_worker("one", {"pid": 1})
        cluster.freeze(first)
        try:
            assert [worker.name for worker in await store.workers()] == ["one"]
        finally:
            cluster.thaw(first)
            await store.close()


async def test_a_partition_is_taken_and_read_while_the_node_of_the_fleets_keys_stands_still(open_cluster, cluster):
    async with open_cluster() as fleet:
        registry = cluster.owner(slot_of(Keys(fleet.namespace).meta.encode()))
        keys = {partition: Keys(fleet.namespace).of(partition).ticks for partition in range(PARTITIONS)}
        partition = next(p for p in keys if cluster.owner(slot_of(keys[p])) is not registry)
        store = RedisStateStore(cluster.owner(slot_of(keys[partition])).url, fleet.namespace, timeouts=PATIENT)
        await store.read_meta()
        cluster.freeze(registry)
        try:
            lease = await store.acquire(partition, "one", TTL_MS)
            assert isinstance(lease, Lease)
            assert not (await store.read(partition, lease.cursor, 10, 0)).ids
        finally:
            cluster.thaw(registry)
            await store.close()


@asynccontextmanager
async def sending(fleet, count_max: int = 100_000):
    """A producer that sends to all partitions in turn until left; gives what it has sent."""
    sent: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
    leaving = asyncio.Event()

    async def send():
        async with TickProducer(fleet.url, fleet.namespace, timeouts=PATIENT) as producer:
            while not leaving.is_set() and sum(sent.values()) < count_max:
                for partition in sent:
                    await producer.send(ASSETS[partition], sent[partition])
                    sent[partition] += 1
                await asyncio.sleep(0.001)

    task = asyncio.create_task(send())
    yield sent
    leaving.set()
    await task


async def logged(fleet, log: str = "ticks") -> dict[int, list[float]]:
    async with Looking(fleet.url) as looking:
        logs = Logs(looking, fleet.namespace)
        pages = {p: [page async for page in logs.pages(p, log)] for p in range(PARTITIONS)}
    return {p: [float(fields[b"y"]) for page in found for _, fields in page] for p, found in pages.items()}


async def test_a_producer_sends_each_tick_once_and_in_order_while_slots_move(open_cluster, cluster):
    async with open_cluster() as fleet:
        async with sending(fleet) as sent:
            for _ in range(2):
                for partition in range(PARTITIONS):
                    await asyncio.to_thread(move, cluster, fleet.key("ticks", partition), 0.01)
        assert min(sent.values()) > 20
        assert await logged(fleet) == {p: [float(n) for n in range(count)] for p, count in sent.items()}


async def predict(fleet, commit_of, partition, done):
    """A worker's life in one partition: whatever goes wrong, it acquires anew."""
    store = fleet.store(timeouts=PATIENT)
    while not done.is_set():
        lease = None
        try:
            lease = await store.acquire(partition, f"w{partition}", 1000)
            cursor = lease.cursor
            while not done.is_set() and not isinstance(lease, Held):
                ticks = await store.read(partition, cursor, 50, 20)
                if not len(ticks):
                    continue
                outcome = await store.commit(lease, commit_of(lease, ticks, before=cursor))
                if outcome not in (Outcome.OK, Outcome.ALREADY):
                    break
                cursor = ticks.ids[-1]
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        if lease is not None and not isinstance(lease, Held):
            with suppress(StoreUnavailable):
                await store.release(lease)


async def test_the_whole_path_survives_moving_slots_a_frozen_node_and_a_failover(
    executable_of, commit_of, fleet_over, tmp_path, until
):
    executable = executable_of("newer") or executable_of("redis-6.2")
    with EmbeddedCluster(tmp_path, replicas=1, executable=executable) as cluster:
        fleet = fleet_over(cluster.url)
        await fleet.store().open_fleet(PARTITIONS, bytes(8), {"telemetry": ["one", "two"]})
        found: dict[int, list[float]] = {p: [] for p in range(PARTITIONS)}
        done = asyncio.Event()

        async def listen():
            async with PredictionReader(cluster.url, fleet.namespace, "0", timeouts=PATIENT) as reader:
                while not done.is_set():
                    for prediction in await reader.read(100):
                        found[prediction.partition].append(prediction.reference_prediction)

        async def moves(partitions):
            counts = {p: len(found[p]) for p in partitions}
            await until(lambda: asyncio.sleep(0), lambda _: all(len(found[p]) > n for p, n in counts.items()))

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            for partition in range(PARTITIONS):
                group.create_task(predict(fleet, commit_of, partition, done))
            async with sending(fleet) as sent:
                await moves(range(PARTITIONS))
                await asyncio.to_thread(move, cluster, fleet.key("ticks", 0), 0.01)
                await moves(range(PARTITIONS))
                doomed = cluster.owner(slot_of(fleet.key("ticks", 0)))
                others = [p for p in range(PARTITIONS) if cluster.owner(slot_of(fleet.key("ticks", p))) is not doomed]
                assert 0 < len(others) < PARTITIONS
                cluster.freeze(doomed)
                await moves(others)
                cluster.thaw(doomed)
                await moves(range(PARTITIONS))
                doomed = cluster.owner(slot_of(fleet.key("ticks", 0)))
                cluster.kill(doomed)
                await moves(others)
                await moves(range(PARTITIONS))
            await until(lambda: asyncio.sleep(0), lambda _: all(len(found[p]) >= sent[p] for p in sent))
            done.set()
        assert found == {p: [float(n) for n in range(count)] for p, count in sent.items()}
        await fleet.close()


async def test_every_node_is_entered_with_the_tls_options_of_the_url(executable_of, commit_of, tmp_path, certificate):
    made, key = certificate
    options = {"port": "0", "tls-port": "{port}", "tls-cluster": "yes", "tls-auth-clients": "no"}
    options |= {"tls-cert-file": str(made), "tls-key-file": str(key), "tls-ca-cert-file": str(made)}
    cluster = EmbeddedCluster(tmp_path / "c", executable=executable_of("newer"), options=options)
    try:
        cluster.start()
    except ServerNotStarted:
        pytest.skip("this machine's Redis was built without TLS")
    url = f"rediss://localhost:{cluster.port}?ssl_ca_certs={made}"
    store = RedisStateStore(url)
    try:
        await store.open_fleet(PARTITIONS, bytes(8), {})
        async with TickProducer(url) as producer:
            for number in range(40):
                await producer.send(ASSETS[number % 4], number)
        for partition in range(PARTITIONS):
            lease = await store.acquire(partition, "w", TTL_MS)
            assert isinstance(lease, Lease)
            ticks = await store.read(partition, lease.cursor, 50, 0)
            assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        async with PredictionReader(url, start="0") as reader:
            assert len(await reader.read(1000)) > 0
    finally:
        await store.close()
        cluster.stop()


async def test_the_roles_of_the_acl_files_suffice_on_a_cluster(executable_of, commit_of, tmp_path):
    with EmbeddedCluster(tmp_path, executable=executable_of("redis-6.2")) as cluster:
        for node in cluster.nodes:
            for role in ROLES:
                words = (ACL / f"{role}.acl").read_text().split()[1:]
                cluster.ask(node, "ACL", "SETUSER", *words, f">secret-{role}")
            cluster.ask(node, "ACL", "SETUSER", "default", "resetpass", ">nobody")
        place = cluster.url.removeprefix("redis://")
        url = {role: f"redis://usp-{role}:secret-{role}@{place}" for role in ROLES}
        operator, worker = RedisStateStore(url["operator"]), RedisStateStore(url["worker"])
        await operator.open_fleet(PARTITIONS, bytes(8), {"telemetry": ["one", "two"]})
        async with TickProducer(url["producer"]) as producer:
            for number in range(40):
                await producer.send(ASSETS[number % 4], number)
        await worker.register_worker("w", {})
        for partition in range(PARTITIONS):
            lease = await worker.acquire(partition, "w", TTL_MS)
            assert isinstance(lease, Lease)
            ticks = await worker.read(partition, lease.cursor, 50, 0)
            assert await worker.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        async with PredictionReader(url["reader"], start="0") as reader:
            assert len(await reader.read(0)) == 40
        stranger = RedisStateStore(cluster.url)
        with pytest.raises(WrongPassword):
            await stranger.read_meta()
        for store in (operator, worker, stranger):
            await store.close()

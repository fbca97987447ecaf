"""Many ticks as one entry: the same columns, ids, counts and commits as if each had been sent alone."""

import asyncio
import itertools
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_store import Outcome, PartitionFull, ProducerLimits, Retention, TickProducer
from state_store.client import Address, Timeouts
from state_store.contract import ascending, id_order, joined, tick_fields
from state_store.frames import FRAME_BYTES_MAX, FRAME_TICKS_MAX, encode_frame, ticks_an_entry
from state_store.glances import Glances
from state_store.ingest import LOAD_SCRIPT, ingest_call
from state_store.keys import Keys
from state_store.letters import Letters
from state_store.logs import Logs, Looking
from state_store.ticks import AssetCheck, parse

P, TTL_MS, ALL = 3, 60_000, 1
MS = 1_700_000_000_000
FOUR = encode_frame([b"a", b"b", b"c", b"d"], [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4])


def frame_of(ticks) -> list[bytes]:
    return [b"n", b"%d" % len(ticks), b"f", encode_frame(*zip(*ticks, strict=True))]


def log_of(groups) -> tuple[list, list]:
    """The same ticks as entries of a log twice: as they are grouped, and each alone under the id that it has."""
    mixed, alone, sequence = [], [], -1
    for framed, ticks in groups:
        ids = [b"%d-%d" % (MS, sequence := sequence + 1) for _ in ticks]
        single = [[entry_id, tick_fields(*tick)] for entry_id, tick in zip(ids, ticks, strict=True)]
        alone += single
        mixed += [[ids[-1], frame_of(ticks)]] if framed else single
    return mixed, alone


def assert_same(found, expected):
    assert (found.ids, found.assets, found.malformed) == (expected.ids, expected.assets, expected.malformed)
    for name in ("values", "times_ns", "arrivals_ns"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name
    assert [found.payload(i) for i in range(len(found))] == [expected.payload(i) for i in range(len(expected))]
    assert found.count == expected.count == len(expected)


ticks = st.tuples(
    st.sampled_from([b"EURUSD", "Zürich".encode(), b"x\x00y", b"", b"x" * 257, b"\xc3"]),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
)
groups = st.lists(st.tuples(st.booleans(), st.lists(ticks, min_size=1, max_size=5)), min_size=1, max_size=6)


@given(groups)
def test_ticks_in_frames_are_those_that_each_would_be_alone(groups):
    mixed, alone = log_of(groups)
    check = AssetCheck(0, ALL)
    for _ in range(2):  # The second time the good assets are known.
        assert_same(parse(mixed, check), parse(alone, check))


@given(groups, st.data())
def test_a_read_goes_on_behind_any_tick_and_brings_no_more_than_it_may(groups, data):
    mixed, alone = log_of(groups)
    check, expected, after, parts = AssetCheck(0, ALL), parse(alone, AssetCheck(0, ALL)), b"0-0", []
    while after != expected.ids[-1]:
        count = data.draw(st.integers(1, 7))
        page = [entry for entry in mixed if id_order(entry[0]) > id_order(after)][:count]
        parts.append(parse(page, check, after, count))
        assert 1 <= len(parts[-1]) <= count
        after = parts[-1].ids[-1]
    assert_same(joined(parts), expected)


def test_ids_of_a_busy_millisecond_have_any_number_of_digits():
    entries = [[b"%d-10001" % MS, frame_of([(b"x", 1.0, 1)] * 4)]]
    assert parse(entries, AssetCheck(0, ALL)).ids == [b"%d-%d" % (MS, n) for n in (9998, 9999, 10000, 10001)]


@pytest.mark.parametrize(
    "count, frame, sequence, reason",
    [
        (b"0", FOUR, 9, "does not say how many ticks"),
        (b"257", FOUR, 999, "does not say how many ticks it holds, 1 to 256"),
        (b"-4", FOUR, 9, "does not say how many ticks"),
        (b"4.0", FOUR, 9, "does not say how many ticks"),
        (b"9" * 5000, FOUR, 9, "does not say how many ticks"),
        (b"4", b"\x02" + FOUR[1:], 9, "not of version 1"),
        (b"4", b"", 9, "not of version 1"),
        (b"4", FOUR[:-1], 9, None),  # The last name is empty then.
        (b"4", FOUR[:-2], 9, "does not hold the 4 ticks"),
        (b"4", FOUR[:20], 9, "does not hold the 4 ticks"),
        (b"3", FOUR, 9, "does not hold the 3 ticks"),
        (b"1", FOUR[:16], 9, "does not hold the 1 ticks"),
        (b"4", FOUR + b"z" * FRAME_BYTES_MAX, 9, "longer than 69889 bytes"),
        (b"4", FOUR, 2, "more ticks than ids were kept free"),
    ],
)
def test_a_broken_frame_is_one_malformed_tick(count, frame, sequence, reason):
    entry = [b"%d-%d" % (MS, sequence), [b"n", count, b"f", frame]]
    found = parse([entry, [b"%d-0" % (MS + 1), tick_fields(b"a", 1.0, 1)]], AssetCheck(0, ALL))
    if reason is None:
        assert found.malformed == {3: "asset is empty"} and len(found) == 5
        return
    assert list(found.malformed) == [0] and reason in found.malformed[0]
    assert found.ids == [entry[0], b"%d-0" % (MS + 1)] and math.isnan(found.values[0]) and found.values[1] == 1.0
    assert len(found.payload(0)) < 2 * len(frame) + 6000
    assert found.count == (5 if count == b"4" else 4 if count == b"3" else 2)


def test_an_id_is_taken_once_however_the_log_is_read():
    """Two frames by hand, the second of which begins before the first has ended."""
    entries = [[b"5-3", [b"n", b"4", b"f", FOUR]], [b"5-5", [b"n", b"4", b"f", FOUR]]]
    together = parse(entries, AssetCheck(0, ALL))
    in_turn = [parse(entries[:1], AssetCheck(0, ALL)), parse(entries[1:], AssetCheck(0, ALL), b"5-3")]
    assert_same(joined(in_turn), together)
    assert together.ids == [b"5-%d" % n for n in range(6)] and together.values.tolist() == [1, 2, 3, 4, 3, 4]


# -- the same promises over every store -------------------------------------------------------------------------------


async def feed(fleet, sizes: list[int], bad: tuple[int, ...] = ()) -> list[bytes]:
    """Appends frames, and ticks alone where the size is 1; gives the ids of all ticks."""
    turn, number, before = itertools.cycle(fleet.assets[:3]), itertools.count(), await all_ids(fleet)
    for size in sizes:
        some = [(next(turn), math.nan if (n := next(number)) in bad else n + 0.5, next(fleet.clock_ns))
                for _ in range(size)]  # fmt: skip
        await append(fleet, some)
    return (await all_ids(fleet))[len(before) :]


async def append(fleet, some) -> None:
    if len(some) == 1:
        await fleet.append(dict(zip(*[iter(tick_fields(*some[0]))] * 2, strict=True)))
    elif hasattr(fleet, "memory"):
        await fleet.append(dict(zip(*[iter(frame_of(some))] * 2, strict=True)), P)
    else:
        await send(fleet, some)


async def send(fleet, some) -> None:
    """Past the producer's own checks."""
    async with TickProducer(fleet.url, fleet.namespace, frames=True) as producer:
        _, outbox = producer._home(some[0][0])
        outbox.waiting.extend((*tick, b"") for tick in some)
        outbox.lane.waiting.set()


async def all_ids(fleet) -> list[bytes]:
    store, after, ids = fleet.store(), b"0-0", []
    while len(ticks := await store.read(P, after, 1000, 0)):
        ids += ticks.ids
        after = ids[-1]
    return ids


async def test_ticks_of_frames_have_rising_ids_in_their_entrys_millisecond(open_fleet):
    async with open_fleet() as fleet:
        ids = await feed(fleet, [5, 1, 250, 1, 1, 2])
        entries = await fleet.tick_ids()
        assert len(ids) == 260 and ascending(ids) and len(entries) < 10
        assert set(entries) <= set(ids) and entries[-1] == ids[-1]
        first_of_frame = entries[0].partition(b"-")[0]
        assert {entry_id.partition(b"-")[0] for entry_id in ids[:5]} == {first_of_frame}


async def test_a_commit_may_end_in_the_middle_of_a_frame(open_fleet, commit_of):
    async with open_fleet() as fleet:
        ids = await feed(fleet, [7, 7])
        cursor, left = b"0-0", 14
        for step in (1, 3, 4, 4, 2):  # Each time by another worker.
            store = fleet.store()
            lease = await store.acquire(P, "one", TTL_MS)
            assert lease.cursor == cursor
            ticks = await store.read(P, cursor, step, 0)
            assert len(ticks) <= step
            assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
            cursor, left = ticks.ids[-1], left - len(ticks)
            assert (await store.probe(P)).backlog == left
            await store.release(lease)
        assert [entry_id for entry_id, _ in await fleet.predictions()] == ids[: 14 - left]


async def test_the_probe_counts_ticks_not_entries(open_fleet):
    async with open_fleet() as fleet:
        ids = await feed(fleet, [5, 1, 4])
        probe = await fleet.store().probe(P)
        assert (probe.added, probe.length, probe.backlog, probe.framed, probe.last_id) == (10, 3, 10, 7, ids[-1])


async def test_trimming_keeps_every_frame_of_which_a_tick_is_needed(open_fleet, commit_of):
    async with open_fleet() as fleet:
        kept, store = 20, fleet.store(retention=Retention(ticks=20))
        ids = await feed(fleet, [7, 1, 2, 5] * 20)
        lease, cursor, done = await store.acquire(P, "one", TTL_MS), b"0-0", 0
        while done < 250:
            ticks = await store.read(P, cursor, 11, 0)
            assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
            cursor, done = ticks.ids[-1], done + len(ticks)
            left = await all_ids(fleet)
            assert left == ids[-len(left) :] and len(left) >= min(len(ids), len(ids) - done + kept)
            assert (await store.probe(P)).backlog == len(ids) - done
        if hasattr(fleet, "memory"):  # A server cuts whole nodes only.
            assert len(left) < len(ids) - done + 2 * kept


async def test_room_is_made_up_to_the_frame_in_which_the_cursor_lies(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        ids = await feed(fleet, [4, 4, 4])
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 12, 0)
        assert await store.commit(lease, commit_of(lease, ticks[:6])) is Outcome.OK
        assert await store.make_room(P) == 1
        assert await all_ids(fleet) == ids[4:]
        assert (await store.probe(P)).backlog == 6
        assert (await store.read(P, ids[5], 100, 0)).ids == ids[6:]


async def test_a_bad_tick_in_a_frame_is_one_dead_letter_with_its_own_id(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        ids = await feed(fleet, [5], bad=(2,))
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 100, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        ((entry_id, letter),) = await fleet.rejected()
        assert (entry_id, letter[b"reason"], letter[b"a"]) == (ids[2], b"not finite: 'nan'", fleet.assets[2])
        assert msgpack.unpackb(letter[b"payload"])[:4] == [b"a", fleet.assets[2], b"y", b"nan"]
        assert [entry_id for entry_id, _ in await fleet.predictions()] == [*ids[:2], *ids[3:]]


async def test_a_broken_frame_is_one_dead_letter_and_counts_as_all_its_ticks(open_fleet, commit_of, monkeypatch):
    async with open_fleet() as fleet:
        store = fleet.store()
        with monkeypatch.context() as broken:
            broken.setattr("state_store.ingest.encode_frame", lambda *columns: b"\x01 no frame")
            broken.setattr(f"{__name__}.encode_frame", lambda *columns: b"\x01 no frame")
            await feed(fleet, [9])
        ids = await feed(fleet, [3])
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 100, 0)
        assert len(ticks) == 4 and list(ticks.malformed) == [0] and ticks.count == 12
        assert (await store.probe(P)).backlog == 12
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        probe = await store.probe(P)
        assert (probe.applied, probe.backlog) == (12, 0)
        ((_, letter),) = await fleet.rejected()
        assert b"does not hold the 9 ticks" in letter[b"reason"]
        await feed(fleet, [2])
        assert (await store.probe(P)).backlog == 2 and len(await fleet.predictions()) == len(ids)


async def test_a_broken_frame_that_the_log_still_holds_is_none_of_the_ticks_that_are_gone(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store()
        await feed(fleet, [3])
        broken = {b"n": b"9", b"f": b"\x01 no frame"}
        await fleet.client.xadd(fleet.key("ticks"), broken, id=b"%d-8" % (4 * 10**12))
        await fleet.client.hset(fleet.key("frames"), "framed", 10)
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 100, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        (first, *_) = await fleet.tick_ids()
        await fleet.client.xdel(fleet.key("ticks"), first)
        await fleet.client.hset(fleet.key("control"), "trimmed", 1)
        async with Looking(fleet.url) as looking:
            assert await Logs(looking, fleet.namespace).ticks_gone(await store.probe(P)) == 3


async def test_what_was_put_aside_is_noted_as_long_as_the_frame_of_its_tick_is_in_the_log(open_redis, commit_of):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        store = fleet.store()
        ids = await feed(fleet, [4, 3], bad=(2,))
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 100, 0)
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        letters = Letters(Logs(looking, fleet.namespace), await store.read_meta())
        assert await letters.purge((0, P), [ids[2]]) == 1
        await letters.tidy((0, P))
        assert await letters.notes(P) == {ids[2]: "purged"}
        await fleet.client.xtrim(fleet.key("ticks"), minid=ids[4], approximate=False)
        await letters.tidy((0, P))
        assert await letters.notes(P) == {}


async def test_frames_are_drained_to_their_last_tick_before_the_fleet_moves(open_fleet, commit_of):
    async with open_fleet() as fleet:
        store = fleet.store()
        await feed(fleet, [6])
        await store.begin_move(5)
        lease = await store.acquire(P, "one", TTL_MS)
        ticks = await store.read(P, lease.cursor, 6, 0)
        assert await store.commit(lease, commit_of(lease, ticks[:4])) is Outcome.OK
        assert not (await store.close_partition(P)).drained
        rest = commit_of(lease, ticks[4:], before=ticks.ids[3])
        assert await store.commit(lease, rest) is Outcome.OK
        assert (await store.close_partition(P)).drained


# -- the producer -----------------------------------------------------------------------------------------------------

QUICK = ProducerLimits(batch_size_max=16, linger_ms=1.0, patience_s=5.0)


def framing(fleet, url=None, name=None, limits=QUICK):
    return TickProducer(url or fleet.url, fleet.namespace, name, frames=True, limits=limits)


async def times_of(fleet) -> list[int]:
    async with Looking(fleet.url) as looking:
        pages = Logs(looking, fleet.namespace).pages(P, "ticks")
        return [int(fields[b"t"]) async for page in pages for _, fields in page]


async def test_a_lost_reply_makes_no_second_tick_in_any_frame(open_redis, proxy):
    async with open_redis() as fleet, proxy:
        proxy.matches = b"EVALSHA"
        async with framing(fleet, f"unix://{proxy.path}") as producer:
            for n in range(300):
                await producer.send(fleet.assets[0], n, n)
                if n % 60 == 59:
                    proxy.lose = "reply"  # What waits meanwhile goes in one frame with what the server has.
                    await asyncio.sleep(0.003)
                    await producer.send(fleet.assets[0], n + 0.5, 1000 + n)
                    await producer.flush()
        assert proxy.lost == 5
        expected = [t for n in range(300) for t in ([n, 1000 + n] if n % 60 == 59 else [n])]
        assert await times_of(fleet) == expected and producer.accepted == 305
        assert len(await fleet.tick_ids()) < 150


async def test_a_frame_that_the_server_has_in_part_is_sent_from_its_first_tick_that_is_not_there(open_redis):
    async with open_redis() as fleet:
        async with framing(fleet, name="p") as producer:
            for n in range(10):
                await producer.send(fleet.assets[0], n, n)
            await producer.flush()
            outbox = next(iter(producer._all()))
            outbox.rewind(4)  # As if all replies behind the fourth had been lost.
            for n in range(10, 15):
                await producer.send(fleet.assets[0], n, n)
        assert await times_of(fleet) == list(range(15))


async def test_a_full_partition_takes_exactly_as_many_ticks_as_it_may(open_redis):
    limits = ProducerLimits(batch_size_max=16, linger_ms=1.0, backlog_max=20, patience_s=1.0)
    async with open_redis() as fleet:
        with pytest.raises(PartitionFull, match="20 unread ticks"):
            async with framing(fleet, limits=limits) as producer:
                for n in range(50):
                    await producer.send(fleet.assets[0], n, n)
        assert producer.accepted == (await fleet.store().probe(P)).backlog == 20
        assert await times_of(fleet) == list(range(20)) and len(await fleet.tick_ids()) < 6


async def test_the_limit_holds_for_frames_after_trimming_too(open_redis, commit_of):
    limits = ProducerLimits(batch_size_max=16, linger_ms=1.0, backlog_max=50, waiting_max=64, patience_s=5.0)
    async with open_redis() as fleet:
        store = fleet.store(retention=Retention(ticks=100))
        lease = await store.acquire(P, "one", TTL_MS)
        most, cursor, had = 0, lease.cursor, 0
        async with framing(fleet, limits=limits) as producer:
            sending = asyncio.create_task(send_all(producer, fleet.assets[0], 3000))
            while had < 3000:
                most = max(most, (await store.probe(P)).backlog)
                ticks = await store.read(P, cursor, 33, 50)
                if len(ticks):
                    assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
                    cursor, had = ticks.ids[-1], had + len(ticks)
            await sending
        assert 30 < most <= 50 and (await store.probe(P)).trimmed > 0
        assert producer.accepted == (await store.probe(P)).added == 3000
        assert (await store.probe(P)).backlog == 0


async def send_all(producer, asset, count):
    for n in range(count):
        await producer.send(asset, n, n + 1)
    await producer.flush()


async def test_ticks_with_a_request_id_go_between_the_frames(open_redis):
    async with open_redis() as fleet:
        async with framing(fleet) as producer:
            for n in range(12):
                await producer.send(fleet.assets[0], n, n, request_id="mine" if n in (0, 5, 6, 11) else None)
        ticks = await fleet.store().read(P, b"0-0", 100, 0)
        assert ticks.times_ns.tolist() == list(range(12))
        assert [n for n, request in enumerate(ticks.request_ids) if request == b"mine"] == [0, 5, 6, 11]
        assert len(await fleet.tick_ids()) == 6


async def test_a_tick_without_a_name_is_no_frame_whatever_its_value(open_redis):
    async with open_redis() as fleet:
        keys = Keys(fleet.namespace).of(P)
        ticks = [(b"", 5.0, 1, b""), *((fleet.assets[0], float(n), n, b"") for n in range(2, 4))]
        call, address = ingest_call(keys, "p", 1, 0, 1, False, 100, ticks), Address.parse(fleet.url)
        wire = await address.connect(Timeouts())
        assert (await wire.ask(LOAD_SCRIPT + call, 2, 5.0))[1] == [b"OK", 3, b""]
        wire.abort()
        found = await fleet.store().read(P, b"0-0", 100, 0)
        assert found.malformed == {0: "asset is empty"} and found.times_ns.tolist() == [1, 2, 3]
        assert (await fleet.store().probe(P)).backlog == 3


async def test_a_server_that_lost_frames_gets_them_again(open_redis):
    async with open_redis() as fleet:
        async with framing(fleet, name="p") as producer:
            for n in range(48):
                await producer.send(fleet.assets[0], n, n)
            await producer.flush()
            entries = await fleet.tick_ids()
            kept = (await fleet.store().read(P, b"0-0", 100, 0)).ids.index(entries[1]) + 1
            session, _, _ = (await fleet.client.hget(fleet.key("producers"), "p")).split(b":")
            await fleet.client.xdel(fleet.key("ticks"), *entries[2:])  # As after a failover: all goes back together.
            await fleet.client.hset(fleet.key("producers"), "p", session + b":%d:0" % kept)
            await fleet.client.hset(fleet.key("frames"), "framed", kept - 2)
            await producer.send(fleet.assets[0], 48, 48)
        assert await times_of(fleet) == list(range(49))
        assert (producer.rewinds, producer.lost, producer.accepted) == (1, 0, 49)


async def test_frames_and_plain_clients_share_a_log(open_redis):
    async with open_redis() as fleet:
        async with framing(fleet) as framed, framing(fleet) as other:
            tasks = [send_all(framed, fleet.assets[0], 400), send_all(other, fleet.assets[1], 400)]
            plain = [{b"a": fleet.assets[2], b"y": b"1", b"t": b"%d" % n} for n in range(200)]
            *_, alone = await asyncio.gather(*tasks, fleet.append_all(plain))
        store, after, ids, order = fleet.store(), b"0-0", [], {}
        while len(ticks := await store.read(P, after, 37, 0)):
            ids += ticks.ids
            after = ids[-1]
            for asset, time_ns in zip(ticks.assets, ticks.times_ns.tolist(), strict=True):
                order.setdefault(asset, []).append(time_ns)
        assert len(ids) == 1000 and ascending(ids) and set(alone) <= set(ids)
        assert all(times == sorted(times) for times in order.values()) and len(order) == 3
        assert (await store.probe(P)).backlog == 1000


async def test_a_read_of_many_frames_brings_no_more_than_was_asked_for(open_redis):
    async with open_redis() as fleet:
        async with framing(fleet, limits=ProducerLimits()) as producer:
            await send_all(producer, fleet.assets[0], 5000)
        store, after, had = fleet.store(), b"0-0", 0
        while had < 5000:
            ticks = await store.read(P, after, 600, 0)
            assert 256 <= len(ticks) <= 600 or had + len(ticks) == 5000
            had, after = had + len(ticks), ticks.ids[-1]
        assert store._partition(P)._framing > 100


async def test_a_look_into_the_log_finds_each_tick_of_a_frame(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store(retention=Retention(ticks=16))
        lease = await store.acquire(P, "one", TTL_MS)
        async with framing(fleet) as producer:
            await send_all(producer, fleet.assets[0], 3200)
        ids, cursor = await all_ids(fleet), b"0-0"
        while len(ticks := await store.read(P, cursor, 100, 0)):
            assert await store.commit(lease, commit_of(lease, ticks, before=cursor)) is Outcome.OK
            cursor = ticks.ids[-1]
        async with Looking(fleet.url) as looking:
            logs, glances = Logs(looking, fleet.namespace), Glances(looking, fleet.namespace, 4)
            page = [entry async for page in logs.pages(P, "ticks", ids[-5]) for entry in page]
            assert [entry_id for entry_id, _ in page] == ids[-4:]
            assert page[0][1] == {b"a": fleet.assets[0], b"y": b"3196.0", b"t": b"3197"}
            assert [await glances.value(P, entry_id) for entry_id in (ids[-1], ids[-4])] == [3199.0, 3196.0]
            assert await glances.value(P, ids[0]) is await glances.value(P, b"%s0" % ids[-1]) is None
            probe = await store.probe(P)
            assert 0 < probe.trimmed < await logs.ticks_gone(probe) == 3200 - len(await all_ids(fleet))


async def test_a_dead_letter_out_of_a_frame_can_be_sent_again(open_redis, commit_of):
    async with open_redis() as fleet:
        store = fleet.store()
        lease = await store.acquire(P, "one", TTL_MS)
        async with framing(fleet) as producer:
            await send_all(producer, fleet.assets[0], 4)
        ticks = await store.read(P, lease.cursor, 100, 0)
        object.__setattr__(ticks, "malformed", {1: "a test"})
        assert await store.commit(lease, commit_of(lease, ticks)) is Outcome.OK
        async with Looking(fleet.url) as looking:
            letters = Letters(Logs(looking, fleet.namespace), await store.read_meta())
            (letter,) = [letter async for letter in letters.all()]
            assert (await letters.requeue(letter)).outcome
        again = await store.read(P, ticks.ids[-1], 10, 0)
        assert (again.values.tolist(), again.times_ns.tolist()) == ([1.0], [2])


def test_how_many_ticks_an_entry_has_does_not_hang_on_whether_they_are_good():
    frame = [b"1-3", frame_of([(b"a", math.nan, 1), (b"b", 1.0, 2), (b"c", math.nan, 3)])]
    single = [b"2-0", tick_fields(b"a", 1.0, 1)]
    assert ticks_an_entry([frame, frame]) == 3.0
    assert ticks_an_entry([single, frame]) == ticks_an_entry([frame, single]) == 2.0
    assert ticks_an_entry([single, single]) == ticks_an_entry([]) == 1.0


def test_the_largest_frame_holds_the_most_ticks_with_the_longest_names():
    frame = encode_frame([b"x" * 256] * FRAME_TICKS_MAX, [0.0] * FRAME_TICKS_MAX, [0] * FRAME_TICKS_MAX)
    found = parse([[b"1-300", [b"n", b"256", b"f", frame]]], AssetCheck(0, ALL))
    assert len(found) == 256 and not found.malformed and np.all(found.values == 0)

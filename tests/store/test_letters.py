"""Dead letters: a tick is sent again once, whatever dies on the way, and what is thrown away leaves a note."""

import asyncio

import msgpack
import pytest

from state_store import PartitionSealed
from state_store.keys import Keys
from state_store.letters import PURGED_AT_ONCE, Letters, unpack_tick
from state_store.logs import Logs, Looking
from tests.store.conftest import FIELDS, LAYOUT, PARTITIONS, ClusterFleet, RedisFleet


async def reject(fleet, count=3, reason="late"):
    """Dead letters of ticks that a worker could take; gives their ids."""
    ids = await fleet.feed(count)
    for entry_id, fields in await fleet.client.xrange(fleet.key("ticks"), ids[0], ids[-1]):
        flat = [piece for pair in fields.items() for piece in pair]
        letter = {b"a": fields[b"a"], b"reason": reason, b"payload": msgpack.packb(flat)}
        await fleet.client.xadd(fleet.key("rejected"), letter, id=entry_id)
    return ids


async def letters_of(fleet, looking):
    return Letters(Logs(looking, fleet.namespace), await fleet.store().read_meta())


async def test_a_letter_becomes_a_new_tick_with_all_its_fields(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        letters = await letters_of(fleet, looking)
        sent = {b"a": fleet.assets[0], b"y": b"1.5", b"t": b"7", b"r": b"request", b"extra": b"\xff\x00"}
        old = await fleet.append(sent)
        flat = [piece for pair in sent.items() for piece in pair]
        fields = {b"a": fleet.assets[0], b"reason": "late", b"payload": msgpack.packb(flat)}
        await fleet.client.xadd(fleet.key("rejected"), fields, id=old)
        (letter,) = await letters.find(old)
        requeued = await letters.requeue(letter)
        new = requeued.outcome.removeprefix("requeued as ").encode()
        assert await fleet.client.xrange(fleet.key("ticks"), new, new) == [(new, sent)]
        assert await fleet.rejected() == []
        assert await letters.notes(3) == {old: requeued.outcome}


async def test_a_letter_is_requeued_once_however_often_it_is_asked_for(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        letters = await letters_of(fleet, looking)
        await reject(fleet, 1)
        (letter,) = [letter async for letter in letters.all()]
        async with Looking(fleet.url) as other:
            rivals = [letters, await letters_of(fleet, other)] * 5
            told = await asyncio.gather(*(rival.requeue(letter) for rival in rivals))
        assert len({requeued.outcome for requeued in told}) == 1 and not any(requeued.unfit for requeued in told)
        assert len(await fleet.tick_ids()) == 2


@pytest.mark.parametrize("mode", ["request", "reply", "half"])
async def test_a_requeue_that_dies_on_the_wire_is_given_again(open_redis, proxy, mode):
    async with open_redis() as fleet, proxy:
        async with Looking(fleet.url) as direct:
            letters = await letters_of(fleet, direct)
            await reject(fleet, 1)
            (letter,) = [letter async for letter in letters.all()]
        proxy.lose = mode
        for _ in range(2):
            try:
                async with Looking(f"unix://{proxy.path}") as looking:
                    await (await letters_of(fleet, looking)).requeue(letter)
            except Exception as error:
                assert "lost" in str(error) or "closed" in str(error), error
        assert proxy.lost == 1
        assert len(await fleet.tick_ids()) == 2
        assert await fleet.rejected() == []


async def test_a_letter_that_no_worker_could_take_stays_and_says_why(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        letters = await letters_of(fleet, looking)
        elsewhere = b"asset-0"
        assert elsewhere not in fleet.assets
        asset = fleet.assets[0]
        bad = [b"y 1 t 1".split(), [b"a", asset, *b"y nan t 1".split()], [b"a", elsewhere, *b"y 1 t 1".split()]]
        for number, pieces in enumerate([*bad, {b"a": 1}]):
            fields = {b"a": b"", b"reason": "x", b"payload": msgpack.packb(pieces)}
            await fleet.client.xadd(fleet.key("rejected"), fields, id=b"%d-0" % (number + 1))
        told = [await letters.requeue(letter) async for letter in letters.all()]
        reasons = ["no field a", "not finite: 'nan'", "asset belongs to partition", "no field a"]
        assert all(reason in requeued.unfit for reason, requeued in zip(reasons, told, strict=True))
        assert len(await fleet.rejected()) == 4 and await fleet.tick_ids() == []


async def test_a_sealed_partition_takes_nothing_back(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        letters = await letters_of(fleet, looking)
        await reject(fleet, 1)
        await fleet.client.hset(fleet.key("control"), "seal", "a test")
        (letter,) = [letter async for letter in letters.all()]
        with pytest.raises(PartitionSealed, match="a test"):
            await letters.requeue(letter)
        assert len(await fleet.rejected()) == 1


async def test_purging_leaves_notes_while_the_log_holds_the_ticks(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        letters = await letters_of(fleet, looking)
        ids = await reject(fleet, PURGED_AT_ONCE + 5)
        assert await letters.purge((0, 3), ids) == len(ids)
        assert await letters.purge((0, 3), ids) == 0
        assert await fleet.rejected() == []
        assert (await letters.fates(ids[7])) == {(0, 3): "purged"}
        await fleet.client.xtrim(fleet.key("ticks"), minid=ids[-2], approximate=False)
        await letters.tidy((0, 3))
        assert await letters.notes(3) == dict.fromkeys(ids[-2:], "purged")


async def moved(fleet) -> None:
    """To seven partitions, with nothing to work off."""
    store = fleet.store()
    meta = await store.begin_move(7)
    for step in (store.close_partition, store.carry):
        for partition in range(meta.partitions):
            await step(partition)
    await store.end_move()


@pytest.mark.parametrize("made", [RedisFleet, ClusterFleet])
async def test_letters_of_the_partitions_before_are_found_purged_and_sent_to_where_their_assets_are_now(
    made, servers, clusters, namespace
):
    fleet = made((servers if made is RedisFleet else clusters)("redis-6.2").url, namespace)
    await fleet.store().open_fleet(PARTITIONS, LAYOUT, FIELDS)
    async with Looking(fleet.url) as looking:
        ids = await reject(fleet, 3)
        await looking.ask("HSET", fleet.key("control"), "cursor", ids[-1])
        await moved(fleet)
        letters = await letters_of(fleet, looking)
        again, once, purged = [letter async for letter in letters.all()]
        assert {letter.home for letter in (again, once, purged)} == {(0, 3)} and await letters.find(once.id) == [once]
        told = await asyncio.gather(*(letters.requeue(letter) for letter in [again, once] * 3))
        assert {each.outcome for each in told} == {told[0].outcome, told[1].outcome} and not any(e.unfit for e in told)
        homes = {letters.home_of(letter.asset) for letter in (again, once)}
        keys = [Keys(fleet.namespace, generation).of(partition) for generation, partition in homes]
        entries = [entry for key in keys for entry in await looking.ask("XRANGE", key.ticks, "-", "+")]
        assert {b"requeued as " + entry_id for entry_id, _ in entries} == {each.outcome.encode() for each in told}
        assert sorted(tuple(fields) for _, fields in entries) == sorted([again.fields, once.fields])
        assert await letters.purge((0, 3), [purged.id]) == 1 and [letter async for letter in letters.all()] == []
        assert await letters.fates(purged.id) == {(0, 3): "purged"}
        for home in homes:
            await letters.tidy(home)
            assert (await letters.notes(home[1])).keys() <= {again.place.encode(), once.place.encode()}
    await fleet.close()


async def test_a_letter_sent_on_by_a_command_that_died_half_way_is_sent_once(open_redis):
    async with open_redis() as fleet, Looking(fleet.url) as looking:
        ids = await reject(fleet, 1)
        await looking.ask("HSET", fleet.key("control"), "cursor", ids[-1])
        await moved(fleet)
        letters = await letters_of(fleet, looking)
        (letter,) = [letter async for letter in letters.all()]
        first = await letters.requeue(letter)
        await looking.ask("HDEL", fleet.key("put_aside"), letter.id)  # As if it had died before the letter was removed.
        pieces = (b"a", letter.asset, b"reason", b"late", b"payload", msgpack.packb(list(letter.fields)))
        await looking.ask("DEL", fleet.key("rejected"))
        await looking.ask("XADD", fleet.key("rejected"), letter.id, *pieces)
        assert await letters.requeue(letter) == first and first.outcome
        key = Keys(fleet.namespace, 1).of(letters.home_of(letter.asset)[1]).ticks
        assert await looking.ask("XLEN", key) == 1 and not await letters.find(letter.id)
        await looking.ask("XADD", fleet.key("rejected"), "9999999999999-0", *pieces)
        await fleet.store().begin_move(3)
        (late,) = await letters.find(b"9999999999999-0")
        await looking.ask("HSET", Keys(fleet.namespace, 1).of(letters.home_of(letter.asset)[1]).control, "closed", "2")
        assert "other partitions just now" in (await letters.requeue(late)).unfit


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\xa1a", msgpack.packb({b"a": b"b"}), msgpack.packb([1, 2])])
def test_a_payload_that_no_worker_wrote_has_no_fields(payload):
    assert unpack_tick(payload) == ()

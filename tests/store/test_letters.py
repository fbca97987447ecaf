"""Dead letters: a tick is sent again once, whatever dies on the way, and what is thrown away leaves a note."""

import asyncio

import msgpack
import pytest

from state_store import PartitionSealed
from state_store.letters import PURGED_AT_ONCE, Letters, unpack_tick
from state_store.logs import Logs, Looking


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
        assert await letters.purge(3, ids) == len(ids)
        assert await letters.purge(3, ids) == 0
        assert await fleet.rejected() == []
        assert (await letters.fates(ids[7])) == {3: "purged"}
        await fleet.client.xtrim(fleet.key("ticks"), minid=ids[-2], approximate=False)
        await letters.tidy(3)
        assert await letters.notes(3) == dict.fromkeys(ids[-2:], "purged")


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\xa1a", msgpack.packb({b"a": b"b"}), msgpack.packb([1, 2])])
def test_a_payload_that_no_worker_wrote_has_no_fields(payload):
    assert unpack_tick(payload) == ()

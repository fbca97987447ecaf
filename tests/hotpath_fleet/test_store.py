"""The one write of the tuner, on a real server: who may, in which order it is refused, and that it happens once."""

import asyncio
import dataclasses
import random
import time

import pytest

from state_store.hotpath.commit import HotpathCommit, HotpathOutcome
from state_store.hotpath.lease import Leadership, Led
from state_store.hotpath.store import HotpathStore

COMMIT = HotpathCommit("plus", "run:0:plus", 0, 1, b"document", b"{}", "run", (b"an event",))


@pytest.fixture
def store(server, namespace):
    return HotpathStore(server.url, namespace, audit_max=5)


async def lead(store, name="one", ttl_ms=60_000):
    leadership = await store.lead(name, f"nonce of {name}", ttl_ms)
    assert isinstance(leadership, Leadership)
    return leadership


async def begin(store, leadership, mode="run", base=0):
    """Lets probes pass."""
    note = HotpathCommit("safe", "begin", base, base, b"", b"{}", mode)
    return await store.commit(leadership, note)


async def expire(store):
    await store._call("HSET", store.keys.leader, "until", "0")


async def outcome(store, leadership, **changes):
    return (await store.commit(leadership, dataclasses.replace(COMMIT, **changes))).outcome


async def test_one_leads_and_the_next_has_a_larger_token(store):
    one = await lead(store)
    assert isinstance(await store.lead("two", "nonce of two", 60_000), Led)
    assert (await lead(store)).token == one.token  # asked again, because the reply was lost
    await expire(store)
    two = await lead(store, "two")
    assert two.token > one.token
    await begin(store, two)
    assert await outcome(store, one) is HotpathOutcome.FENCED
    assert (await store.load()).generation == 0
    await store.close()


async def test_a_lease_that_is_over_commits_nothing_although_nobody_took_it(store):
    one = await lead(store)
    await begin(store, one)
    await expire(store)
    assert await outcome(store, one) is HotpathOutcome.NO_LEASE
    assert isinstance(await store.renew(one, 60_000), Led)
    await store.close()


async def test_the_same_proposal_again_changes_nothing(store):
    one = await lead(store)
    await begin(store, one)
    assert await outcome(store, one) is HotpathOutcome.OK
    assert await outcome(store, one) is HotpathOutcome.DUPLICATE
    loaded = await store.load()
    assert (loaded.generation, loaded.audit_length) == (1, 1)
    await store.close()


async def test_an_old_generation_is_stale(store):
    one = await lead(store)
    await begin(store, one)
    await outcome(store, one)
    assert await outcome(store, one, id="run:0:minus", generation=2) is HotpathOutcome.STALE_BASE
    await store.close()


async def test_the_token_grows_though_the_last_one_is_lost(store):
    one = await lead(store)
    await store._call("HDEL", store.keys.fence, "token")
    await expire(store)
    assert (await lead(store, "two")).token > one.token
    await store._call("HSET", store.keys.fence, "token", str(9 * 10**15))  # a clock that went back
    await expire(store)
    assert (await lead(store, "three")).token == 9 * 10**15 + 1
    await store.close()


async def test_a_full_audit_lets_only_pass_what_leads_back(store):
    one = await lead(store)
    await begin(store, one)
    events = (b"e",) * 5
    assert await outcome(store, one, events=events) is HotpathOutcome.OK
    following = {"base": 1, "generation": 2}
    assert await outcome(store, one, id="u", kind="update", **following) is HotpathOutcome.AUDIT_FULL
    assert await outcome(store, one, id="n", kind="note", **following) is HotpathOutcome.AUDIT_FULL
    assert await outcome(store, one, id="r", kind="rollback", **following) is HotpathOutcome.OK
    assert await outcome(store, one, id="a", kind="abort", base=2, generation=3) is HotpathOutcome.OK
    assert (await store.load()).audit_length == 7
    await store.close()


async def test_inputs_are_archived_and_not_shown(store):
    one = await lead(store)
    await begin(store, one)
    assert await outcome(store, one, inputs=(b"i",), events=(b"e", b"f")) is HotpathOutcome.OK
    assert [event for _, event in await store.unarchived("0-0")][-3:] == [b"i", b"e", b"f"]
    assert [event for _, event in (await store.show(10)).recent][:2] == [b"f", b"e"]
    await store.close()


@pytest.mark.parametrize("mode", ["paused", "observe"])
async def test_where_nothing_is_to_be_tuned_only_what_leads_back_passes(store, mode):
    one = await lead(store)
    await begin(store, one, mode)
    for kind in ("plus", "minus", "update"):
        assert await outcome(store, one, kind=kind, mode="run") is HotpathOutcome.PAUSED
    assert await outcome(store, one, id="a", kind="abort") is HotpathOutcome.OK
    assert await outcome(store, one, id="r", kind="rollback", base=1, generation=2) is HotpathOutcome.OK
    assert await outcome(store, one, id="p", kind="pin", base=2, generation=3) is HotpathOutcome.OK
    await store.close()


async def test_the_first_objection_wins(store):
    one = await lead(store)
    await begin(store, one, "paused")
    await outcome(store, one, id="a", kind="abort", mode="paused", events=(b"e",) * 5)
    wrong = {"id": "a", "base": 7, "generation": 8, "kind": "plus"}
    assert await outcome(store, one, **wrong) is HotpathOutcome.DUPLICATE
    wrong["id"] = "b"
    assert await outcome(store, one, **wrong) is HotpathOutcome.STALE_BASE
    wrong |= {"base": 1, "generation": 2}
    assert await outcome(store, one, **wrong) is HotpathOutcome.PAUSED
    assert await outcome(store, one, **wrong | {"kind": "note"}) is HotpathOutcome.AUDIT_FULL
    await expire(store)
    assert await outcome(store, one, **wrong) is HotpathOutcome.NO_LEASE
    await lead(store, "two")
    assert await outcome(store, one, **wrong) is HotpathOutcome.FENCED
    await store.close()


async def test_configuration_optimiser_and_audit_change_together(store):
    one = await lead(store)
    await begin(store, one)
    await outcome(store, one, checkpoint=b"what it knows", answers=(("order-1", b"done"),))
    loaded = await store.load()
    assert (loaded.generation, loaded.fence, loaded.document) == (1, one.token, b"document")
    assert (loaded.checkpoint, loaded.audit_length) == (b"what it knows", 1)
    assert await store.document(1) == b"document"
    assert await store.answer("order-1") == b"done"
    await store.close()


async def test_many_contenders_commit_each_generation_once(store):
    """Eight of them, a lease of 200 ms, and stalls of up to 300 ms, for four seconds."""
    store.audit_max = 10**6
    chance, done, leaders = random.Random(87), [], set()
    over_s = time.monotonic() + 4.0

    async def contend(number):
        nonce = 0
        while time.monotonic() < over_s:
            nonce += 1
            granted = await store.lead(f"c{number}", f"{number}-{nonce}", 200)
            if isinstance(granted, Led):
                await asyncio.sleep(chance.uniform(0.01, 0.05))
                continue
            await begin(store, granted, base=(await store.load()).generation)
            while time.monotonic() < over_s:
                base = (await store.load()).generation
                await asyncio.sleep(chance.uniform(0.0, 0.3) if chance.random() < 0.1 else 0.005)
                name = f"{number}:{nonce}:{base}"
                commit = dataclasses.replace(COMMIT, id=name, base=base, generation=base + 1)
                answer = await store.commit(granted, commit)
                if not answer.outcome.took_effect:
                    break
                done.append(answer.generation)
                leaders.add(granted.token)

    await asyncio.gather(*(contend(number) for number in range(8)))
    assert done == list(range(1, len(done) + 1))
    assert (await store.load()).audit_length == len(done)
    assert len(done) > 50 and len(leaders) > 2
    await store.close()

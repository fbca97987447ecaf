"""A leader may die anywhere: the next one ends its probe and goes on at the same iteration; nothing happens twice."""

import asyncio
import json

import pytest

from scheduler.hotpath.random_signs import signs
from state_store import StoreUnavailable
from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import HotpathStore
from worker.hotpath.archive import events

UPDATES = 2


class Killed(Exception):
    """The process is gone."""


class DyingStore:
    """The n-th call is the leader's last; its request, or its reply, is lost."""

    CALLS = ("lead", "renew", "load", "look", "commit", "note", "unarchived", "archived")

    def __init__(self, store: HotpathStore, last: int, reply_only: bool, error: type[Exception] = Killed):
        self._store, self._left, self._reply_only, self._error = store, last, reply_only, error

    def __getattr__(self, name):
        call = getattr(self._store, name)
        if name not in self.CALLS:
            return call

        async def counted(*words):
            self._left -= 1
            if self._left == 0 and not self._reply_only:
                raise self._error(name)
            answer = await call(*words)
            if self._left == 0:
                raise self._error(name)
            return answer

        return counted


def kinds(audit):
    return [(event["event_type"], event["details"].get("kind", ""), event["proposal_id"]) for event in audit]


def check(audit):
    """What must be true of any history."""
    updates = [event["proposal_id"] for event in audit if event["details"].get("kind") == "Update"]
    assert len(updates) == len(set(updates)), updates
    iterations = [int(name.split(":")[1]) for name in updates]
    assert iterations == list(range(len(updates)))
    changes = [event for event in audit if event["generation"] != event["base_generation"]]
    assert [event["generation"] for event in changes] == list(range(1, len(changes) + 1))
    for event in audit:
        if event["details"].get("kind") == "ApplyPlus":
            k = int(event["proposal_id"].split(":")[1])
            assert tuple(1 if delta > 0 else -1 for delta in event["details"]["delta"][1:]) == signs(42, k, 3)[1:]


def tokens_on_disk(fleet):
    """Of the leaders whose beginning is archived."""
    return [event["details"]["token"] for event in events(fleet.directory) if event["event_type"] == "leader_changed"]


async def begun(fleet):
    """A fleet in which tuning is on, its first leader gone in good order."""
    leader = await fleet.tuning(name="first")
    await leader.release()


async def calls_of_a_quiet_run(fleet):
    """How many calls a leader makes for two whole cycles."""
    counting = DyingStore(HotpathStore(fleet.url, fleet.namespace), 10**9, False)
    fleet.stores.append(counting._store)
    leader = fleet.leader("second", counting)
    await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= UPDATES)
    return 10**9 - counting._left


@pytest.mark.parametrize("reply_only", [False, True], ids=["request lost", "reply lost"])
async def test_killed_at_any_call_the_next_leader_goes_on(open_fleet, server, tmp_path, reply_only):
    async with open_fleet() as fleet:
        await begun(fleet)
        calls = await calls_of_a_quiet_run(fleet)
    assert 40 < calls < 200
    for last in range(1 + reply_only, calls + 1, 2):  # the other half in the other run
        async with open_fleet() as fleet:
            fleet.namespace = f"{fleet.namespace}-{reply_only:d}-{last}"
            fleet.directory = tmp_path / str(last)
            fleet.__init__(fleet.url, fleet.namespace, fleet.directory)
            await begun(fleet)
            await one_death(fleet, last, reply_only)


async def one_death(fleet, last, reply_only):
    dying = DyingStore(HotpathStore(fleet.url, fleet.namespace), last, reply_only)
    fleet.stores.append(dying._store)
    leader = fleet.leader("second", dying)
    with pytest.raises(Killed):
        await fleet.until(leader, lambda: False, 60)
    loaded = await fleet.store.load()
    before = json.loads(loaded.checkpoint)["engine"]
    await fleet.end_lease()
    third = fleet.leader("third")
    await fleet.window(third)
    engine = third.term.engine
    assert engine.proposer.iteration() == before["proposer"]["iteration"]
    if before["executor"]["phase"] != "centre":
        aborts = [event for event in await fleet.audit() if event["event_type"] == "abort"]
        assert aborts[-1]["base_generation"] == loaded.generation
    await fleet.until(third, lambda: engine.proposer.iteration() >= UPDATES + 1)
    check(await fleet.audit())


async def test_a_write_whose_reply_was_lost_is_settled_by_the_same_leader(open_fleet):
    async with open_fleet() as fleet:
        await begun(fleet)
        counts = []
        for last in range(1, 60, 4):
            flaky = DyingStore(HotpathStore(fleet.url, fleet.namespace), last, True, StoreUnavailable)
            fleet.stores.append(flaky._store)
            leader = fleet.leader(f"f{last}", flaky)
            for _ in range(12):
                try:
                    await fleet.window(leader)
                except StoreUnavailable:
                    counts.append(last)
            await leader.release()
        assert counts
        check(await fleet.audit())


async def test_a_leader_that_hears_nothing_for_most_of_its_lease_leads_no_more(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        assert leader.leadership is not None
        fleet.now_s += 0.71 * 600
        await leader.step()
        assert leader.leadership is None and leader.term is None


@pytest.mark.parametrize("others", [False, True], ids=["nobody led meanwhile", "another led meanwhile"])
async def test_a_leader_that_was_away_for_long_begins_anew(open_fleet, others):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(name="old")
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        believed, silent_from_s = leader.term, fleet.now_s
        await fleet.end_lease()
        if others:
            other = fleet.leader("other")
            await fleet.until(other, lambda: other.term.engine.proposer.iteration() >= UPDATES)
            await other.release()
        fleet.now_s = silent_from_s + 0.71 * 600
        iteration = UPDATES if others else 0
        await fleet.until(leader, lambda: leader.term and leader.term.engine.proposer.iteration() > iteration)
        assert leader.term is not believed and leader.term.token == leader.leadership.token
        await fleet.window(leader)
        assert leader.leadership.token in tokens_on_disk(fleet)
        check(await fleet.audit())


async def test_a_leader_whose_archive_was_refused_leads_no_more(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        leader._archivist._leadership = Leadership(leader.leadership.token, "somebody else's", 0)
        await fleet.until(leader, lambda: leader.leadership is None)
        await fleet.end_lease()
        await fleet.until(leader, lambda: leader.term)
        await fleet.window(leader)
        assert leader.leadership.token in tokens_on_disk(fleet)


async def test_the_old_leader_is_fenced_and_forgets_everything(open_fleet):
    async with open_fleet() as fleet:
        old = await fleet.tuning(name="old")
        await fleet.until(old, lambda: old.term.engine.executor.phase == "plus")
        await fleet.end_lease()
        new = fleet.leader("new")
        await fleet.window(new)
        await old.step()
        assert old.leadership is None and old.term is None
        assert new.term is not None
        check(await fleet.audit())


async def test_writes_lost_in_a_failover_are_superseded_by_a_larger_token(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(name="old")
        keys = fleet.store.keys
        names = [name for name in keys.__dataclass_fields__ if name not in ("digests", "acks")]
        dumps = {name: await fleet.store._call("DUMP", getattr(keys, name)) for name in names}
        await fleet.until(leader, lambda: leader.term.committed_generation >= 4)
        pair = leader.term.pair
        for name, dump in dumps.items():
            await fleet.store._call("DEL", getattr(keys, name))
            if dump is not None:
                await fleet.store._call("RESTORE", getattr(keys, name), 0, dump, "REPLACE")
        await fleet.end_lease()
        new = fleet.leader("new")
        await fleet.until(new, lambda: new.term.committed_generation >= 1)
        assert new.term.pair > pair
        for worker in fleet.workers:
            await worker.look()
            assert worker.follower.knobs.pair == new.term.pair
        await asyncio.sleep(0)


async def test_another_registry_is_refused_until_an_operator_begins_anew(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.committed_generation >= 3)
        await leader.release()
        state = json.loads((await fleet.store.load()).checkpoint)
        state["engine"]["registry"] = 1
        await fleet.store._call("HSET", fleet.store.keys.engine, "checkpoint", json.dumps(state))
        other = fleet.leader("other")
        await fleet.window(other)
        assert other.term is None and "registry" in other.refused
        assert not (await fleet.store.led()).left_ms  # one of another version may lead
        await fleet.window(other)
        assert other.leadership is None
        fresh = fleet.leader("fresh")
        fresh.fresh = True
        await fleet.window(fresh)
        assert fresh.term.observing
        assert fresh.term.engine.snapshot().generation == (await fleet.store.load()).generation >= 3

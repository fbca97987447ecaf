"""Workers hear of news at once, and find them anyway when news are lost; a decision waits for its replicas."""

import asyncio
import json
import re
import time

import pytest

from state_store import EmbeddedRedis, RedisStateStore, StoreUnavailable
from state_store.hotpath.commit import HotpathCommit
from state_store.hotpath.news import DOCUMENT, NUMBERS
from state_store.hotpath.store import HotpathStore


@pytest.fixture
def store(server, namespace):
    return HotpathStore(server.url, namespace)


async def test_a_waiting_listener_hears_of_a_document_and_of_numbers(server, namespace, store):
    other = HotpathStore(server.url, namespace)
    assert await other.news.hear(1) == set()
    hearing = asyncio.create_task(other.news.hear(10_000))
    await asyncio.sleep(0)
    leadership = await store.lead("w", "nonce", 60_000)
    began = time.monotonic()
    await store.commit(leadership, HotpathCommit("safe", "a", 0, 1, b"d", b"{}", "run"))
    assert await hearing == {DOCUMENT}
    assert time.monotonic() - began < 5
    await store.announce_numbers()
    await store.commit(leadership, HotpathCommit("safe", "b", 1, 2, b"d", b"{}", "run"))
    assert await other.news.hear(10_000) == {NUMBERS, DOCUMENT}
    assert await other.news.hear(1) == set()
    await other.close()
    await store.close()


async def test_a_write_that_changes_no_configuration_is_no_news(store, server, namespace):
    other = HotpathStore(server.url, namespace)
    await other.news.hear(1)
    leadership = await store.lead("w", "nonce", 60_000)
    await store.commit(leadership, HotpathCommit("note", "a", 0, 0, b"", b"{}", "run"))
    assert await other.news.hear(1) == set()
    await other.close()
    await store.close()


async def test_news_are_few_however_many_there_were(store):
    for _ in range(600):
        await store.announce_numbers()
    assert await store._call("XLEN", store.keys.news) < 300
    await store.close()


async def test_after_a_connection_that_was_lost_the_next_call_hears_again(server, namespace, store):
    listener = HotpathStore(server.url, namespace)
    hearing = asyncio.create_task(listener.news.hear(60_000))
    async with asyncio.timeout(30):
        while not (blocked := [line for line in await clients(store) if "cmd=xread" in line]):
            await asyncio.sleep(0.01)
    await store._call("CLIENT", "KILL", "ID", re.search(r"id=(\d+)", blocked[-1])[1])
    with pytest.raises(StoreUnavailable):
        await hearing
    await store.announce_numbers()
    assert await listener.news.hear(10_000) == {NUMBERS}
    await listener.close()
    await store.close()


async def clients(store):
    listed = await store._call("CLIENT", "LIST")
    return listed.decode().splitlines()


@pytest.fixture
def replicated(tmp_path):
    """A primary that wants one replica, and its replica."""
    with EmbeddedRedis(tmp_path / "a", port=0) as primary, EmbeddedRedis(tmp_path / "b", port=0) as replica:
        yield primary, replica


async def follow(replica, primary):
    address = HotpathStore(replica.url)
    host, port = primary.url.removeprefix("redis://").split("/")[0].split(":")
    await address._call("REPLICAOF", host, port)
    await replication(address, "master_link_status:up")
    await address.close()


async def replication(store, wanted):
    """Waits until the server says this of its replication."""
    async with asyncio.timeout(30):
        while wanted not in re.sub(r"\W+", ":", str(await store._call("INFO", "replication"))):
            await asyncio.sleep(0.02)


async def test_a_decision_is_confirmed_by_the_replicas_that_must_have_it(replicated):
    primary, replica = replicated
    store = HotpathStore(primary.url)
    await follow(replica, primary)
    await store._call("CONFIG", "SET", "min-replicas-to-write", "1")
    await replication(store, "min_slaves_good_slaves:1")  # the replica is up a moment before the primary counts it
    assert await store.replicas.minimum() == 1
    leadership = await store.lead("w", "nonce", 60_000)
    await store.commit(leadership, HotpathCommit("safe", "a", 0, 1, b"d", b"{}", "run"))
    assert (await store.replicas.confirm("a", 1)).enough
    copy = HotpathStore(replica.url)
    assert (await copy.load()).generation == 1
    assert not (await store.replicas.confirm("another", 1)).enough  # not this server's last decision
    await copy.close()
    await store.close()


async def test_without_an_answer_of_replicas_nothing_new_begins_and_it_is_said(open_fleet, caplog):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(replicas_min=1)
        for _ in range(2):
            await fleet.window(leader)
        assert leader.report.gate == "replicas lack the last decision"
        assert leader.term.engine.executor.phase == "centre"
        told = json.loads((await fleet.store.show()).report)
        assert told["replicas"] == {"have": 0, "wanted": 1}
        assert "hotpath_not_replicated" in caplog.text
        assert (await fleet.order(leader, "rollback"))["ok"]  # what leads back is possible


async def test_published_by_hand_numbers_are_news(server, namespace, tmp_path):
    from worker.publish import publish_numbers
    from worker.settings import load

    settings = load({"redis": {"url": server.url, "namespace": namespace}})
    listener, store = HotpathStore(server.url, namespace), RedisStateStore(server.url, namespace)
    await listener.news.hear(1)
    made = await publish_numbers(store, settings, {"cusum_k": 0.6}, "", "ana", "a test")
    assert made.number == 1 and await listener.news.hear(5000) == {NUMBERS}
    await listener.close()
    await store.close()

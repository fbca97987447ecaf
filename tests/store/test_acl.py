"""The ACL files: each role can do all that it must on a server that enforces them, and nothing of the others."""

import asyncio
import os
from pathlib import Path

import pytest

from state_store import (
    EmbeddedRedis,
    PredictionReader,
    RedisStateStore,
    Retention,
    StateStoreError,
    TickProducer,
    WrongPassword,
)
from state_store.backup import Backup, write_backup
from state_store.keys import Keys
from state_store.letters import Letters
from state_store.logs import Logs, Looking
from state_store.restore import restore

ACL = Path(__file__).parents[2] / "deploy" / "acl"
ROLES = ("producer", "worker", "reader", "operator")
LAYOUT, FIELDS = bytes(8), {"telemetry": ["one", "two"], "quantile_levels": [0.5]}
PARTITIONS = 2


class Guarded:
    """A server that knows the four roles and nobody else."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stranger = f"redis://127.0.0.1:{port}"

    def url(self, role: str) -> str:
        return f"redis://usp-{role}:secret-{role}@127.0.0.1:{self.port}"


@pytest.fixture(scope="module", params=["redis-6.2", "newer"])
def guarded(request, executable_of, tmp_path_factory):
    home = tmp_path_factory.mktemp("guarded")
    executable = executable_of(request.param)
    if executable is None:
        pytest.skip(f"no {request.param} server on this machine")
    rules = home / "users.acl"
    files = {role: ACL / f"{role}.acl" for role in ROLES}
    if request.param == "newer":
        files["producer"] = ACL / "producer-redis7.acl"
    lines = [file.read_text().strip() + f" >secret-{role}" for role, file in files.items()]
    rules.write_text("\n".join(lines) + "\n")
    wrapper = home / "server"
    wrapper.write_text(f'#!/bin/sh\nexec {executable} "$@" --aclfile {rules}\n')
    os.chmod(wrapper, 0o755)
    with EmbeddedRedis(home / "data", 0, executable=str(wrapper)) as server:
        rules.write_text("\n".join([(ACL / "default.acl").read_text().strip(), *lines]) + "\n")
        asyncio.run(close_to_strangers(server.url))
        yield Guarded(server.port)


async def close_to_strangers(url: str) -> None:
    """Takes the default user's rights away; it could not have waited for the server otherwise."""
    async with Looking(url) as looking:
        await looking.ask("ACL", "LOAD")


async def refused(url: str, *words: bytes | str) -> bool:
    async with Looking(url) as looking:
        try:
            await looking.ask(*words)
        except WrongPassword:
            return True
        except StateStoreError:
            return False
        return False


async def test_the_four_roles_together_run_a_fleet(guarded, commit_of, tmp_path):
    operator = RedisStateStore(guarded.url("operator"))
    await operator.open_fleet(PARTITIONS, LAYOUT, FIELDS)
    async with TickProducer(guarded.url("producer"), frames=True) as producer:
        for number in range(40):
            await producer.send(f"A{number % 4}", float(number), number + 1)
    worker = RedisStateStore(guarded.url("worker"), retention=Retention(ticks=5, predictions=15))
    await worker.open_fleet(PARTITIONS, LAYOUT, FIELDS)
    await worker.register_worker("w", {})
    for partition in range(PARTITIONS):
        lease = await worker.acquire(partition, "w", 5000)
        while (ticks := await worker.read(partition, lease.cursor, 4, 0)).ids:
            refusing = {0: "a test"} if len(ticks) > 3 else {}
            object.__setattr__(ticks, "malformed", refusing)
            await worker.load(partition, ticks.assets)
            assert (await worker.commit(lease, commit_of(lease, ticks))).value == "ok"
            lease = await worker.renew(lease)
        assert (await worker.probe(partition)).backlog == 0
        await worker.want(partition, "v")
        await worker.release(lease)
    await worker.publish_config(0, {"a": 1})
    assert (await worker.read_config()).number == 1
    await worker.append_audit({"did": "this"})
    assert [info.name for info in await worker.workers()] == ["w"]
    await worker.deregister_worker("w")
    for start in ("latest", "$", "0"):
        async with PredictionReader(guarded.url("reader"), start=start) as reader:
            assert bool(await reader.read(block_ms=10)) == (start != "$")

    async with Looking(guarded.url("operator")) as looking:
        logs = Logs(looking, "usp")
        letters = Letters(logs, await operator.read_meta())
        found = [letter async for letter in letters.all()]
        assert len(found) > 4
        assert (await letters.requeue(found[0])).outcome
        assert await letters.purge(found[1].home, [found[1].id]) == 1
        await letters.tidy(found[1].home)
        await write_backup(logs, await operator.read_meta(), tmp_path / "b", [0, 1])
        await restore(operator, logs, Backup(tmp_path / "b"), [0, 1])
    await operator.begin_move(3)
    for partition in range(PARTITIONS):
        lease = await worker.acquire(partition, "w", 5000)
        await operator.close_partition(partition)
        while (ticks := await worker.read(partition, lease.cursor, 4, 0)).ids:
            assert (await worker.commit(lease, commit_of(lease, ticks))).value == "ok"
            lease = await worker.renew(lease)
        assert (await operator.close_partition(partition)).drained
        await operator.carry(partition)
    await operator.end_move()
    worker.follow(await worker.read_meta())
    async with TickProducer(guarded.url("producer")) as producer:
        await producer.send("A1", 1.0)
    assert await worker.acquire(2, "w", 5000)
    assert (await operator.forget_past()).oldest == 1
    await operator.close()
    await worker.close()


KEYS = Keys("usp").of(0)
NOBODY = [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "SET", "save", ""), ("ACL", "LIST"), ("SHUTDOWN",),
         ("GET", "other"), ("SET", KEYS.ticks, "1"), ("HGETALL", "other:meta")]  # fmt: skip
DENIED = {
    "producer": [
        ("XRANGE", KEYS.predictions, "-", "+"), ("HGETALL", KEYS.states), ("XADD", KEYS.predictions, "*", "a", "b"),
        ("XTRIM", KEYS.ticks, "MAXLEN", "0"), ("DEL", KEYS.ticks), ("EVAL", "return 1", "0"), ("TYPE", "usp:workers"),
    ],
    "reader": [
        ("XADD", KEYS.predictions, "*", "a", "b"), ("HSET", KEYS.latest, "a", "b"), ("XRANGE", KEYS.ticks, "-", "+"),
        ("HGETALL", KEYS.states), ("HGETALL", KEYS.control), ("EVAL", "return 1", "0"), ("DEL", KEYS.latest),
    ],
    "worker": [
        ("HGETALL", KEYS.producers), ("HGETALL", KEYS.put_aside), ("DEL", KEYS.states), ("XDEL", KEYS.rejected, "1-1"),
        ("RENAME", KEYS.states, KEYS.latest), ("CONFIG", "GET", "save"), ("XSETID", KEYS.ticks, "1-1"),
    ],
    "operator": [("CONFIG", "RESETSTAT"), ("CLIENT", "KILL", "ID", "1"), ("SCRIPT", "FLUSH")],
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_nothing_else(guarded, role):
    allowed = [words for words in [*NOBODY, *DENIED[role]] if not await refused(guarded.url(role), *words)]
    assert not allowed


async def test_a_producer_writes_no_lease_where_the_server_can_tell(guarded):
    async with Looking(guarded.url("operator")) as looking:
        version = int((await looking.ask("INFO", "server")).partition(b"redis_version:")[2].split(b".")[0])
    assert await refused(guarded.url("producer"), "HSET", KEYS.control, "seal", "") == (version >= 7)


async def test_a_wrong_password_opens_nothing(guarded):
    for url in (guarded.stranger, guarded.url("worker").replace("secret", "guess")):
        store = RedisStateStore(url)
        with pytest.raises(WrongPassword):
            await store.read_meta()
        await store.close()

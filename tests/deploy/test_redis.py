"""Redis as it is shipped: its configuration, the users that are made for it, a replica, and a cluster of six."""

import asyncio
import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from state_store import RedisStateStore, StoreUnavailable
from tests.deploy.deployed import DEPLOY, free_port, make_users, redis_server, running, wait_for
from worker.doctor import OK, store_findings
from worker.settings import load

KUBERNETES = DEPLOY / "kubernetes"


def test_doctor_finds_nothing_to_say_about_the_shipped_configuration(guarded, monkeypatch):
    monkeypatch.setenv("USP_CONFIG", str(guarded.users / "operator.toml"))
    findings = asyncio.run(store_findings(load()))
    assert len(findings) >= 5 and all(finding.level == OK for finding in findings), findings


def test_passwords_are_made_once_are_long_and_are_nobodys_elses_to_read(tmp_path):
    make_users(tmp_path / "users", "somewhere:6379")
    before = {file.name: file.read_bytes() for file in (tmp_path / "users").iterdir()}
    make_users(tmp_path / "users", "elsewhere:6379")
    assert {file.name: file.read_bytes() for file in (tmp_path / "users").iterdir()} == before
    make_users(tmp_path / "others", "somewhere:6379")
    assert (tmp_path / "others" / "worker.toml").read_bytes() != before["worker.toml"]
    assert all(file.stat().st_mode & 0o007 == 0 for file in (tmp_path / "users").iterdir())
    secret = before["cluster.password"].decode()
    assert len(secret) == 64 and secret.encode() not in before["users.acl"]
    roles = {file.stem for file in (DEPLOY / "acl").iterdir()} - {"default", "producer"}
    assert before["users.acl"].count(b"\nuser ") == len(roles)


def test_the_script_says_how_it_is_called():
    done = subprocess.run(["sh", DEPLOY / "make_users.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "DIRECTORY HOST" in done.stderr


class Node:
    """A node started by the script of its pod, with the pod's places below a folder."""

    def __init__(self, folder: Path, users: Path, port: int) -> None:
        self.folder, self.users, self.port = folder, users, port

    @contextmanager
    def started(self, script: Path, name: str, primary_port: int = 0):
        for place in ("etc/redis", "data", "run/redis"):
            (self.folder / place).mkdir(parents=True)
        conf = (DEPLOY / "redis.conf").read_text() + f"port {self.port}\nbind 127.0.0.1\n"
        (self.folder / "etc" / "redis" / "redis.conf").write_text(conf)
        text = script.read_text().replace("predictor-redis-0.predictor-redis-nodes 6379", f"127.0.0.1 {primary_port}")
        for place in ("/etc/redis", "/data", "/run/redis"):
            text = text.replace(f"{place}", f"{self.folder}{place}")
        text = text.replace("/run/predictor", str(self.users))
        (self.folder / "start.sh").write_text(text)
        env = os.environ | {"HOSTNAME": name, "POD_IP": "127.0.0.1"}
        with running("sh", self.folder / "start.sh", log=self.folder / "log", env=env):
            wait_for(lambda: self.ask("replica", "PING") == "PONG", name)
            yield self

    def ask(self, role: str, *words: str) -> str:
        env = os.environ | {"REDISCLI_AUTH": (self.users / f"{role}.password").read_text()}
        command = ["redis-cli", "-p", str(self.port), "--user", f"usp-{role}", *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=10).stdout.strip()


def nodes(folder: Path, count: int) -> list[Node]:
    redis_server()
    make_users(folder / "users", "predictor-redis:6379")
    made: list[Node] = []
    while len(made) < count:
        port = free_port()
        if port < 55_000:  # the cluster's bus is 10000 above
            made.append(Node(folder / f"node-{len(made)}", folder / "users", port))
    return made


def test_a_replica_follows_and_a_primary_without_one_takes_no_writes(tmp_path):
    first, second = nodes(tmp_path, 2)
    script = KUBERNETES / "redis" / "start.sh"
    secret = (tmp_path / "users" / "operator.toml").read_text().split("usp-operator:")[1].split("@")[0]
    url = f"redis://usp-operator:{secret}@127.0.0.1:{first.port}"
    with first.started(script, "predictor-redis-0"):
        with pytest.raises(StoreUnavailable, match="replica"):
            asyncio.run(write(url))
        with second.started(script, "predictor-redis-1", first.port):
            wait_for(lambda: "connected_slaves:1" in first.ask("cluster", "INFO", "replication"), "a replica")
            wait_for(lambda: written(url), "a write")


async def write(url: str) -> None:
    store = RedisStateStore(url)
    try:
        await store.open_fleet(4, bytes(8), {})
    finally:
        await store.close()


def written(url: str) -> bool:
    try:
        asyncio.run(write(url))
        return True
    except StoreUnavailable:
        return False


def test_six_nodes_become_a_cluster_and_joining_again_changes_nothing(tmp_path):
    with ExitStack() as stack:
        made = nodes(tmp_path, 6)
        for number, node in enumerate(made):
            stack.enter_context(node.started(KUBERNETES / "redis-cluster" / "start.sh", f"predictor-redis-{number}"))
        env = os.environ | {"PASSWORD_FILE": str(tmp_path / "users" / "cluster.password")}
        join = ["sh", KUBERNETES / "redis-cluster" / "join.sh", *(f"localhost:{node.port}" for node in made)]
        for _ in range(2):
            done = subprocess.run(join, capture_output=True, text=True, env=env, timeout=60)
            assert done.returncode == 0, (done.stdout, done.stderr)
            wait_for(lambda: sorted(roles(made[0])) == ["master"] * 3 + ["slave"] * 3, "three primaries and replicas")
        assert "cluster_slots_assigned:16384" in made[5].ask("cluster", "CLUSTER", "INFO")


def roles(node: Node) -> list[str]:
    flags = [line.split()[2] for line in node.ask("cluster", "CLUSTER", "NODES").splitlines()]
    return [role for role in flags for role in role.split(",") if role in ("master", "slave")]


@pytest.mark.parametrize("script", ["make_users.sh", "kubernetes/redis/start.sh", "kubernetes/redis-cluster/join.sh"])
def test_a_script_is_one_that_every_shell_reads(script):
    assert subprocess.run(["sh", "-n", DEPLOY / script]).returncode == 0

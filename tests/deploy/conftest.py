"""A fleet as it is deployed: Redis with the shipped configuration and users, a worker, an exporter, a feed."""

import os
import shutil
from contextlib import ExitStack

import pytest

from tests.deploy.deployed import DEPLOY, PREDICTOR, Site, free_port, make_users, redis_server, running, wait_for


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """Redis as deploy/ starts it, with its users and their passwords."""
    executable = redis_server()
    site = Site(tmp_path_factory.mktemp("site"), free_port())
    make_users(site.users, f"127.0.0.1:{site.port}")
    (site.folder / "data").mkdir()
    where = ("--port", site.port, "--bind", "127.0.0.1", "--dir", site.folder / "data")
    users = ("--aclfile", site.users / "users.acl")
    with running(executable, DEPLOY / "redis.conf", *where, *users, log=site.folder / "redis.log"):
        wait_for(lambda: site.redis_cli("PING") == "PONG", "Redis")
        made = site.predictor("operator", "init", "--partitions", 4)
        assert made.returncode == 0, made.stderr
        yield site


@pytest.fixture(scope="session")
def site(guarded, program):
    """The same with a worker that has worked, and an exporter where there is one."""
    site = guarded
    with ExitStack() as stack:
        env = site.env("worker") | {"USP_HOTPATH__DIGEST_S": "0.5", "USP_HOTPATH__SETTLE_S": "0.5"}
        command = (PREDICTOR, "worker", "--http-port", site.http_port)
        options = {"log": site.folder / "worker.log", "env": env, "cwd": site.folder}
        site.worker = stack.enter_context(running(*command, **options))
        if exporter := shutil.which("prometheus-redis-exporter") or shutil.which("redis_exporter"):
            site.exporter_port = free_port()
            env = os.environ | {
                "REDIS_ADDR": f"redis://127.0.0.1:{site.port}",
                "REDIS_USER": "usp-monitor",
                "REDIS_PASSWORD_FILE": str(site.users / "monitor.json"),
                "REDIS_EXPORTER_WEB_LISTEN_ADDRESS": f"127.0.0.1:{site.exporter_port}",
            }
            stack.enter_context(running(exporter, log=site.folder / "exporter.log", env=env))
        feed = (PREDICTOR, "feed", "--assets", 40, "--rate", 200, "--seconds", 60, "--seed", 1)
        stack.enter_context(running(*feed, log=site.folder / "feed.log", env=site.env("producer"), cwd=site.folder))
        wait_for(lambda: site.status()["predictor_followed_values_total"] > 500, "a worker that works")
        yield site

"""A real server, real worker processes, and what they wrote, read back."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from predictor_core import payload_fields
from state_store import EmbeddedRedis, RedisStateStore
from worker import cli

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
PATIENCE_S = 180.0  # a worker starts within seconds, but not where the host gives most of the time to other guests


class Fleet:
    """One namespace on one server, and the worker processes started for it."""

    def __init__(self, url: str, partitions: int, lease_ms: int) -> None:
        self.url, self.partitions, self.lease_ms = url, partitions, lease_ms
        self.workers: list[subprocess.Popen] = []

    def start_worker(self, **settings: object) -> subprocess.Popen:
        given = {"lease_ms": self.lease_ms, "cache_dir": CACHE, **settings}
        env = os.environ | {f"USP_WORKER__{name.upper()}": str(value) for name, value in given.items()}
        env["PYTHONFAULTHANDLER"] = "1"
        command = [sys.executable, "-m", "worker", "worker", "--redis", self.url]
        self.workers.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE))
        return self.workers[-1]

    def say(self, *words: object, code: int = 0) -> tuple[str, str]:
        """What a command prints and says, run in this process, where JAX is loaded already."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["predictor", *map(str, words)])
            patch.setenv("USP_REDIS__URL", self.url)
            patch.setenv("USP_WORKER__CACHE_DIR", str(CACHE))
            with pytest.raises(SystemExit) as end:
                cli.main()
        assert int(end.value.code or 0) == code, (words, out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()

    def predictor(self, *words: object, code: int = 0) -> dict:
        """The answer of a command as a program reads it, or its error."""
        out, err = self.say(*words, "--json", code=code)
        return json.loads(out) if out else {"error": err}

    def stop(self) -> str:
        """Kills the workers; gives what they said."""
        said = ""
        while self.workers:
            worker = self.workers.pop()
            worker.kill()
            said += worker.communicate()[1].decode() if not worker.stderr.closed else ""
        return said

    def probes(self) -> list:
        async def look() -> list:
            store = RedisStateStore(self.url)
            try:
                return [await store.probe(partition) for partition in range(self.partitions)]
            finally:
                await store.close()

        return asyncio.run(look())

    def wait_until(self, condition, what: str, seconds: float = PATIENCE_S) -> list:
        deadline = time.monotonic() + seconds
        while not condition(probes := self.probes()):
            dead = [worker.args for worker in self.workers if worker.poll() not in (None, 0, -signal.SIGKILL)]
            assert not dead, f"a worker ended by itself: {self.workers[-1].communicate()}"
            assert time.monotonic() < deadline, f"{what} did not come about: {probes}"
            time.sleep(0.05)
        return probes

    def wait_until_idle(self) -> list:
        """Until every tick has its prediction, and every stored state reflects them all."""

        def idle(probes: list) -> bool:
            return all(probe.backlog == 0 and probe.state_cursor == probe.cursor for probe in probes)

        return self.wait_until(idle, "an empty backlog")


@pytest.fixture
def fleet(tmp_path, program):
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis(tmp_path / "redis"))
        made = Fleet(server.url, partitions=4, lease_ms=1500)
        stack.callback(made.stop)
        asyncio.run(open_fleet(made, program.layout_fingerprint, payload_fields(program.config.static())))
        yield made


async def open_fleet(fleet: Fleet, layout: bytes, fields: dict) -> None:
    store = RedisStateStore(fleet.url)
    await store.open_fleet(fleet.partitions, layout, fields)
    await store.close()

"""One fleet on one machine, for measuring: a server, workers, a producer and a reader, each in a process of its own.

    producer --> Redis <--> worker-1 ...        Snapshot: ticks applied, and CPU seconds of everyone, at one moment
                   |
                   +--> listener
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from loadtests import cpu
from loadtests.statistics import percentiles
from predictor_core import PredictorConfig, Program, payload_fields
from state_store import EmbeddedRedis, RedisStateStore

HOME = Path(".predictor")
PATIENCE_S = 120.0
POLL_S = 0.05
PRODUCT, IDENTITY, ENCODED, PEER, STAGES = "product", "identity", "encoded", "per-tick", "stages"
MODULES = {IDENTITY: "loadtests.floor", ENCODED: "loadtests.floor", PEER: "loadtests.peers", STAGES: "loadtests.stages"}
LEASED = (PRODUCT, IDENTITY, STAGES)


@dataclass(frozen=True)
class Shape:
    """What a fleet under load looks like."""

    kind: str = PRODUCT
    workers: int = 1
    aof: bool = True
    partitions: int = 16
    assets: int = 2048
    waiting: int = 30_000  # unread ticks in the log at full load
    settings: tuple[tuple[str, str], ...] = ()  # of the workers, as environment variables


@dataclass(frozen=True)
class Snapshot:
    """Everyone's account at one moment."""

    clock: float
    ticks: int
    cpu: dict[str, float]


class RunFailed(Exception):
    """A process of the run ended early, or something did not come about in time."""


class Rig:
    """Use as a context manager; then `saturate` and `load`, any number of times."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._stack = ExitStack()
        self._workers: list[subprocess.Popen] = []
        self._sent = 0  # ticks of all runs so far: the next run goes on from there

    def __enter__(self) -> "Rig":
        with ExitStack() as stack:
            HOME.mkdir(exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="bench-", dir=HOME))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            server = stack.enter_context(EmbeddedRedis(self._folder / "redis", keep=False))
            self.url, self.socket = server.url, server.url.removeprefix("unix://")
            self.redis = stack.enter_context(Redis(unix_socket_path=self.socket))
            self._server_pid = int(self.redis.info("server")["process_id"])  # type: ignore[index]
            if not self.shape.aof:
                self.redis.config_set("appendonly", "no")
            asyncio.run(self._make_fleet())
            stack.callback(self._stop_workers)
            self._start_workers(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def saturate(self, warm_s: float, seconds: float) -> dict[str, Any]:
        """Throughput and cost per tick with work always waiting."""
        with self._listener() as listener, self._producer(0.0, 0.0) as producer:
            self._wait(lambda: self.applied() > self._sent, "the first commit")
            time.sleep(warm_s)
            pids = {"producer": producer.pid, "reader": listener.process.pid}
            before = self._snapshot(pids)
            time.sleep(seconds)
            after = self._snapshot(pids)
            waiting = self._added() - self.applied()
            producer.send_signal(signal.SIGTERM)
            self._sent += self._told(producer)["sent"]
            if self.shape.kind != ENCODED:
                self._drain()
        return {**_account(before, after), "waiting_at_end": waiting}

    def load(self, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
        """Latency and cost per tick at a rate: from the moment at which a tick was due until its prediction is read."""
        with self._listener() as listener, self._producer(rate, warm_s + seconds) as producer:
            self._wait(lambda: self._added() > self._sent, "the first tick")
            time.sleep(warm_s)
            pids = {"producer": producer.pid, "reader": listener.process.pid}
            before = self._snapshot(pids)
            time.sleep(seconds * 0.95)
            after = self._snapshot(pids)
            told = self._told(producer)
            self._sent += told["sent"]
            self._drain()
        times_ns, read_ns = listener.table()
        latencies = (read_ns - times_ns)[times_ns >= told["start_ns"] + warm_s * 1e9]
        return {
            "rate": rate,
            "latency_ms": percentiles(latencies / 1e6),
            "ticks": len(latencies),
            "missing": told["sent"] - len(times_ns),
            "producer_late_ms": told["latest_ms"],
            **_account(before, after),
        }

    def applied(self) -> int:
        """Ticks committed so far."""
        return sum(int(self.redis.hget(key, "applied") or 0) for key in self._control_keys())  # type: ignore[arg-type]

    def said(self) -> str:
        """What the workers wrote to standard output and standard error."""
        return (self._folder / "workers.log").read_text()

    def _snapshot(self, pids: dict[str, int]) -> Snapshot:
        workers = [worker.pid for worker in self._workers]
        graph, whole = sum(map(cpu.of_graph, workers)), sum(map(cpu.of_process, workers))
        spent = {"graph": graph, "worker": whole - graph, "server": cpu.of_process(self._server_pid)}
        spent |= {name: cpu.of_process(pid) for name, pid in pids.items()}
        return Snapshot(time.perf_counter(), self.applied(), {**spent, "machine": cpu.of_machine()})

    async def _make_fleet(self) -> None:
        store = RedisStateStore(self.url)
        program = Program(PredictorConfig())
        await store.open_fleet(self.shape.partitions, program.layout_fingerprint, payload_fields(PredictorConfig()))
        await store.close()

    def _start_workers(self, stack: ExitStack) -> None:
        log = stack.enter_context((self._folder / "workers.log").open("wb"))
        env = os.environ | dict(self.shape.settings)
        for number in range(1, self.shape.workers + 1):
            command = [sys.executable, "-m", *self._command(f"worker-{number}")]
            self._workers.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        if self.shape.kind in LEASED:
            self._wait(self._is_placed, "the placement of all partitions")

    def _command(self, name: str) -> list[str]:
        if self.shape.kind == PRODUCT:
            return ["worker", "worker", "--redis", self.url, "--name", name, "--parent", str(os.getpid())]
        return [MODULES[self.shape.kind], self.shape.kind, self.url, name, str(self.shape.partitions)]

    def _is_placed(self) -> bool:
        owners = [self.redis.hget(key, "owner") for key in self._control_keys()]
        shares = [owners.count(owner) for owner in set(owners)]
        return None not in owners and len(shares) == self.shape.workers and max(shares) - min(shares) <= 1

    def _added(self) -> int:
        keys = [key.replace(":control", ":ticks") for key in self._control_keys()]
        return sum(self.redis.xinfo_stream(key)["entries-added"] for key in keys if self.redis.exists(key))  # type: ignore[index]

    def _control_keys(self) -> list[str]:
        return [f"usp:{{{partition}}}:control" for partition in range(self.shape.partitions)]

    def _drain(self) -> None:
        self._wait(lambda: self.applied() >= self._sent, "an empty backlog")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if any(worker.poll() is not None for worker in self._workers) or time.monotonic() > deadline:
                raise RunFailed(f"{what} did not come about; the workers said: {self.said()[-2000:]}")
            time.sleep(POLL_S)

    @contextmanager
    def _producer(self, rate: float, seconds: float) -> Iterator[subprocess.Popen]:
        shape = self.shape
        given = {"socket": self.socket, "partitions": shape.partitions, "assets": shape.assets, "rate": rate}
        given |= {"seconds": seconds, "waiting": shape.waiting, "first": self._sent}
        command = [sys.executable, "-m", "loadtests.producer", json.dumps(given)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def _told(self, producer: subprocess.Popen) -> dict[str, Any]:
        said, _ = producer.communicate(timeout=PATIENCE_S)
        if producer.returncode:
            raise RunFailed(f"the producer ended with {producer.returncode}")
        return json.loads(said)

    @contextmanager
    def _listener(self) -> "Iterator[_Listener]":
        listener = _Listener(self._folder / "latencies.npz", self.socket, self.shape.partitions)
        try:
            yield listener
            listener.end()
        finally:
            listener.close()

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


class _Listener:
    """The reading process, ready when this returns."""

    def __init__(self, file: Path, socket: str, partitions: int) -> None:
        self._file = file
        given = {"socket": socket, "partitions": partitions, "file": str(file)}
        command = [sys.executable, "-m", "loadtests.listener", json.dumps(given)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RunFailed("the listener did not start")

    def end(self) -> None:
        """Lets it read what is left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        with np.load(self._file) as kept:
            return kept["times_ns"], kept["read_ns"]


def _account(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Ticks per second, and microseconds of CPU per tick for everyone."""
    seconds, ticks = after.clock - before.clock, max(1, after.ticks - before.ticks)
    spent = {name: after.cpu[name] - before.cpu[name] for name in before.cpu}
    machine = spent.pop("machine")
    cores = len(os.sched_getaffinity(0))
    return {
        "ticks_per_second": ticks / seconds,
        "cpu_us_per_tick": {name: 1e6 * used / ticks for name, used in spent.items()},
        "cores_busy": sum(spent.values()) / seconds / cores,
        "cores_busy_with_others": (machine - sum(spent.values())) / seconds / cores,
    }

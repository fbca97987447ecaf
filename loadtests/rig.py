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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from loadtests import cpu
from loadtests.peers.launch import READY
from loadtests.peers.tasks import LOGS
from loadtests.schedule import Phase
from loadtests.statistics import percentiles
from predictor_core import PredictorConfig, Program, payload_fields
from state_store import EmbeddedRedis, RedisStateStore

HOME = Path(".predictor")
PATIENCE_S = 300.0  # on a busy machine a worker compiles for minutes first
POLL_S = 0.05
PRODUCT, IDENTITY, DISTANT, ENCODED, STAGES = "product", "identity", "distant", "encoded", "stages"
MODULES = dict.fromkeys((IDENTITY, DISTANT, ENCODED), "loadtests.floor") | {STAGES: "loadtests.stages"}
LEASED = (PRODUCT, IDENTITY, DISTANT, STAGES)
PEERS = {
    "per-tick": "per_tick",
    "per-tick-library": "per_tick",
    "river-linear": "per_tick",
    "river-holt-winters": "per_tick",
    "taskiq": "taskiq_queue",
    "streaq": "streaq_queue",
    "bytewax": "bytewax_flow",
    "bytewax-library": "bytewax_flow",
}


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
    depth: int = 3  # of the signature, when nothing is shed
    client: str = ""  # at full load a `TickProducer` sends, `alone` or `frames`; else ready bytes

    @property
    def config(self) -> PredictorConfig:
        return PredictorConfig(log_sig_depth=self.depth)


@dataclass(frozen=True)
class Played:
    """Of every tick of some phases: when it was due, when its prediction was read, how deep the graph was."""

    start_ns: int
    sent: int
    late_ms: float  # of the producer, at worst
    times_ns: np.ndarray
    read_ns: np.ndarray
    depths: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """Everyone's account at one moment; of the server also its commits and the bytes that went through it."""

    clock: float
    ticks: int
    cpu: dict[str, float]
    server: dict[str, int]


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

    def saturate(self, warm_s: float, seconds: float, warm_ticks: int = 0) -> dict[str, Any]:
        """Throughput and cost per tick with work always waiting, after so many ticks and so many seconds more."""
        with self._listener() as listener, self._sending() as producer:
            self._wait(lambda: self.applied() > self._sent + warm_ticks, "the first commit")
            time.sleep(warm_s)
            pids = {"producer": producer.pid, "reader": listener.process.pid}
            before = self._snapshot(pids)
            time.sleep(seconds)
            self._wait(lambda: self.applied() > before.ticks, "a commit while it was measured")
            after, applied = self._snapshot(pids), self.applied()
            producer.send_signal(signal.SIGTERM)
            self._sent += self._told(producer)["sent"]
            if self.shape.kind != ENCODED:
                self._drain()
        return {**_account(before, after), "waiting_at_end": self._sent - applied}

    def load(self, rate: float, warm_s: float, seconds: float) -> dict[str, Any]:
        """Latency and cost per tick at a rate: from the moment at which a tick was due until its prediction is read."""
        with self._listener() as listener, self._producer(rate, warm_s + seconds) as producer:
            self._wait(lambda: self.applied() > self._sent, "the first commit")
            time.sleep(warm_s)
            pids = {"producer": producer.pid, "reader": listener.process.pid}
            before = self._snapshot(pids)
            time.sleep(seconds * 0.95)
            after = self._snapshot(pids)
            told = self._told(producer)
            self._sent += told["sent"]
            self._drain()
        times_ns, read_ns, _ = listener.table()
        latencies = (read_ns - times_ns)[times_ns >= told["start_ns"] + warm_s * 1e9]
        return {
            "rate": rate,
            "latency_ms": percentiles(latencies / 1e6),
            "ticks": len(latencies),
            "missing": told["sent"] - len(times_ns),
            "producer_late_ms": told["latest_ms"],
            **_account(before, after),
        }

    def play(self, *phases: Phase) -> Played:
        """Sends phase after phase, and waits until all of it has been read."""
        with self._listener(depths=True) as listener, self._sending(*phases) as producer:
            told = self._told(producer)
            self._sent += told["sent"]
            self._drain()
        times_ns, read_ns, depths = listener.table()
        return Played(told["start_ns"], told["sent"], told["latest_ms"], times_ns, read_ns, depths)

    def applied(self) -> int:
        """Ticks committed so far; a peer's predictions."""
        if self.shape.kind in PEERS:
            return sum(self.redis.xlen(key) for key in self.keys("predictions"))  # type: ignore[misc]
        return sum(int(self.redis.hget(key, "applied") or 0) for key in self.keys("control"))  # type: ignore[arg-type]

    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def said(self) -> str:
        """What the workers wrote to standard output and standard error."""
        return (self._folder / "workers.log").read_text()

    def _snapshot(self, pids: dict[str, int]) -> Snapshot:
        workers = [worker.pid for worker in self._workers]
        graph, whole = sum(map(cpu.of_graph, workers)), sum(map(cpu.of_process, workers))
        spent = {"graph": graph, "worker": whole - graph, "server": cpu.of_process(self._server_pid)}
        spent |= {name: cpu.of_process(pid) for name, pid in pids.items()}
        spent |= cpu.of_machine()
        return Snapshot(time.perf_counter(), self.applied(), spent, self._server_counts())

    def _server_counts(self) -> dict[str, int]:
        told: Any = self.redis.info("everything")
        return {
            "commits": told.get("cmdstat_exec", {}).get("calls", 0),
            "in_bytes": told["total_net_input_bytes"],
            "out_bytes": told["total_net_output_bytes"],
            "file_bytes": told.get("aof_current_size", 0),
        }

    async def _make_fleet(self) -> None:
        store = RedisStateStore(self.url)
        config = self.shape.config
        program = Program(config)
        await store.open_fleet(self.shape.partitions, program.layout_fingerprint, payload_fields(config))
        await store.close()

    def _start_workers(self, stack: ExitStack) -> None:
        log = stack.enter_context((self._folder / "workers.log").open("wb"))
        env = os.environ | {"USP_PREDICTOR__LOG_SIG_DEPTH": str(self.shape.depth)} | dict(self.shape.settings)
        for number in range(1, self.shape.workers + 1):
            self._workers.append(_started(self._command(number), env=env, stdout=log, stderr=log))
        if self.shape.kind in LEASED:
            self._wait(self._is_placed, "the placement of all partitions")
        if self.shape.kind in PEERS:
            self._wait(lambda: self.said().count(READY) == self.shape.workers, "the start of the peer")

    def _command(self, number: int) -> list[str]:
        shape, name = self.shape, f"worker-{number}"
        if shape.kind == PRODUCT:
            return ["worker", "worker", "--redis", self.url, "--name", name]
        if shape.kind in MODULES:
            return [MODULES[shape.kind], shape.kind, self.url, name, str(shape.partitions)]
        given = {"kind": shape.kind, "socket": self.socket, "folder": str(self._folder), "number": number}
        given |= {"partitions": shape.partitions, "workers": shape.workers}
        return [f"loadtests.peers.{PEERS[shape.kind]}", json.dumps(given)]

    def _is_placed(self) -> bool:
        owners = [self.redis.hget(key, "owner") for key in self.keys("control")]
        shares = [owners.count(owner) for owner in set(owners)]
        return None not in owners and len(shares) == self.shape.workers and max(shares) - min(shares) <= 1

    def keys(self, name: str) -> list[str]:
        """What the fleet calls one thing in each partition."""
        return [f"usp:{{{partition}}}:{name}" for partition in range(self.shape.partitions)]

    def _drain(self) -> None:
        self._wait(lambda: self.applied() >= self._sent, "an empty backlog")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if any(worker.poll() is not None for worker in self._workers) or time.monotonic() > deadline:
                raise RunFailed(f"{what} did not come about; the workers said: {self.said()[-2000:]}")
            time.sleep(POLL_S)

    def _producer(self, rate: float, seconds: float) -> AbstractContextManager[subprocess.Popen]:
        return self._sending(Phase(rate, seconds))

    @contextmanager
    def _sending(self, *phases: Phase) -> Iterator[subprocess.Popen]:
        """Follows the phases; without any it keeps the log full until it is told to end."""
        for phase in phases:
            if not phase.ticks:
                raise RunFailed(f"no tick is due in {phase.seconds:g} s at {phase.rate:g} ticks/s")
        shape = self.shape
        given = {"socket": self.socket, "partitions": shape.partitions, "assets": shape.assets, "phases": phases}
        given |= {"waiting": shape.waiting, "first": self._sent}
        given |= {"tasks": shape.kind if shape.kind in LOGS else "", "counts": self._counts()}
        given |= {"client": "" if phases else shape.client}
        with _started(["loadtests.producer", json.dumps(given)], stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def _counts(self) -> list[list[str]]:
        """What a producer asks to know how many ticks have been served."""
        if self.shape.kind in PEERS:
            return [["XLEN", key] for key in self.keys("predictions")]
        return [["HGET", key, "applied"] for key in self.keys("control")]

    def _told(self, producer: subprocess.Popen) -> dict[str, Any]:
        said, _ = producer.communicate(timeout=PATIENCE_S)
        if producer.returncode:
            raise RunFailed(f"the producer ended with {producer.returncode}")
        return json.loads(said)

    @contextmanager
    def _listener(self, depths: bool = False) -> "Iterator[_Listener]":
        listener = _Listener(self._folder / "latencies.npz", self.socket, self.shape.partitions, depths)
        try:
            yield listener
            listener.end()
        finally:
            listener.close()

    def _stop_workers(self) -> None:
        for worker in self._workers:  # a peer has nothing to save, and some take their time to end
            worker.send_signal(signal.SIGKILL if self.shape.kind in PEERS else signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


class _Listener:
    """The reading process, ready when this returns."""

    def __init__(self, file: Path, socket: str, partitions: int, depths: bool) -> None:
        self._file = file
        given = {"socket": socket, "partitions": partitions, "file": str(file), "depths": depths}
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        self.process = _started(["loadtests.listener", json.dumps(given)], **pipes, text=True)
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

    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.load(self._file) as kept:
            return kept["times_ns"], kept["read_ns"], kept["depths"]


def _started(command: list[str], **options: Any) -> subprocess.Popen:
    """A module in a process that ends with this one, however this one does."""
    return subprocess.Popen([sys.executable, "-m", "loadtests.child", str(os.getpid()), *command], **options)


def _account(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Ticks per second, and microseconds of CPU per tick for everyone."""
    seconds, ticks = after.clock - before.clock, after.ticks - before.ticks
    if not ticks:
        raise RunFailed(f"nothing was committed in the {seconds:.1f} s that were measured; measure for longer")
    spent = {name: after.cpu[name] - before.cpu[name] for name in before.cpu}
    machine, stolen = spent.pop("machine"), spent.pop("stolen")
    cores = len(os.sched_getaffinity(0))
    return {
        "ticks_per_second": ticks / seconds,
        "cpu_us_per_tick": {name: 1e6 * used / ticks for name, used in spent.items()},
        "server_per_tick": {name: (after.server[name] - count) / ticks for name, count in before.server.items()},
        "cores_busy": sum(spent.values()) / seconds / cores,
        "cores_busy_with_others": (machine - sum(spent.values())) / seconds / cores,
        "cores_stolen": stolen / seconds / cores,
    }

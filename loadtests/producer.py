"""The load of a run as a process of its own: ready ticks, on a schedule or as fast as the workers take them.

    python -m loadtests.producer '{"socket": ..., "partitions": 8, "assets": 2048, "phases": [[10000, 5]], ...}'

With phases, each a rate and its seconds, the load is open: every tick goes out at its time, whatever became of those
before, and its event time is the moment at which it was due. Without, the producer keeps `waiting` unread ticks in the
log until it is told to end; `counts` are the questions whose answers tell how many have been read. `tasks` names a
queue that gets tasks instead of ticks. With `client` it is a `TickProducer` that keeps the log full, tick by tick or
with frames. Prints one JSON object at the end: ticks sent, and how late the latest was.
"""

import asyncio
import json
import signal
import socket
import sys
import time

import numpy as np

from loadtests.caller import RECEIVE_BYTES, Caller
from loadtests.peers.tasks import COMMANDS
from loadtests.schedule import AT_ONCE_MAX, Phase, Schedule, follow
from loadtests.ticks import TickBytes, asset_names, tick
from state_store import ProducerLimits, TickProducer
from state_store.wire import encode

START_AFTER_S = 0.3
MADE_EACH_S = 200_000  # ticks, at least
MADE_AT_ONCE = 16_384
LOOK_EVERY_S = 0.002
ALONE, FRAMES = "alone", "frames"  # How a `TickProducer` sends.


class Wire:
    """A blocking socket; answers are only counted."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._owed = 0

    def send(self, commands: bytes | memoryview, count: int) -> None:
        self._socket.sendall(commands)
        self._owed += count
        self._receive(socket.MSG_DONTWAIT)

    def settle(self) -> None:
        """Waits for all answers."""
        while self._owed:
            self._receive(0)

    def _receive(self, flags: int) -> None:
        try:
            answers = self._socket.recv(RECEIVE_BYTES, flags)
        except BlockingIOError:
            return
        if not answers or answers.startswith(b"-") or b"\n-" in answers:
            raise SystemExit(f"the server refused a tick: {answers[:200]!r}")
        self._owed -= answers.count(b"$")


class Applied:
    """How many ticks have been served: the sum of what the server answers to some questions."""

    def __init__(self, path: str, questions: list[list[str]]) -> None:
        self._caller = Caller(path)
        self._request = b"".join(encode(*words) for words in questions)
        self._answers = len(questions)

    def close(self) -> None:
        self._caller.close()

    def count(self) -> int:
        return sum(int(reply or 0) for reply in self._caller.ask(self._request, self._answers))


def main() -> None:
    given = json.loads(sys.argv[1])
    if given["client"]:
        print(json.dumps(asyncio.run(_send_all(given))))
        return
    ticks = TickBytes(given["assets"], given["partitions"], command=COMMANDS.get(given["tasks"], tick))
    wire = Wire(given["socket"])
    if given["phases"]:
        told = _open_loop(given, ticks, wire)
    else:
        told = _keep_full(given, ticks, wire)
    print(json.dumps(told))


def _open_loop(given: dict, ticks: TickBytes, wire: Wire) -> dict:
    phases = [Phase(*phase) for phase in given["phases"]]
    making_s = sum(phase.ticks for phase in phases) / MADE_EACH_S
    start_ns = time.time_ns() + int((START_AFTER_S + making_s) * 1e9)
    schedule = Schedule(start_ns, phases)
    ready = memoryview(_ready(ticks, given["first"], schedule.times_ns))
    width = len(ready) // schedule.count

    def send(first: int, times_ns: np.ndarray) -> None:
        wire.send(ready[first * width : (first + len(times_ns)) * width], len(times_ns))

    latest_ns = follow(schedule, time.time_ns, time.sleep, send)
    wire.settle()
    return {"sent": schedule.count, "start_ns": start_ns, "latest_ms": latest_ns / 1e6}


def _ready(ticks: TickBytes, first: int, times_ns: np.ndarray) -> bytes:
    """All of them, before the first is due: what is made while others are measured takes from their cores."""
    starts = range(0, len(times_ns), MADE_AT_ONCE)
    return b"".join(ticks.commands(first + start, times_ns[start : start + MADE_AT_ONCE]) for start in starts)


def _keep_full(given: dict, ticks: TickBytes, wire: Wire) -> dict:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    applied = Applied(given["socket"], given["counts"])
    before, sent, last_ns, start_ns = applied.count(), 0, 0, time.time_ns()
    while not ended:
        room = applied.count() - before + given["waiting"] - sent
        if room < min(AT_ONCE_MAX, given["waiting"]) // 4:
            time.sleep(LOOK_EVERY_S)
            continue
        times_ns = max(time.time_ns(), last_ns + 1) + np.arange(min(room, AT_ONCE_MAX))
        wire.send(ticks.commands(given["first"] + sent, times_ns), len(times_ns))
        sent, last_ns = sent + len(times_ns), int(times_ns[-1])
    wire.settle()
    return {"sent": sent, "start_ns": start_ns, "latest_ms": 0.0}


async def _send_all(given: dict) -> dict:
    """As fast as the partitions take them: each is full with its share of the ticks that may wait."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    limits = ProducerLimits(backlog_max=given["waiting"] // given["partitions"])
    names = [name for _, name in asset_names(given["assets"], given["partitions"])]
    start_ns = time_ns = time.time_ns()
    url, frames = f"unix://{given['socket']}", given["client"] == FRAMES
    async with TickProducer(url, frames=frames, limits=limits) as producer:
        while not ended:
            time_ns = max(time.time_ns(), time_ns + 1)
            for name, value in zip(names, np.random.default_rng(producer.sent).normal(500, 1, len(names)), strict=True):
                await producer.send(name, value, time_ns)
    return {"sent": producer.sent, "start_ns": start_ns, "latest_ms": 0.0}


if __name__ == "__main__":
    main()

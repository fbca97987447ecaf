"""What the road itself costs: the same bytes through Redis, with no predictor.

    python -m loadtests.floor identity URL NAME PARTITIONS    the whole worker, on a device that only copies
    python -m loadtests.floor distant URL NAME PARTITIONS     the same, its device as slow as a graph that needs no core
    python -m loadtests.floor encoded URL NAME PARTITIONS     the cheapest client: commits encoded before the run

The first two keep every promise of a worker and make no predictions. The last keeps none: it reads, and answers as many
ticks as a worker takes at once with the same bytes; what it costs is what Redis and the kernel cost.
"""

import asyncio
import logging
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle
from types import SimpleNamespace

import numpy as np
import uvloop

from loadtests.caller import Caller
from loadtests.ticks import TIME_BYTES, asset_names
from predictor_core import Program, encode_payloads, encode_records
from state_store.keys import Keys, PartitionKeys
from state_store.wire import encode
from worker.device import Answer, Work, distinct
from worker.garbage import spare_the_collector
from worker.metrics import Metrics
from worker.rows import RowTable
from worker.service import Worker, join
from worker.settings import Settings, load
from worker.wiring import depths, make_pipeline, make_store

COMMIT_TICKS = 256  # a worker's share of a full micro-batch for each of 16 partitions
DISTANT_S = 60e-6  # for a tick: so slow that two workers leave two cores time to spare


class IdentityDevice:
    """Stands where `worker.device.Device` stands: rows go out as they came in, all payloads are alike."""

    def __init__(self, settings: Settings) -> None:
        program = Program(settings.config(), cache_dir=None)
        self.table = RowTable(program.cold(1)[0], settings.worker.rows_kept)
        self.depths = depths(settings.config())
        self.result = np.zeros(1, program.result_dtype)
        self.payload = encode_payloads(self.result, self.depths[-1], program.made_by())
        self.record = encode_records(program.cold(1), program.layout_fingerprint)
        self.program = SimpleNamespace(
            compilations=0,
            config=program.config,
            layout_fingerprint=program.layout_fingerprint,
            made_by=program.made_by,
            payload_bytes=program.payload_bytes,
            record_bytes=program.record_bytes,
        )
        self._thread = ThreadPoolExecutor(1)

    async def run(self, work: Work) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def records(self, slots: np.ndarray) -> np.ndarray:
        return self._records(slots)

    def close(self) -> None:
        self._thread.shutdown()

    def _run(self, work: Work) -> Answer:
        touched, row_of = distinct(work)
        self.table.rows[touched] = self.table.rows[touched]
        return Answer(
            np.repeat(self.result, len(row_of)),
            np.repeat(self.payload, len(row_of)),
            [self._records(part) for part in work.written],
            rows=len(touched),
            rounds=1,
        )

    def _records(self, slots: np.ndarray) -> np.ndarray:
        return np.repeat(self.record, len(slots), 0)


class DistantDevice(IdentityDevice):
    """One that is elsewhere: its thread waits as long as a graph there would take, and needs no core for it."""

    def _run(self, work: Work) -> Answer:
        time.sleep(DISTANT_S * len(work.values))
        return super()._run(work)


async def serve_identity(settings: Settings, kind: type[IdentityDevice] = IdentityDevice) -> None:
    """As `worker.service.run_worker` does, with another device."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    device, store, metrics = kind(settings), make_store(settings), Metrics()
    try:
        partitions = await join(store, device.program, None)  # type: ignore[arg-type]
        pipeline = make_pipeline(settings, store, device, metrics)  # type: ignore[arg-type]
        spare_the_collector()
        await Worker(store, pipeline, settings, metrics, partitions).run(stop)
    finally:
        await store.close()
        device.close()


class EncodedClient:
    """Reads ticks partition after partition; has ready commits for each, one with states and one without."""

    def __init__(self, path: str, settings: Settings, partitions: int) -> None:
        self._caller = Caller(path)
        device = IdentityDevice(settings)
        payload, record = device.payload.tobytes(), device.record.tobytes()
        self.size = COMMIT_TICKS
        self._keys = [Keys().of(partition) for partition in range(partitions)]
        whole = [_commit(keys, self.size, payload, record) for keys in self._keys]
        bare = [_commit(keys, self.size, payload, b"") for keys in self._keys]
        self._rounds = [whole] + [bare] * (settings.worker.state_every - 1)
        self._cursors = [b"0-0"] * partitions

    def serve(self, stopped: list[int]) -> None:
        for commits in cycle(self._rounds):
            for partition, commit in enumerate(commits):
                if stopped:
                    return
                self._turn(partition, commit)

    def _turn(self, partition: int, commit: tuple[bytes, int]) -> None:
        key, cursor = self._keys[partition].ticks, self._cursors[partition]
        words = ("XREAD", "COUNT", str(self.size), "STREAMS", key, cursor)
        reply = self._caller.ask(encode(*words), 1)[0]
        entries = reply[0][1] if reply else []
        if len(entries) < self.size:
            return
        self._cursors[partition] = entries[-1][0]
        self._caller.ask(*commit)


def _commit(keys: PartitionKeys, size: int, payload: bytes, record: bytes) -> tuple[bytes, int]:
    """A transaction like a worker's, and how many replies it has; its predictions leave their ids to the server.

    Each asset has two ticks in it, as 2,048 assets have in 4,096 ticks.
    """
    names = [name for _, name in asset_names(size // 2, 1)] * 2
    time, id_bytes = b"0" * TIME_BYTES, bytes(18)
    commands = [encode("MULTI")]
    commands += [encode("XADD", keys.predictions, "*", "a", name, "t", time, "p", payload) for name in names]
    commands.append(encode("HSET", keys.latest, *chain(*((name, id_bytes + payload) for name in set(names)))))
    if record:
        commands.append(encode("HSET", keys.states, *chain(*((name, record) for name in set(names)))))
    commands.append(encode("HINCRBY", keys.control, "applied", str(size)))
    commands.append(encode("XTRIM", keys.predictions, "MAXLEN", "~", "10000"))
    commands += [encode("TIME"), encode("EXEC")]
    return b"".join(commands), len(commands)


def main() -> None:
    kind, url, name, partitions = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    settings = load({"redis": {"url": url}, "worker": {"name": name}})
    if kind != "encoded":
        return uvloop.run(serve_identity(settings, DistantDevice if kind == "distant" else IdentityDevice))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    EncodedClient(url.removeprefix("unix://"), settings, int(partitions)).serve(stopped)


if __name__ == "__main__":
    main()

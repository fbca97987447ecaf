"""bytewax: streams in, `stateful_map` keyed by asset, predictions out; states live in the process.

Two processes with half of the streams each, so that nothing has to cross from one to the other. Ticks are read and
predictions written a batch at a time, with a pipeline. Recovery is on: every ten seconds, which is bytewax's default,
changed states and the places in the streams go to SQLite together.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from redis import Redis

from loadtests.peers.launch import Given, predictions_key, say_ready, ticks_key
from loadtests.peers.models import MODELS

BATCH = 256
LOOK_EVERY = timedelta(milliseconds=5)
EPOCH = timedelta(seconds=10)

Tick = tuple[int, bytes, dict[bytes, bytes]]
Predicted = tuple[int, dict[bytes, bytes], bytes]


class Partition(StatefulSourcePartition[Tick, str]):
    """One stream, read on from an entry."""

    def __init__(self, redis: Redis, partition: int, cursor: str | None) -> None:
        self._redis, self._partition, self._cursor = redis, partition, cursor or "0"
        self._empty = False

    def next_batch(self) -> list[Tick]:
        reply: Any = self._redis.xread({ticks_key(self._partition): self._cursor}, BATCH)
        entries = reply[0][1] if reply else []
        self._empty = not entries
        if entries:
            self._cursor = entries[-1][0].decode()
        return [(self._partition, entry_id, fields) for entry_id, fields in entries]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + LOOK_EVERY if self._empty else None

    def snapshot(self) -> str:
        return self._cursor


class Streams(FixedPartitionedSource[Tick, str]):
    def __init__(self, redis: Redis, partitions: list[int]) -> None:
        self._redis, self._partitions = redis, partitions

    def list_parts(self) -> list[str]:
        return list(map(str, self._partitions))

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> Partition:
        return Partition(self._redis, int(for_part), resume_state)


class Writing(StatelessSinkPartition[tuple[str, Predicted]]):
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def write_batch(self, items: list[tuple[str, Predicted]]) -> None:
        with self._redis.pipeline(transaction=False) as together:
            for _, (partition, fields, prediction) in items:
                entry: Any = {b"a": fields[b"a"], b"t": fields[b"t"], b"p": prediction}
                together.xadd(predictions_key(partition), entry)
            together.execute()


class Predictions(DynamicSink[tuple[str, Predicted]]):
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Writing:
        return Writing(self._redis)


def flow(given: Given) -> Dataflow:
    redis, model = Redis(unix_socket_path=given.socket), MODELS[given.kind]()

    def step(state: bytes | None, tick: Tick) -> tuple[bytes, Predicted]:
        partition, entry_id, fields = tick
        arrival_ns = int(entry_id[:13]) * 1_000_000
        state, prediction = model.step(state, float(fields[b"y"]), int(fields[b"t"]), arrival_ns)
        return state, (partition, fields, prediction)

    made = Dataflow("predict")
    ticks = op.input("ticks", made, Streams(redis, given.share()))
    by_asset = op.key_on("asset", ticks, lambda tick: tick[2][b"a"].decode())
    op.output("predictions", op.stateful_map("step", by_asset, step), Predictions(redis))
    return made


def main() -> None:
    given = Given.read()
    states = Path(given.folder) / f"states-{given.number}"
    states.mkdir()
    init_db_dir(states, 1)
    made = flow(given)
    say_ready()
    cli_main(made, epoch_interval=EPOCH, recovery_config=RecoveryConfig(str(states)))


if __name__ == "__main__":
    main()

"""The usual shape of a stream worker: one consumer of a group; for each tick GET, one step, SET, XADD, XACK.

Each process has streams of its own, so that the ticks of an asset stay in order. What two of a tick's commands
have in common is a pipeline: the new state, the prediction and the acknowledgement go out together.
"""

from typing import Any

from redis import Redis

from loadtests.peers.launch import Given, predictions_key, say_ready, state_key, ticks_key
from loadtests.peers.models import MODELS

GROUP, COUNT, BLOCK_MS = "peer", 100, 100


class PerTickWorker:
    """The peer."""

    def __init__(self, given: Given) -> None:
        self._redis, self._model = Redis(unix_socket_path=given.socket), MODELS[given.kind]()
        self._partition_of = {ticks_key(partition).encode(): partition for partition in given.share()}
        for key in self._partition_of:
            self._redis.xgroup_create(key, GROUP, "0", mkstream=True)

    def serve(self) -> None:
        say_ready()
        streams: Any = dict.fromkeys(self._partition_of, ">")
        while True:
            reply: Any = self._redis.xreadgroup(GROUP, "1", streams, COUNT, BLOCK_MS)
            for key, entries in reply or ():
                for entry_id, fields in entries:
                    self._tick(key, entry_id, fields)

    def _tick(self, key: bytes, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        partition, asset = self._partition_of[key], fields[b"a"]
        place = state_key(partition, asset.decode())
        state: Any = self._redis.get(place)
        arrival_ns = int(entry_id[:13]) * 1_000_000
        state, prediction = self._model.step(state, float(fields[b"y"]), int(fields[b"t"]), arrival_ns)
        with self._redis.pipeline(transaction=False) as together:
            together.set(place, state)
            together.xadd(predictions_key(partition), {b"a": asset, b"t": fields[b"t"], b"p": prediction})
            together.xack(key, GROUP, entry_id)
            together.execute()


if __name__ == "__main__":
    PerTickWorker(Given.read()).serve()

"""The reader of a run as a process of its own: notes when each prediction could be read, and nothing else.

    python -m loadtests.listener '{"socket": ..., "partitions": 8, "file": "latencies.npz"}'

Says "ready" when it knows where to start. When its standard input ends it reads what is left, and writes for every
prediction the tick's event time, the moment at which it was read and, if wanted, how deep the graph was.
"""

import json
import select
import sys
import time

import numpy as np

from loadtests.caller import Caller
from loadtests.ticks import TIME_BYTES
from state_store.keys import Keys
from state_store.wire import encode

COUNT_MAX = 512
BLOCK_MS = 100
TIME, PAYLOAD = 3, 5  # the places of event time and payload among the fields a, t, p
DEPTH = b"\xa5depth"  # its name in a payload; a small number follows as one byte


class Listener:
    """Follows the predictions of all partitions."""

    def __init__(self, path: str, partitions: int, depths: bool) -> None:
        self._caller = Caller(path)
        keys = [Keys().of(partition).predictions for partition in range(partitions)]
        self._cursors = {key: self._last_id(key) for key in keys}
        self.read_ns: list[int] = []
        self.times: list[list[bytes]] = []
        self.depths: list[bytes] = []
        self._with_depths = depths

    def read(self) -> int:
        """Waits a moment for predictions; returns how many came."""
        block = ("BLOCK", str(BLOCK_MS), "STREAMS")
        reply = self._ask("XREAD", "COUNT", str(COUNT_MAX), *block, *self._cursors, *self._cursors.values())
        now_ns = time.time_ns()
        for key, entries in reply or ():
            self._cursors[key] = entries[-1][0]
            self.times.append([fields[TIME] for _, fields in entries])
            if self._with_depths:
                self.depths.append(bytes(_depth(fields[PAYLOAD]) for _, fields in entries))
            self.read_ns.append(now_ns)
        return sum(len(entries) for _, entries in reply or ())

    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Event time and time of reading of every prediction, in nanoseconds; and its depth, if that is wanted."""
        text = np.frombuffer(b"".join(map(b"".join, self.times)), np.uint8).reshape(-1, TIME_BYTES)
        times_ns = (text - ord("0")).astype(np.int64) @ (10 ** np.arange(TIME_BYTES - 1, -1, -1))
        read_ns = np.repeat(np.array(self.read_ns, np.int64), [len(times) for times in self.times])
        return times_ns, read_ns, np.frombuffer(b"".join(self.depths), np.uint8)

    def _ask(self, *words: bytes | str):
        return self._caller.ask(encode(*words), 1)[0]

    def _last_id(self, key: bytes) -> bytes:
        entries = self._ask("XREVRANGE", key, "+", "-", "COUNT", "1")
        return entries[0][0] if entries else b"0-0"


def _depth(payload: bytes) -> int:
    return payload[payload.index(DEPTH) + len(DEPTH)]


def main() -> None:
    given = json.loads(sys.argv[1])
    listener = Listener(given["socket"], given["partitions"], given["depths"])
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        listener.read()
    while listener.read():
        pass
    times_ns, read_ns, depths = listener.table()
    np.savez(given["file"], times_ns=times_ns, read_ns=read_ns, depths=depths)


if __name__ == "__main__":
    main()

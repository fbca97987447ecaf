"""Judges a history by the calm reference: what was sent, what the logs hold, and what one process makes of it.

Of every asset the log has exactly the ticks that were sent, in order; every tick has one prediction under its own id,
in order, of the very bytes that the reference gives; the states are the reference's too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgpack
import numpy as np

from predictor_core import decode_record
from state_store import START, RedisStateStore
from state_store.logs import Entry, Logs, Looking
from worker.calm import Replay
from worker.settings import Settings

LOGS = ("ticks", "predictions", "rejected")
SHOWN_MAX = 3
Sent = Mapping[str, Sequence[tuple[float, int]]]


class Reference:
    """The core alone, compiled once for many histories."""

    def __init__(self, settings: Settings) -> None:
        self.replay = Replay(settings)
        self.program = self.replay.program
        self._histories = 0

    def key(self) -> int:
        """A number that keeps the assets of one history apart from those of others."""
        self._histories += 1
        return self._histories


class Judge:
    """Reads one history's logs, at its end or all along, and compares."""

    def __init__(self, reference: Reference, url: str, partitions: int, since: dict[int, bytes]) -> None:
        self._reference, self._url, self._partitions = reference, url, partitions
        self._read_to = {(partition, log): since[partition] for partition in range(partitions) for log in LOGS}
        self._entries: dict[tuple[int, str], list[Entry]] = defaultdict(list)

    def move_to(self, url: str) -> None:
        """Another server has the logs now."""
        self._url = url

    async def read(self) -> None:
        """Reads on; while histories are cut short behind it, it has to be called often."""
        async with Looking(self._url) as looking:
            logs = Logs(looking, "usp")
            for (partition, log), after in self._read_to.items():
                async for page in logs.pages(partition, log, after):
                    self._entries[partition, log] += page
                    self._read_to[partition, log] = page[-1][0]

    async def faults(self, sent: Sent) -> list[str]:
        """Everything that is not as it should be, in words."""
        await self.read()
        found = self._of_input(sent)
        store = RedisStateStore(self._url)
        try:
            for partition in range(self._partitions):
                found += self._of_order(partition) or await self._of_bytes(partition, store)
        finally:
            await store.close()
        return found

    def _of_input(self, sent: Sent) -> list[str]:
        logged: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for partition in range(self._partitions):
            for _, fields in self._entries[partition, "ticks"]:
                logged[fields[b"a"].decode()].append((float(fields[b"y"]), int(fields[b"t"])))
        wrong = [asset for asset in sent.keys() | logged.keys() if list(sent.get(asset, ())) != logged[asset]]
        counts = [f"{asset}: {len(sent.get(asset, ()))} sent, {len(logged[asset])} logged" for asset in wrong]
        return _short("assets whose ticks are not in the log as they were sent", counts)

    def _of_order(self, partition: int) -> list[str]:
        ticks, predictions, rejected = ([id for id, _ in self._entries[partition, log]] for log in LOGS)
        if ticks == predictions and not rejected:
            return []
        wrong = {
            "ticks without a prediction": sorted(set(ticks) - set(predictions)),
            "predictions without a tick": sorted(set(predictions) - set(ticks)),
            "dead letters": rejected,
        }
        named = [line for what, ids in wrong.items() for line in _short(f"partition {partition}: {what}", ids)]
        return named or [f"partition {partition}: the predictions come in another order than their ticks"]

    async def _of_bytes(self, partition: int, store: RedisStateStore) -> list[str]:
        ticks, predictions = self._entries[partition, "ticks"], self._entries[partition, "predictions"]
        if not ticks:
            return []
        key = self._reference.key()
        names = [fields[b"a"] for _, fields in ticks]
        answers = self._reference.replay.take(
            [(key, name) for name in names],
            np.array([float(fields[b"y"]) for _, fields in ticks]),
            np.array([int(fields[b"t"]) for _, fields in ticks]),
            np.array([int(id.partition(b"-")[0]) * 1_000_000 for id, _ in ticks]),
            np.array([msgpack.unpackb(fields[b"p"])["depth"] for _, fields in predictions], np.int32),
        )
        pairs = zip(predictions, answers.payloads, strict=True)
        differing = [id for (id, fields), payload in pairs if fields[b"p"] != payload.tobytes()]
        found = _short(f"partition {partition}: predictions of other bytes than the reference's", differing)
        assets = sorted(set(names))
        records = await store.load(partition, assets)
        states = [name for name, record in zip(assets, records, strict=True) if not self._same(key, name, record)]
        return found + _short(f"partition {partition}: states of other bytes than the reference's", states)

    def _same(self, key: int, asset: bytes, record: bytes | None) -> bool:
        if record is None:
            return False
        row = decode_record(record, self._reference.program.layout_fingerprint)
        return row.tobytes() == self._reference.replay.row((key, asset)).tobytes()


async def ends_of_logs(url: str, partitions: int) -> dict[int, bytes]:
    """Where a history begins."""
    store = RedisStateStore(url)
    try:
        return {p: (await store.probe(p)).last_id or START for p in range(partitions)}
    finally:
        await store.close()


def _short(what: str, found: Sequence[object]) -> list[str]:
    shown = ", ".join(str(each) for each in found[:SHOWN_MAX])
    return [f"{len(found)} {what}: {shown}"] if found else []

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
from state_store.keys import Keys, partition_of, tag_of
from state_store.logs import Entry, Logs, Looking
from state_store.meta import look_at_fleet
from worker.calm import Replay
from worker.settings import Settings

LOGS = ("ticks", "predictions", "rejected")
SHOWN_MAX = 3
Home = tuple[int, int]  # generation and partition
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
    """Reads one history's logs, at its end or all along, and compares; `since` is where they begin.

    Where the fleet got other partitions meanwhile, every asset goes on in them with the row that it had.
    """

    def __init__(self, reference: Reference, url: str, since: dict[Home, bytes]) -> None:
        self._reference, self._url = reference, url
        self._first = min(generation for generation, _ in since)
        self._read_to = {(home, log): entry_id for home, entry_id in since.items() for log in LOGS}
        self._entries: dict[tuple[Home, str], list[Entry]] = defaultdict(list)

    def move_to(self, url: str) -> None:
        """Another server has the logs now."""
        self._url = url

    async def read(self) -> list[Home]:
        """Reads on, and gives where; while histories are cut short behind it, it has to be called often."""
        async with Looking(self._url) as looking:
            homes = await self._homes(looking)
            for home in homes:
                for log in LOGS:
                    after = self._read_to.get((home, log), START)
                    async for page in Logs(looking, "usp", home[0]).pages(home[1], log, after):
                        self._entries[home, log] += page
                        self._read_to[home, log] = page[-1][0]
        return homes

    async def _homes(self, looking: Looking) -> list[Home]:
        meta, _ = await look_at_fleet(looking.route, Keys("usp"))
        return [(g, p) for g in range(self._first, meta.generation + 1) for p in range(meta.of(g).partitions)]

    async def faults(self, sent: Sent) -> list[str]:
        """Everything that is not as it should be, in words."""
        homes = await self.read()
        found, key = self._of_input(homes, sent), self._reference.key()
        taken: set[bytes] = set()
        torn: set[bytes] = set()
        for home in homes:
            wrong = self._of_order(home)
            (torn if wrong else taken).update(fields[b"a"] for _, fields in self._entries[home, "ticks"])
            found += wrong or self._of_bytes(home, key)
        return found + await self._of_states(taken - torn, key)

    def _of_input(self, homes: list[Home], sent: Sent) -> list[str]:
        logged: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for home in homes:
            for _, fields in self._entries[home, "ticks"]:
                logged[fields[b"a"].decode()].append((float(fields[b"y"]), int(fields[b"t"])))
        wrong = [asset for asset in sent.keys() | logged.keys() if list(sent.get(asset, ())) != logged[asset]]
        counts = [f"{asset}: {len(sent.get(asset, ()))} sent, {len(logged[asset])} logged" for asset in wrong]
        return _short("assets whose ticks are not in the log as they were sent", counts)

    def _of_order(self, home: Home) -> list[str]:
        ticks, predictions, rejected = ([id for id, _ in self._entries[home, log]] for log in LOGS)
        if ticks == predictions and not rejected:
            return []
        wrong = {
            "ticks without a prediction": sorted(set(ticks) - set(predictions)),
            "predictions without a tick": sorted(set(predictions) - set(ticks)),
            "dead letters": rejected,
        }
        named = [line for what, ids in wrong.items() for line in _short(f"partition {tag_of(*home)}: {what}", ids)]
        return named or [f"partition {tag_of(*home)}: the predictions come in another order than their ticks"]

    def _of_bytes(self, home: Home, key: int) -> list[str]:
        ticks, predictions = self._entries[home, "ticks"], self._entries[home, "predictions"]
        if not ticks:
            return []
        answers = self._reference.replay.take(
            [(key, fields[b"a"]) for _, fields in ticks],
            np.array([float(fields[b"y"]) for _, fields in ticks]),
            np.array([int(fields[b"t"]) for _, fields in ticks]),
            np.array([int(id.partition(b"-")[0]) * 1_000_000 for id, _ in ticks]),
            np.array([msgpack.unpackb(fields[b"p"])["depth"] for _, fields in predictions], np.int32),
        )
        pairs = zip(predictions, answers.payloads, strict=True)
        differing = [id for (id, fields), payload in pairs if fields[b"p"] != payload.tobytes()]
        return _short(f"partition {tag_of(*home)}: predictions of other bytes than the reference's", differing)

    async def _of_states(self, assets: set[bytes], key: int) -> list[str]:
        """Where they are now."""
        store, found = RedisStateStore(self._url), []
        try:
            meta = await store.read_meta()
            by_home: dict[int, list[bytes]] = defaultdict(list)
            for asset in sorted(assets):
                by_home[partition_of(asset, meta.partitions)].append(asset)
            for partition, names in sorted(by_home.items()):
                records = await store.load(partition, names)
                pairs = zip(names, records, strict=True)
                wrong = [name for name, record in pairs if not self._same(key, name, record)]
                where = f"partition {tag_of(meta.generation, partition)}"
                found += _short(f"{where}: states of other bytes than the reference's", wrong)
        finally:
            await store.close()
        return found

    def _same(self, key: int, asset: bytes, record: bytes | None) -> bool:
        if record is None:
            return False
        row = decode_record(record, self._reference.program.layout_fingerprint)
        return row.tobytes() == self._reference.replay.row((key, asset)).tobytes()


async def ends_of_logs(url: str) -> dict[Home, bytes]:
    """Where a history begins."""
    store = RedisStateStore(url)
    try:
        meta = await store.read_meta()
        return {(meta.generation, p): (await store.probe(p)).last_id or START for p in range(meta.partitions)}
    finally:
        await store.close()


def _short(what: str, found: Sequence[object]) -> list[str]:
    shown = ", ".join(str(each) for each in found[:SHOWN_MAX])
    return [f"{len(found)} {what}: {shown}"] if found else []

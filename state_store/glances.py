"""What somebody who only looks may ask: one asset's newest predictions, names, sizes, the server's state.

Every question names keys of one partition only and has a limit, so a look costs the same in a fleet of any size.
"""

from dataclasses import dataclass

from state_store.branch import split_latest
from state_store.contract import Probe
from state_store.control import decode_probe, probe_words
from state_store.keys import Keys, partition_of
from state_store.letters import Letter, letter_of
from state_store.logs import Looking, entry_of, ticks_of
from state_store.ticks import read_tick

SCAN_BEGIN = b"0"
PROBED_AT_ONCE = 64  # the server answers others between two such requests
_NUMBERS = {
    "used_memory": "memory",
    "maxmemory": "memory_max",
    "connected_clients": "clients",
    "instantaneous_ops_per_sec": "commands_per_s",
    "uptime_in_seconds": "uptime_s",
    "aof_enabled": "aof",
    "loading": "loading",
    "evicted_keys": "evicted",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A prediction as it lies in the server: its id is its tick's id."""

    id: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server that answers, as it describes itself."""

    version: str = ""
    role: str = ""
    memory: int = 0
    memory_max: int = 0  # 0: no limit
    clients: int = 0
    commands_per_s: int = 0
    uptime_s: int = 0
    aof: int = 0
    loading: int = 0
    evicted: int = 0


class Glances:
    """Questions about one fleet as it is now, over one connection."""

    def __init__(self, looking: Looking, namespace: str, partitions: int, generation: int = 0) -> None:
        self._looking, self._keys, self._partitions = looking, Keys(namespace, generation), partitions

    def home(self, asset: bytes) -> int:
        """The partition of an asset."""
        return partition_of(asset, self._partitions)

    async def probes(self) -> list[Probe]:
        """Every partition from outside, some of them at once."""
        probes: list[Probe] = []
        for start in range(0, self._partitions, PROBED_AT_ONCE):
            part = range(start, min(start + PROBED_AT_ONCE, self._partitions))
            replies = await self._looking.each(*(probe_words(self._keys.of(partition)) for partition in part))
            probes += [decode_probe(partition, reply) for partition, reply in zip(part, replies, strict=True)]
        return probes

    async def newest(self, asset: bytes) -> Made | None:
        """The asset's last prediction; None if it never had one."""
        value = await self._looking.ask("HGET", self._keys.of(self.home(asset)).latest, asset)
        if value is None:
            return None
        entry_id, _, payload = split_latest(value)
        return Made(entry_id, payload)

    async def predictions_after(self, partition: int, after: bytes, count: int) -> list[tuple[bytes, list[bytes]]]:
        """Predictions after an id, the oldest first, their fields as they lie there."""
        found = await self._looking.ask(
            "XRANGE", self._keys.of(partition).predictions, b"(" + after, "+", "COUNT", str(count)
        )
        return [(entry_id, fields) for entry_id, fields in found]

    async def predictions_before(self, partition: int, until: bytes, count: int) -> list[tuple[bytes, list[bytes]]]:
        """Predictions up to an id or `(id`, the newest first."""
        found = await self._looking.ask(
            "XREVRANGE", self._keys.of(partition).predictions, until, "-", "COUNT", str(count)
        )
        return [(entry_id, fields) for entry_id, fields in found]

    async def value(self, partition: int, tick_id: bytes) -> float | None:
        """The value of one tick; None if the log holds it no more."""
        found = await self._looking.ask("XRANGE", self._keys.of(partition).ticks, tick_id, "+", "COUNT", "1")
        fields = dict(ticks_of(found[0]) if found else ()).get(tick_id)
        if fields is None:
            return None
        value, _, fault = read_tick(fields, lambda _: None)
        return None if fault else value

    async def names(self, partition: int, place: bytes, pattern: bytes, count: int) -> tuple[bytes, list[bytes]]:
        """Assets whose names match, from one place of a scan to the next; the last place is the first one again."""
        latest = self._keys.of(partition).latest
        place, found = await self._looking.ask("HSCAN", latest, place, "MATCH", pattern, "COUNT", str(count))
        return place, found[0::2]

    async def sizes(self) -> tuple[int, int]:
        """How many assets have a prediction, and how many dead letters there are."""
        every = [self._keys.of(partition) for partition in range(self._partitions)]
        assets = await self._looking.each(*(("HLEN", keys.latest) for keys in every))
        letters = await self._looking.each(*(("XLEN", keys.rejected) for keys in every))
        return sum(assets), sum(letters)

    async def newest_letters(self, count: int) -> list[Letter]:
        """The last dead letters of every partition, so many of each."""
        keys = [self._keys.of(partition).rejected for partition in range(self._partitions)]
        found = await self._looking.each(*(("XREVRANGE", key, "+", "-", "COUNT", str(count)) for key in keys))
        return [letter_of(partition, entry_of(raw)) for partition, page in enumerate(found) for raw in page]

    async def server(self) -> ServerFacts:
        """What the server says of itself; of a cluster, the node that answers."""
        lines = (await self._looking.ask("INFO")).decode(errors="replace").splitlines()
        said = dict(line.partition(":")[::2] for line in lines if ":" in line)
        numbers = {name: int(said.get(theirs) or 0) for theirs, name in _NUMBERS.items()}
        version = said.get("valkey_version") or said.get("redis_version", "")
        return ServerFacts(version=version, role=said.get("role", ""), **numbers)

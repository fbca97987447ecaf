"""What happens a few times a second for the whole fleet: meta, worker registry, configuration, audit, probes."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from state_store.client import CONTROL_CONNECTIONS_MAX
from state_store.contract import CONFIG_GENERATIONS_MAX, ConfigGeneration, Meta, Probe, WorkerInfo
from state_store.errors import FleetMissing, WrongServer
from state_store.keys import Keys, PartitionKeys
from state_store.lease import lease_words
from state_store.meta import compare_meta, decode_meta, encode_meta
from state_store.nodes import Nodes
from state_store.room import PASS_WHEN_FULL_LUA

WORKER_FORGOTTEN_MS = 600_000
AUDIT_EVENTS_MAX = 100_000
OLDEST_SERVER = (6, 2)

# KEYS: meta    ARGV: name value ...
_OPEN_LUA = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
"""

# KEYS: workers    ARGV: name info forgotten_ms
_REGISTER_LUA = (
    PASS_WHEN_FULL_LUA
    + """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if now - tonumber(string.match(all[i + 1], '^%d+')) > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
"""
)

# KEYS: workers    reply: the clock that they were noted by, and all of them
_WORKERS_LUA = "return {redis.call('TIME'), redis.call('HGETALL', KEYS[1])}"

# KEYS: config    ARGV: generation that the caller knows, values, generations kept
_PUBLISH_LUA = """
local current = tonumber(redis.call('HGET', KEYS[1], 'generation') or '0')
if current ~= tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'generation', current + 1, current + 1, ARGV[2])
redis.call('HDEL', KEYS[1], current + 1 - tonumber(ARGV[3]))
return current + 1
"""

# The backlog is all ticks that ever came less the applied ones. They came in the entries of the log and those cut off
# it, so this needs no `entries-added`, which Redis 6.2 does not have; and frames brought more than one an entry. Exact
# as long as nobody but the commit deletes ticks.
BACKLOG_LUA = """
local function backlog_of(length, framed, last, cursor, applied, trimmed)
  if last == cursor or length == 0 then return 0 end
  return math.max(1, length + trimmed + framed - applied)
end
"""

# KEYS: ticks control frames
_PROBE_LUA = (
    BACKLOG_LUA
    + """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local stream, info = {}, redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end end
local c = redis.call('HMGET', KEYS[2],
  'applied', 'cursor', 'trimmed', 'epoch', 'owner', 'until', 'attempts', 'seal', 'nonce', 'state_cursor',
  'closed', 'drained')
local applied, cursor, trimmed = tonumber(c[1] or '0'), c[2] or '0-0', tonumber(c[3] or '0')
local length, last = stream['length'] or 0, stream['last-generated-id'] or '0-0'
local framed = tonumber(redis.call('HGET', KEYS[3], 'framed') or '0')
local backlog, oldest, left = backlog_of(length, framed, last, cursor, applied, trimmed), 0, 0
local unread = redis.call('XRANGE', KEYS[1], '(' .. cursor, '+', 'COUNT', 1)[1]
if unread then oldest = now - tonumber(string.match(unread[1], '^%d+')) else backlog = 0 end
if c[9] and c[9] ~= '' then left = tonumber(c[6] or '0') - now end
local first = stream['first-entry'] and stream['first-entry'][1] or ''
if c[11] then last = stream['last-entry'] and stream['last-entry'][1] or cursor end
local added = stream['entries-added'] and stream['entries-added'] + framed or applied + backlog
return {added, length, applied, trimmed, backlog, cursor, first, last,
        c[5] or '', tonumber(c[4] or '0'), math.max(left, 0), tonumber(c[7] or '0'), math.max(oldest, 0), c[8] or '',
        c[10] or cursor, c[11] and 1 or 0, c[12] and 1 or 0, framed}
"""
)


class FleetControl:
    """The fleet's shared keys, over the control client."""

    def __init__(self, client: Nodes, keys: Keys, where: str):
        self.client = client
        self.keys = keys
        self.where = where
        self._fit = False
        self._room = asyncio.Semaphore(CONTROL_CONNECTIONS_MAX)

    async def call(self, *words: Any) -> Any:
        """Executes one command at the node of its key."""
        async with self._room:
            return await self.client.execute_command(*words)

    async def open_fleet(self, wanted: Meta) -> Meta:
        """Writes `meta` once; raises FleetMismatch when it was written with other values."""
        await self._check_server()
        flat = [word for pair in encode_meta(wanted).items() for word in pair]
        kept = await self.call("EVAL", _OPEN_LUA, 1, self.keys.meta, *flat)
        meta = decode_meta(dict(zip(kept[0::2], kept[1::2], strict=True)), self._fleet)
        compare_meta(meta, wanted, self._fleet)
        return meta

    async def read_meta(self) -> Meta:
        """Reads `meta`; raises FleetMissing."""
        await self._check_server()
        kept = await self.call("HGETALL", self.keys.meta)
        if not kept:
            raise FleetMissing(f"{self._fleet} does not exist yet: make it with `predictor init`.")
        return decode_meta(kept, self._fleet)

    @property
    def _fleet(self) -> str:
        return f"The fleet '{self.keys.namespace}' at {self.where}"

    async def _check_server(self) -> None:
        if self._fit:
            return
        found = str((await self.call("INFO", "server")).get("redis_version", "0"))
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST_SERVER:
            raise WrongServer(f"{self.where} is version {found}: the fleet needs Redis 6.2 or Valkey 7.2.")
        self._fit = True

    async def lease(self, op: str, keys: PartitionKeys, worker: str, nonce: bytes = b"", ttl_ms: int = 0) -> list:
        """Runs the lease script for somebody who holds no connection of that partition."""
        return await self.call(*lease_words(op, keys, worker, nonce, 0, ttl_ms))

    async def probe(self, partition: int) -> Probe:
        """Looks at one partition."""
        return decode_probe(partition, await self.call(*probe_words(self.keys.of(partition))))

    async def register_worker(self, name: str, info: Mapping[str, Any]) -> None:
        """Notes that a worker lives, and forgets those that have been silent for long."""
        words = (self.keys.workers, name, json.dumps(info), WORKER_FORGOTTEN_MS)
        await self.call("EVAL", _REGISTER_LUA, 1, *words)

    async def deregister_worker(self, name: str) -> None:
        """Forgets a worker."""
        await self.call("HDEL", self.keys.workers, name)

    async def workers(self) -> list[WorkerInfo]:
        """Lists the workers by name."""
        (seconds, microseconds), kept = await self.call("EVAL", _WORKERS_LUA, 1, self.keys.workers)
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        noted = sorted(zip(kept[0::2], kept[1::2], strict=True))
        return [_worker(name, value, now_ms) for name, value in noted]

    async def read_config(self) -> ConfigGeneration:
        """Reads the newest shared configuration; generation 0 is empty."""
        number = int(await self.call("HGET", self.keys.config, "generation") or 0)
        values = await self.call("HGET", self.keys.config, str(number)) if number else b"{}"
        return ConfigGeneration(number, json.loads(values))

    async def config_history(self) -> list[ConfigGeneration]:
        """Reads the generations that are kept, the oldest first."""
        kept = await self.call("HGETALL", self.keys.config)
        numbers = sorted(int(name) for name in kept if name != b"generation")
        return [ConfigGeneration(number, json.loads(kept[b"%d" % number])) for number in numbers]

    async def publish_config(self, known: int, values: Mapping[str, Any]) -> int | None:
        """Publishes the generation after a known one; None if somebody else has done so."""
        words = (self.keys.config, known, json.dumps(values), CONFIG_GENERATIONS_MAX)
        number = await self.call("EVAL", _PUBLISH_LUA, 1, *words)
        return None if number < 0 else number

    async def append_audit(self, event: Mapping[str, Any]) -> bytes:
        """Appends an event for those who ask later who did what; gives its id."""
        limit = ("MAXLEN", "~", AUDIT_EVENTS_MAX)
        return await self.call("XADD", self.keys.audit, *limit, "*", "event", json.dumps(event))


def probe_words(keys: PartitionKeys) -> tuple[str | bytes, ...]:
    """The command that looks at one partition."""
    return "EVAL", _PROBE_LUA, "3", keys.ticks, keys.control, keys.frames


def decode_probe(partition: int, reply: list) -> Probe:
    """What its reply says."""
    (*told, state_cursor, closed, drained, framed) = reply
    (*counts, cursor, first_id, last_id, owner, epoch, left_ms, attempts, oldest_ms, seal) = told
    added, length, applied, trimmed, backlog = counts
    return Probe(
        partition=partition,
        added=added,
        length=length,
        applied=applied,
        trimmed=trimmed,
        backlog=backlog,
        cursor=cursor,
        first_id=first_id,
        last_id=last_id,
        owner=owner.decode(),
        epoch=epoch,
        lease_left_ms=left_ms,
        attempts=attempts,
        oldest_ms=oldest_ms,
        seal=seal.decode(errors="replace"),
        state_cursor=state_cursor,
        closed=bool(closed),
        drained=bool(drained),
        framed=framed,
    )


def _worker(name: bytes, value: bytes, now_ms: int) -> WorkerInfo:
    seen_ms, _, info = value.partition(b" ")
    return WorkerInfo(name.decode(), json.loads(info), max(0, now_ms - int(seen_ms)))

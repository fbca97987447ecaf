"""Dead letters: what is in them, and the two ways out, each one atomic step: sent again as a new tick, or thrown away.

Either leaves a note, `put_aside: tick id -> what became of its letter`, while the log holds the tick. So a command
that died half-way can be given again, and whoever replays the log still knows which ticks were put aside.

A letter of partitions before goes, in two such steps, to the partition that its asset has now: there the tick is
appended with a note under `generation.partition:id`, then the letter is removed here. The first is done only once.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgpack

from state_store.contract import PAYLOAD_BYTES_MAX, Meta
from state_store.keys import TO_OPEN, PartitionKeys, partition_of
from state_store.lease import sealed
from state_store.logs import Entry, Logs
from state_store.ticks import AssetCheck, read_tick

FIELDS_MAX = 128
PURGED_AT_ONCE = 1000
REQUEUED = "requeued as "
Home = tuple[int, int]  # Generation and partition.

# KEYS: rejected ticks put_aside control    ARGV: id, then the names and values of the tick
# reply: code detail        OK: new id | BEFORE: what became of it | NONE | SEALED: why | MOVED
_REQUEUE_LUA = """
local seal = redis.call('HGET', KEYS[4], 'seal')
if seal and seal ~= '' then return {'SEALED', seal} end
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
  local note = redis.call('HGET', KEYS[3], ARGV[1])
  return {note and 'BEFORE' or 'NONE', note or ''}
end
if redis.call('HGET', KEYS[4], 'closed') then return {'MOVED', ''} end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], 'requeued as ' .. id)
return {'OK', id}
"""

# KEYS: ticks put_aside control    ARGV: place of the letter, then the names and values of the tick
# reply: code detail        OK: new id, also if it was there before | SEALED: why | MOVED
_FORWARD_LUA = f"""
local to_open = string.find(KEYS[3], '{TO_OPEN}')
""" + """local c = redis.call('HMGET', KEYS[3], 'seal', 'closed', 'opened')
if c[1] and c[1] ~= '' then return {'SEALED', c[1]} end
local note = redis.call('HGET', KEYS[2], ARGV[1])
if note then return {'OK', string.match(note, '%S+$')} end
if c[2] or to_open and not c[3] then return {'MOVED', ''} end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
redis.call('HSET', KEYS[2], ARGV[1], 'requeued as ' .. id)
return {'OK', id}
"""

# KEYS: rejected put_aside    ARGV: id, what became of it    reply: the note that stands
_LEAVE_LUA = """
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[2], ARGV[1])
"""

# KEYS: rejected put_aside    ARGV: ids
_PURGE_LUA = """
local gone = 0
for _, id in ipairs(ARGV) do
  if redis.call('XDEL', KEYS[1], id) == 1 then
    redis.call('HSET', KEYS[2], id, 'purged')
    gone = gone + 1
  end
end
return gone
"""

# KEYS: put_aside ticks
_TIDY_LUA = """
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if not first then return 0 end
local function order(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  if ms then return tonumber(ms), tonumber(sequence) end
end
local first_ms, first_sequence = order(first[1])
if first[2][1] == 'n' then first_sequence = first_sequence + 1 - (tonumber(first[2][2]) or 1) end
local notes = redis.call('HGETALL', KEYS[1])
for i = 1, #notes, 2 do
  local ms, sequence = order(notes[i])
  if not ms then ms, sequence = order(string.match(notes[i + 1], '%S+$')) end
  if ms < first_ms or (ms == first_ms and sequence < first_sequence) then redis.call('HDEL', KEYS[1], notes[i]) end
end
return 1
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """One tick that was put aside; `fields` are names and values as they were sent."""

    partition: int
    id: bytes
    asset: bytes
    reason: str
    fields: tuple[bytes, ...]
    generation: int = 0  # Of the partitions.

    @property
    def home(self) -> Home:
        """Where it lies."""
        return self.generation, self.partition

    @property
    def place(self) -> str:
        """The one name that it has in a fleet."""
        return f"{self.generation}.{self.partition}:{self.id.decode()}"

    @property
    def kind(self) -> str:
        """The reason without what was found in this one tick."""
        return self.reason.partition(": ")[0]

    @property
    def named(self) -> dict[bytes, bytes]:
        return dict(zip(self.fields[0::2], self.fields[1::2], strict=False))


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of one letter: the new tick's id, or what became of it before; `unfit` says why neither."""

    letter: Letter
    outcome: str = ""
    unfit: str = ""


class Letters:
    """The dead letters of one fleet, in its partitions now and in those before, as long as these are kept."""

    def __init__(self, logs: Logs, meta: Meta) -> None:
        self._looking, self._meta = logs.looking, meta
        generations = range(min(meta.oldest, meta.generation), meta.generation + 1)
        self._logs = {each: logs.of(meta.of(each)) for each in generations}
        self._homes = [(each, partition) for each in generations for partition in range(meta.of(each).partitions)]

    async def all(self) -> AsyncIterator[Letter]:
        """Every letter, partition after partition, the oldest first."""
        for home in self._homes:
            async for page in self._logs[home[0]].pages(home[1], "rejected"):
                for entry in page:
                    yield letter_of(home[1], entry, home[0])

    async def find(self, entry_id: bytes) -> list[Letter]:
        """The letters with this id; two partitions may have one each."""
        found = []
        for generation, partition in self._homes:
            fields = await self._logs[generation].entry(partition, "rejected", entry_id)
            if fields is not None:
                found.append(letter_of(partition, (entry_id, fields), generation))
        return found

    async def fates(self, entry_id: bytes) -> dict[Home, str]:
        """What became of the letters with this id that are gone, by where they lay."""
        notes = [await self._looking.ask("HGET", self._keys(home).put_aside, entry_id) for home in self._homes]
        return {home: note.decode() for home, note in zip(self._homes, notes, strict=True) if note is not None}

    async def notes(self, partition: int) -> dict[bytes, str]:
        """What became of letters of a partition of now that are gone, by their ticks' ids."""
        flat = await self._looking.ask("HGETALL", self._keys((self._meta.generation, partition)).put_aside)
        return {entry_id: note.decode() for entry_id, note in zip(flat[0::2], flat[1::2], strict=True)}

    async def requeue(self, letter: Letter) -> Requeued:
        """Appends the tick again and removes the letter; a letter that is gone is left alone."""
        there = self._meta.of(letter.generation).partitions
        _, _, fault = read_tick(letter.named, AssetCheck(letter.partition, there).fault)
        if fault is None and (len(letter.fields) % 2 or len(letter.fields) > FIELDS_MAX):
            fault = f"more than {FIELDS_MAX // 2} fields"
        if fault is not None:
            return Requeued(letter, unfit=f"no worker could take it: {fault}")
        if letter.generation != self._meta.generation:
            return await self._forward(letter)
        keys = self._keys(letter.home)
        names = (keys.rejected, keys.ticks, keys.put_aside, keys.control)
        code, detail = await self._looking.ask("EVAL", _REQUEUE_LUA, "4", *names, letter.id, *letter.fields)
        return _requeued(letter, code, detail.decode(errors="replace"), keys)

    async def _forward(self, letter: Letter) -> Requeued:
        """Out of a partition before, into the one that the asset has now."""
        old = self._keys(letter.home)
        if (fate := await self._looking.ask("HGET", old.put_aside, letter.id)) is not None:
            return _requeued(letter, b"BEFORE", fate.decode(), old)
        if await self._logs[letter.generation].entry(letter.partition, "rejected", letter.id) is None:
            return _requeued(letter, b"NONE", "", old)
        keys = self._keys(self.home_of(letter.named[b"a"]))
        names = (keys.ticks, keys.put_aside, keys.control)
        code, detail = await self._looking.ask("EVAL", _FORWARD_LUA, "3", *names, letter.place, *letter.fields)
        if code != b"OK":
            return _requeued(letter, code, detail.decode(errors="replace"), keys)
        outcome = f"{REQUEUED}{detail.decode()}"
        names = (old.rejected, old.put_aside)
        note = await self._looking.ask("EVAL", _LEAVE_LUA, "2", *names, letter.id, outcome)
        return _requeued(letter, b"BEFORE", note.decode(), old)

    async def purge(self, home: Home, ids: Sequence[bytes]) -> int:
        """Throws letters of one partition away; gives how many there were."""
        keys, gone = self._keys(home), 0
        for start in range(0, len(ids), PURGED_AT_ONCE):
            part = ids[start : start + PURGED_AT_ONCE]
            gone += await self._looking.ask("EVAL", _PURGE_LUA, "2", keys.rejected, keys.put_aside, *part)
        return gone

    async def tidy(self, home: Home) -> None:
        """Forgets the notes on ticks that the log holds no more."""
        keys = self._keys(home)
        await self._looking.ask("EVAL", _TIDY_LUA, "2", keys.put_aside, keys.ticks)

    def home_of(self, asset: bytes) -> Home:
        """The partition that an asset has now."""
        return self._meta.generation, partition_of(asset, self._meta.partitions)

    def _keys(self, home: Home) -> PartitionKeys:
        generation, partition = home
        return self._logs[generation].keys.of(partition)


def _requeued(letter: Letter, code: bytes, detail: str, keys: PartitionKeys) -> Requeued:
    if code == b"SEALED":
        raise sealed(letter.partition, detail, keys.control)
    if code == b"MOVED":
        return Requeued(letter, unfit="the fleet gets other partitions just now: give the command again then")
    if code == b"NONE":
        return Requeued(letter, unfit="it is gone: the log of dead letters was cut meanwhile")
    if code == b"BEFORE" and not detail.startswith(REQUEUED):
        return Requeued(letter, unfit=f"it is gone: it was {detail} meanwhile")
    return Requeued(letter, outcome=REQUEUED + detail if code == b"OK" else detail)


def letter_of(partition: int, entry: Entry, generation: int = 0) -> Letter:
    """A dead letter out of its entry."""
    entry_id, fields = entry
    reason = fields.get(b"reason", b"").decode(errors="backslashreplace")
    tick = unpack_tick(fields.get(b"payload", b""))
    return Letter(partition, entry_id, fields.get(b"a", b""), reason, tick, generation)


def unpack_tick(payload: bytes) -> tuple[bytes, ...]:
    """Names and values out of a letter's payload; nothing where it is not what a worker writes."""
    if len(payload) > 2 * PAYLOAD_BYTES_MAX:
        return ()
    try:
        pieces = msgpack.unpackb(payload, max_map_len=0)
    except (ValueError, TypeError, msgpack.UnpackException):
        return ()
    return tuple(pieces) if isinstance(pieces, list) and all(isinstance(piece, bytes) for piece in pieces) else ()

"""Dead letters: what is in them, and the two ways out, each one atomic step: sent again as a new tick, or thrown away.

Either leaves a note, `put_aside: tick id -> what became of its letter`, while the log holds the tick. So a command
that died half-way can be given again, and whoever replays the log still knows which ticks were put aside.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgpack

from state_store.contract import PAYLOAD_BYTES_MAX, Meta
from state_store.keys import PartitionKeys
from state_store.lease import sealed
from state_store.logs import Entry, Logs
from state_store.ticks import AssetCheck, read_tick

FIELDS_MAX = 128
PURGED_AT_ONCE = 1000
REQUEUED = "requeued as "

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
  return tonumber(ms), tonumber(sequence)
end
local first_ms, first_sequence = order(first[1])
for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
  local ms, sequence = order(id)
  if ms < first_ms or (ms == first_ms and sequence < first_sequence) then redis.call('HDEL', KEYS[1], id) end
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
    """The dead letters of one fleet."""

    def __init__(self, logs: Logs, meta: Meta) -> None:
        self._logs, self._partitions = logs.of(meta), meta.partitions

    async def all(self) -> AsyncIterator[Letter]:
        """Every letter, partition after partition, the oldest first."""
        for partition in range(self._partitions):
            async for page in self._logs.pages(partition, "rejected"):
                for entry in page:
                    yield letter_of(partition, entry)

    async def find(self, entry_id: bytes) -> list[Letter]:
        """The letters with this id; two partitions may have one each."""
        found = []
        for partition in range(self._partitions):
            fields = await self._logs.entry(partition, "rejected", entry_id)
            if fields is not None:
                found.append(letter_of(partition, (entry_id, fields)))
        return found

    async def fates(self, entry_id: bytes) -> dict[int, str]:
        """What became of the letters with this id that are gone, by partition."""
        keys = [self._keys(partition).put_aside for partition in range(self._partitions)]
        notes = [await self._logs.looking.ask("HGET", key, entry_id) for key in keys]
        return {partition: note.decode() for partition, note in enumerate(notes) if note is not None}

    async def notes(self, partition: int) -> dict[bytes, str]:
        """What became of letters that are gone, by their ticks' ids."""
        flat = await self._logs.looking.ask("HGETALL", self._keys(partition).put_aside)
        return {entry_id: note.decode() for entry_id, note in zip(flat[0::2], flat[1::2], strict=True)}

    async def requeue(self, letter: Letter) -> Requeued:
        """Appends the tick again and removes the letter; a letter that is gone is left alone."""
        _, _, fault = read_tick(letter.named, AssetCheck(letter.partition, self._partitions).fault)
        if fault is None and (len(letter.fields) % 2 or len(letter.fields) > FIELDS_MAX):
            fault = f"more than {FIELDS_MAX // 2} fields"
        if fault is not None:
            return Requeued(letter, unfit=f"no worker could take it: {fault}")
        keys = self._keys(letter.partition)
        names = (keys.rejected, keys.ticks, keys.put_aside, keys.control)
        code, detail = await self._logs.looking.ask("EVAL", _REQUEUE_LUA, "4", *names, letter.id, *letter.fields)
        return _requeued(letter, code, detail.decode(errors="replace"), keys)

    async def purge(self, partition: int, ids: Sequence[bytes]) -> int:
        """Throws letters away; gives how many there were."""
        keys, gone = self._keys(partition), 0
        for start in range(0, len(ids), PURGED_AT_ONCE):
            part = ids[start : start + PURGED_AT_ONCE]
            gone += await self._logs.looking.ask("EVAL", _PURGE_LUA, "2", keys.rejected, keys.put_aside, *part)
        return gone

    async def tidy(self, partition: int) -> None:
        """Forgets the notes on ticks that the log holds no more."""
        keys = self._keys(partition)
        await self._logs.looking.ask("EVAL", _TIDY_LUA, "2", keys.put_aside, keys.ticks)

    def _keys(self, partition: int) -> PartitionKeys:
        return self._logs.keys.of(partition)


def _requeued(letter: Letter, code: bytes, detail: str, keys: PartitionKeys) -> Requeued:
    if code == b"SEALED":
        raise sealed(letter.partition, detail, keys.control)
    if code == b"MOVED":
        return Requeued(letter, unfit="its partition was closed by a repartition: send the tick anew")
    if code == b"NONE":
        return Requeued(letter, unfit="it is gone: the log of dead letters was cut meanwhile")
    if code == b"BEFORE" and not detail.startswith(REQUEUED):
        return Requeued(letter, unfit=f"it is gone: it was {detail} meanwhile")
    return Requeued(letter, outcome=REQUEUED + detail if code == b"OK" else detail)


def letter_of(partition: int, entry: Entry) -> Letter:
    """A dead letter out of its entry."""
    entry_id, fields = entry
    reason = fields.get(b"reason", b"").decode(errors="backslashreplace")
    return Letter(partition, entry_id, fields.get(b"a", b""), reason, unpack_tick(fields.get(b"payload", b"")))


def unpack_tick(payload: bytes) -> tuple[bytes, ...]:
    """Names and values out of a letter's payload; nothing where it is not what a worker writes."""
    if len(payload) > 2 * PAYLOAD_BYTES_MAX:
        return ()
    try:
        pieces = msgpack.unpackb(payload, max_map_len=0)
    except (ValueError, TypeError, msgpack.UnpackException):
        return ()
    return tuple(pieces) if isinstance(pieces, list) and all(isinstance(piece, bytes) for piece in pieces) else ()

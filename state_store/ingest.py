"""Idempotent sends: a script that appends each numbered tick once, in order, while the partition has room.

A producer numbers its ticks per partition from 1. The server remembers the highest number it took, so a repeated
send is skipped, and a number too high shows that the server lost acknowledged ticks in a failover: the producer is
told where to resume. A later session under the same name fences the earlier one. A closed partition answers what it
has taken, and takes no more: the rest belongs to the next generation of partitions.
"""

from hashlib import sha1

from state_store.control import BACKLOG_LUA
from state_store.keys import PartitionKeys
from state_store.wire import encode

PRODUCERS_MAX = 256  # More than these: those idle for long are forgotten.
PRODUCER_IDLE_MS = 86_400_000
_WORDS_BEFORE_TICKS = 7
WORDS_OF_TICK = 4  # asset value time request

# KEYS: ticks producers control
# ARGV: producer session first_sequence resume backlog_max producers_max idle_ms, then asset value time request ...
# reply: code last detail         OK | FULL: taken up to last | GAP: goes on after last | STALE | SEALED | MOVED
_INGEST_LUA = (
    BACKLOG_LUA
    + """
local c = redis.call('HMGET', KEYS[3], 'applied', 'cursor', 'trimmed', 'seal', 'closed')
if c[4] and c[4] ~= '' then return {'SEALED', 0, c[4]} end
local session, first, count = tonumber(ARGV[2]), tonumber(ARGV[3]), (#ARGV - 7) / 4
local kept, last = redis.call('HGET', KEYS[2], ARGV[1]), 0
if kept then
  local kept_session, kept_last = string.match(kept, '^(%d+):(%d+):')
  if tonumber(kept_session) > session then return {'STALE', 0, ''} end
  if tonumber(kept_session) == session then last = tonumber(kept_last) end
end
if c[5] then return {'MOVED', last, c[5]} end
if first > last + 1 then
  if ARGV[4] ~= '1' then return {'GAP', last, ''} end
  last = first - 1
end
local stream, info = {}, redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end end
local room = tonumber(ARGV[5]) - backlog_of(stream['length'] or 0, stream['last-generated-id'] or '0-0',
  c[2] or '0-0', tonumber(c[1] or '0'), tonumber(c[3] or '0'))
local skip = last + 1 - first
local stop = math.min(count, skip + math.max(room, 0))
for k = skip, stop - 1 do
  local i = 8 + 4 * k
  if ARGV[i + 3] == '' then
    redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2])
  else
    redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2], 'r', ARGV[i + 3])
  end
  last = last + 1
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if stop > skip then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f:%.0f:%.0f', session, last, now))
  if not kept and redis.call('HLEN', KEYS[2]) > tonumber(ARGV[6]) then
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '(%d+)$'))
      if now - seen > tonumber(ARGV[7]) then redis.call('HDEL', KEYS[2], all[i]) end
    end
  end
end
return {stop < count and 'FULL' or 'OK', last, ''}
"""
)
_SHA = sha1(_INGEST_LUA.encode()).hexdigest()
LOAD_SCRIPT = encode("SCRIPT", "LOAD", _INGEST_LUA)


def encode_tick(asset: bytes, value: bytes, time: bytes, request: bytes) -> bytes:
    """Writes a tick's four words of the call."""
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(asset),
        asset,
        len(value),
        value,
        len(time),
        time,
        len(request),
        request,
    )


def asset_of(tick: bytes) -> bytes:
    """Reads the asset back out of an encoded tick."""
    length, _, words = tick.partition(b"\r\n")
    return words[: int(length[1:])]


def ingest_call(
    keys: PartitionKeys, name: str, session: int, first: int, resume: bool, backlog_max: int, ticks: list[bytes]
) -> bytes:
    """Writes the call for ticks numbered from `first`."""
    head = ("EVALSHA", _SHA, "3", keys.ticks, keys.producers, keys.control)
    told = (name, str(session), str(first), str(int(resume)), str(backlog_max), str(PRODUCERS_MAX))
    opening = encode(*head, *told, str(PRODUCER_IDLE_MS))
    _, _, words = opening.partition(b"\r\n")
    count = len(head) + _WORDS_BEFORE_TICKS + WORDS_OF_TICK * len(ticks)
    return b"*%d\r\n%b%b" % (count, words, b"".join(ticks))

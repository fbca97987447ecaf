"""Idempotent sends: a script that appends each numbered tick once, in order, while the partition has room.

A producer numbers its ticks per partition from 1. The server remembers the highest number it took, so a repeated
send is skipped, and a number too high shows that the server lost acknowledged ticks in a failover: the producer is
told where to resume. A later session under the same name fences the earlier one. A closed partition answers what it
has taken, and takes no more: the rest belongs to the next generation of partitions. So does one that was opened again
after a failover, under another number.

Of a frame the script takes all or nothing. What it has in part, or has no room for, comes again as another frame. Every
key that it reads is there after the first call: in a Redis Cluster, a slot that is open to move refuses a script of
which some key is missing.
"""

from collections.abc import Iterator
from hashlib import sha1
from itertools import groupby
from operator import itemgetter

from state_store.control import BACKLOG_LUA
from state_store.frames import FRAME_TICKS_MAX, VERSION, encode_frame
from state_store.keys import TO_OPEN, PartitionKeys
from state_store.wire import encode

PRODUCERS_MAX = 256  # More than these: those idle for long are forgotten.
PRODUCER_IDLE_MS = 86_400_000
_WORDS_BEFORE_TICKS = 8
_REQUEST = itemgetter(3)
WORDS_OF_TICK = 4  # asset value time request; of a frame, told by how it opens: '' count frame ''
Tick = tuple[bytes, float, int, bytes]  # asset value time request

# KEYS: ticks producers control frames
# ARGV: producer session first_sequence resume backlog_max producers_max idle_ms opening, then asset value time request
# reply: code last detail         OK | FULL: taken up to last | GAP: goes on after last | STALE | SEALED | MOVED
#                                 of FULL: for how many more there is room, fewer than the next frame has
_INGEST_LUA = (
    BACKLOG_LUA
    + f"""
local to_open = string.find(KEYS[3], '{TO_OPEN}')
"""
    + """local c = redis.call('HMGET', KEYS[3], 'applied', 'cursor', 'trimmed', 'seal', 'closed', 'opened')
if c[4] and c[4] ~= '' then return {'SEALED', 0, c[4]} end
local session, first = tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, last = redis.call('HGET', KEYS[2], ARGV[1]), 0
if kept then
  local kept_session, kept_last = string.match(kept, '^(%d+):(%d+):')
  if tonumber(kept_session) > session then return {'STALE', 0, ''} end
  if tonumber(kept_session) == session then last = tonumber(kept_last) end
end
if c[5] or to_open and c[6] ~= ARGV[8] then return {'MOVED', last, c[5] or ''} end
if first > last + 1 then
  if ARGV[4] ~= '1' then return {'GAP', last, ''} end
  last = first - 1
end
local stream, info = {}, redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end end
local tail, noted = stream['last-generated-id'] or '0-0', redis.call('HGET', KEYS[4], 'framed')
local framed = tonumber(noted or '0')
local room = tonumber(ARGV[5]) - backlog_of(stream['length'] or 0, framed, tail, c[2] or '0-0',
  tonumber(c[1] or '0'), tonumber(c[3] or '0'))
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before, more, code, detail, number = last, 0, 'OK', '', first
for i = 9, #ARGV, 4 do
  local framed_here = ARGV[i] == '' and string.byte(ARGV[i + 2]) == FRAME_VERSION
  local count = framed_here and tonumber(ARGV[i + 1]) or 1
  if count < 1 or count > FRAME_TICKS_MAX or count % 1 ~= 0 then count = 1 end
  if number > last then
    if count > room then
      code, detail = 'FULL', room > 0 and string.format('%.0f', room) or ''
      break
    end
    if count > 1 then
      local ms, sequence = string.match(tail, '^(%d+)-(%d+)$')
      ms, sequence = tonumber(ms), tonumber(sequence) + count
      if now > ms then ms, sequence = now, count - 1 end
      local id, n = string.format('%.0f-%.0f', ms, sequence), string.format('%.0f', count)
      tail = redis.call('XADD', KEYS[1], id, 'n', n, 'f', ARGV[i + 2])
    elseif ARGV[i + 3] == '' then
      tail = redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2])
    else
      tail = redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2], 'r', ARGV[i + 3])
    end
    last, room, more = last + count, room - count, more + count - 1
  elseif number + count - 1 > last then
    break
  end
  number = number + count
end
if last > before then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f:%.0f:%.0f', session, last, now))
  if more > 0 or not noted then redis.call('HSET', KEYS[4], 'framed', string.format('%.0f', framed + more)) end
  if not kept and redis.call('HLEN', KEYS[2]) > tonumber(ARGV[6]) then
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '(%d+)$'))
      if now - seen > tonumber(ARGV[7]) then redis.call('HDEL', KEYS[2], all[i]) end
    end
  end
end
return {code, last, detail}
""".replace("FRAME_TICKS_MAX", str(FRAME_TICKS_MAX)).replace("FRAME_VERSION", str(VERSION[0]))
)
_SHA = sha1(_INGEST_LUA.encode()).hexdigest()
LOAD_SCRIPT = encode("SCRIPT", "LOAD", _INGEST_LUA)


def _words(asset: bytes, value: bytes, time: bytes, request: bytes) -> bytes:
    """Writes the four words of a tick, or of a frame."""
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


def asset_of(tick: Tick) -> bytes:
    """The asset of a tick on its way."""
    return tick[0]


def ingest_call(
    keys: PartitionKeys,
    name: str,
    session: int,
    opening: int,
    first: int,
    resume: bool,
    backlog_max: int,
    ticks: list[Tick],
    frames: bool = False,
) -> bytes:
    """Writes the call for ticks numbered from `first`."""
    head = ("EVALSHA", _SHA, "4", keys.ticks, keys.producers, keys.control, keys.frames)
    told = (name, str(session), str(first), str(int(resume)), str(backlog_max), str(PRODUCERS_MAX))
    call = encode(*head, *told, str(PRODUCER_IDLE_MS), str(opening))
    _, _, words = call.partition(b"\r\n")
    sent = list(_in_frames(ticks) if frames else map(_alone, ticks))
    count = len(head) + _WORDS_BEFORE_TICKS + WORDS_OF_TICK * len(sent)
    return b"*%d\r\n%b%b" % (count, words, b"".join(sent))


def _alone(tick: Tick) -> bytes:
    asset, value, time_ns, request = tick
    return _words(asset, repr(value).encode(), b"%d" % time_ns, request)


def _in_frames(ticks: list[Tick]) -> Iterator[bytes]:
    """Ticks that follow each other in frames; one that is alone, or has a request id, goes by itself."""
    for asked, run in groupby(ticks, _REQUEST):
        some = list(run)
        size = 1 if asked else FRAME_TICKS_MAX
        for start in range(0, len(some), size):
            part = some[start : start + size]
            yield _framed(part) if len(part) > 1 else _alone(part[0])


def _framed(ticks: list[Tick]) -> bytes:
    assets, values, times_ns, _ = zip(*ticks, strict=True)
    return _words(b"", b"%d" % len(ticks), encode_frame(assets, values, times_ns), b"")

"""The right to commit for a partition, for a while; the server's clock alone decides for how long.

Epoch and nonce give safety: whoever commits must hold both. The time only says when another may take over, so an
expired lease that nobody took still commits. The nonce is new with every acquisition, since after a failover an epoch
may be issued twice; it also makes a repeated acquire harmless. Acquisitions count as attempts while ticks wait: what
ends its holders again and again is one of them.
"""

from state_store.contract import START, Control, Held, Lease
from state_store.errors import PartitionMoved, PartitionSealed
from state_store.keys import TO_OPEN, PartitionKeys
from state_store.room import PASS_WHEN_FULL_LUA

# KEYS: control ticks               ARGV: op worker nonce epoch ttl_ms
# reply: code now_ms left_ms owner, then the fields of `CONTROL_FIELDS`, then attempts
LEASE_LUA = (
    """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local op, worker, nonce, epoch, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local function get(name, default) return redis.call('HGET', KEYS[1], name) or default end
local function set(...) redis.call('HSET', KEYS[1], ...) end
local function until_then() return string.format('%.0f', now + ttl) end
local function waiting()
  local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
  for i = 1, info.err and 0 or #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] ~= get('cursor', '0-0') end
  end
  return false
end
local function reply(code)
  local left = get('nonce', '') ~= '' and tonumber(get('until', '0')) - now or 0
  local fields = redis.call('HMGET', KEYS[1],
    'epoch', 'nonce', 'cursor', 'applied', 'wanted', 'seal', 'state_cursor', 'marks', 'attempts')
  return {code, now, math.max(left, 0), get('owner', ''), unpack(fields, 1, 9)}
end
"""
    + PASS_WHEN_FULL_LUA
    + f"""
local to_open = string.find(KEYS[1], '{TO_OPEN}')
"""
    + """local held = get('nonce', '')
local expired = held == '' or tonumber(get('until', '0')) <= now
if op == 'acquire' then
  if get('seal', '') ~= '' then return reply('SEALED') end
  if get('drained', '') ~= '' or to_open and get('opened', '') == '' then return reply('MOVED') end
  if held == nonce then return reply('OK') end
  if not expired then return reply('HELD') end
  local attempts = waiting() and tonumber(get('attempts', '0')) or 0
  set('epoch', string.format('%.0f', tonumber(get('epoch', '0')) + 1), 'nonce', nonce, 'owner', worker,
      'until', until_then(), 'attempts', attempts + 1, 'wanted', '')
  return reply('OK')
end
if op == 'want' then
  if not expired and get('wanted', '') == '' then set('wanted', worker) end
  return reply('OK')
end
if held ~= nonce or get('epoch', '0') ~= epoch then return reply('HELD') end
if op == 'renew' then set('until', until_then()) end
if op == 'release' then
  set('nonce', '', 'owner', '', 'until', '0', 'wanted', '', 'attempts', math.max(tonumber(get('attempts', '0')) - 1, 0))
end
return reply('OK')
"""
)
CONTROL_FIELDS = (b"epoch", b"nonce", b"cursor", b"applied", b"wanted", b"seal", b"state_cursor", b"marks")


def lease_words(
    op: str, keys: PartitionKeys, worker: str, nonce: bytes, epoch: int, ttl_ms: int
) -> tuple[bytes | str, ...]:
    """Gives the call of the lease script. The text goes along: it is called rarely, and the cache may be flushed."""
    return "EVAL", LEASE_LUA, "2", keys.control, keys.ticks, op, worker, nonce, str(epoch), str(ttl_ms)


def decode_control(fields: list[bytes | None]) -> Control:
    """Reads the values of `CONTROL_FIELDS`."""
    epoch, nonce, cursor, applied, wanted, seal, state_cursor, marks = fields
    return Control(
        epoch=int(epoch or 0),
        nonce=nonce or b"",
        cursor=cursor or START,
        applied=int(applied or 0),
        wanted_by=(wanted or b"").decode(),
        seal=(seal or b"").decode(errors="replace"),
        state_cursor=state_cursor or cursor or START,
        marks=marks or b"",
    )


def decode_lease(partition: int, reply: list, ttl_ms: int, key: bytes) -> tuple[Lease | Held, Control, int]:
    """Reads the script's reply and the server's clock in it; raises PartitionSealed and PartitionMoved."""
    code, now_ms, left_ms, owner, *fields, attempts = reply
    control = decode_control(fields)
    if code == b"SEALED":
        raise sealed(partition, control.seal, key)
    if code == b"MOVED":
        raise moved(partition)
    if code != b"OK":
        return Held(partition, owner.decode(), left_ms, control.cursor), control, now_ms
    lease = Lease(
        partition=partition,
        epoch=control.epoch,
        nonce=control.nonce,
        cursor=control.cursor,
        applied=control.applied,
        attempts=int(attempts or 0),
        wanted_by=control.wanted_by,
        ttl_ms=ttl_ms,
        state_cursor=control.state_cursor,
    )
    return lease, control, now_ms


def sealed(partition: int, why: str, key: bytes) -> PartitionSealed:
    """Says why a partition is closed and how to open it again."""
    return PartitionSealed(
        f"Partition {partition} is sealed: {why}. Restore its keys, then open it with: HDEL {key.decode()} seal"
    )


def moved(partition: int) -> PartitionMoved:
    """Says that nothing happens in a partition, any more or as yet."""
    return PartitionMoved(
        f"Partition {partition} is not open: the fleet is on its way to another number of partitions. Wait until it is "
        "there (see `predictor repartition --status`)."
    )

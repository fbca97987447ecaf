"""Puts a backup back: each partition in one atomic step, under its lease, so that no worker is in the way.

Where the log still holds what came after the backup, the partition goes back to that moment: later predictions and
dead letters are taken out, and the workers make them again. Into an empty fleet the states come with a log that goes
on after their cursor.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from socket import gethostname

from state_store.backup import Backup, Moment
from state_store.contract import Held, Lease, Meta, Probe, id_order
from state_store.errors import BackupRefused, FleetMismatch, MoveRefused, PartitionHeld
from state_store.keys import PartitionKeys
from state_store.logs import Logs
from state_store.store import RedisStateStore

LEASE_MS = 10_000

# KEYS: control ticks states latest predictions rejected put_aside incoming_states incoming_latest
# ARGV: epoch nonce cursor state_cursor applied     reply: 1, or 0 when the lease is somebody else's
_RESTORE_LUA = """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'nonce', 'applied')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
local cursor = ARGV[3]
local function order(id)
  local ms, sequence = string.match(id, '^(%d+)-?(%d*)$')
  return tonumber(ms), tonumber(sequence) or 0
end
local function after(id)
  local ms, sequence = order(id)
  local cursor_ms, cursor_sequence = order(cursor)
  return ms > cursor_ms or (ms == cursor_ms and sequence > cursor_sequence)
end
local function info(key)
  local stream, raw = {}, redis.pcall('XINFO', 'STREAM', key)
  if raw.err then return nil end
  for i = 1, #raw, 2 do stream[raw[i]] = raw[i + 1] end
  return stream
end
local function set_last(key, stream)
  local added = stream['entries-added']
  if added then return redis.call('XSETID', key, cursor, 'ENTRIESADDED', added, 'MAXDELETEDID', '0-0') end
  return redis.call('XSETID', key, cursor)
end
for i = 3, 4 do
  redis.call('DEL', KEYS[i])
  if redis.call('EXISTS', KEYS[i + 5]) == 1 then redis.call('RENAME', KEYS[i + 5], KEYS[i]) end
end
for i = 5, 6 do
  local stream = info(KEYS[i])
  if stream and after(stream['last-generated-id']) then
    while true do
      local late = redis.call('XREVRANGE', KEYS[i], '+', '(' .. cursor, 'COUNT', 500)
      if #late == 0 then break end
      local ids = {}
      for k, entry in ipairs(late) do ids[k] = entry[1] end
      redis.call('XDEL', KEYS[i], unpack(ids))
    end
    set_last(KEYS[i], stream)
  end
end
for _, id in ipairs(redis.call('HKEYS', KEYS[7])) do
  local of_this_log = string.match(id, '^%d+%-%d+$')
  if of_this_log and after(id) then redis.call('HDEL', KEYS[7], id) end
end
local ticks = info(KEYS[2])
if not ticks and cursor ~= '0-0' then
  redis.call('XADD', KEYS[2], cursor, 'a', '')
  redis.call('XDEL', KEYS[2], cursor)
elseif ticks and not after(ticks['last-generated-id']) and ticks['last-generated-id'] ~= cursor then
  set_last(KEYS[2], ticks)
end
redis.call('HSET', KEYS[1], 'cursor', cursor, 'state_cursor', ARGV[4], 'applied', ARGV[5], 'attempts', '0', 'marks', '')
if tonumber(held[3] or '0') == 0 then redis.call('HSET', KEYS[1], 'trimmed', ARGV[5]) end
return 1
"""


async def restore(store: RedisStateStore, logs: Logs, backup: Backup, partitions: Iterable[int]) -> None:
    """Replaces what these partitions remember; before the first is touched it is known that all can be.

    Raises FleetMismatch, MoveRefused, PartitionHeld or BackupRefused, and then nothing was changed. An import that dies
    half-way leaves every partition whole, the old or the new one: give it again.
    """
    meta = backup.summary.meta
    logs, moments = logs.of(meta), [backup.summary.moments[partition] for partition in partitions]
    fleet = await store.open_as(meta)
    if fleet.next_partitions:
        raise MoveRefused(f"The fleet is on its way to {fleet.next_partitions} partitions: import when it is there.")
    if fleet.generation != meta.generation:
        raise FleetMismatch(
            f"{backup.path} was made with {meta.partitions} partitions (generation {meta.generation}), the fleet was "
            f"repartitioned since ({fleet.partitions}, generation {fleet.generation}): import into an empty namespace."
        )
    await _open(logs, fleet)
    async with _leases(store, [moment.partition for moment in moments]) as leases:
        for moment in moments:
            probe = await store.probe(moment.partition)
            _check(moment, probe, await logs.ticks_gone(probe))
        for moment in moments:
            await _put_back(logs, backup, moment, leases[moment.partition])


async def _open(logs: Logs, fleet: Meta) -> None:
    """Nothing of a fleet that begins in a later generation has to be carried over before."""
    for partition in range(fleet.partitions if fleet.generation else 0):
        await logs.looking.ask("HSET", logs.keys.of(partition).control, "opened", str(fleet.opening))


@asynccontextmanager
async def _leases(store: RedisStateStore, partitions: list[int]) -> AsyncIterator[dict[int, Lease]]:
    """Holds the leases of all of them, or of none."""
    leases: dict[int, Lease] = {}
    try:
        for partition in partitions:
            answer = await store.acquire(partition, f"import-{gethostname()}", LEASE_MS)
            if isinstance(answer, Held):
                raise PartitionHeld(
                    f"Partition {partition} is held by {answer.owner or 'a worker'}: stop the workers "
                    "(SIGTERM), then import again. Nothing was changed."
                )
            leases[partition] = answer
        renewing = asyncio.create_task(_renew(store, leases))
        try:
            yield leases
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
    finally:
        for lease in leases.values():
            await store.release(lease)


async def _renew(store: RedisStateStore, leases: dict[int, Lease]) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 3000)
        for lease in leases.values():
            await store.renew(lease)


def _check(moment: Moment, probe: Probe, gone: int) -> None:
    """A partition that goes on from a backup needs every tick that came after it."""
    if probe.applied and gone > moment.applied:
        raise BackupRefused(
            f"Partition {moment.partition}: the log begins after the backup's cursor {moment.cursor.decode()}, "
            f"{gone - moment.applied} ticks in between are gone. Take a newer backup, or import into an empty "
            "namespace. Nothing was changed."
        )
    if not probe.applied and probe.first_id and id_order(probe.first_id) <= id_order(moment.cursor):
        raise BackupRefused(
            f"Partition {moment.partition}: its log has ticks from {probe.first_id.decode()} on, before the backup's "
            f"cursor {moment.cursor.decode()}, which would never be read. Import into an empty namespace. Nothing was "
            "changed."
        )


async def _put_back(logs: Logs, backup: Backup, moment: Moment, lease: Lease) -> None:
    keys = logs.keys.of(moment.partition)
    incoming = {name: getattr(keys, name) + b":incoming" for name in ("states", "latest")}
    await logs.looking.ask("DEL", *incoming.values())
    for name, flat in backup.pairs(moment.partition):
        await logs.looking.ask("HSET", incoming[name], *flat)
    names = (*_names(keys), incoming["states"], incoming["latest"])
    held = (str(lease.epoch), lease.nonce)
    told = (moment.cursor, moment.state_cursor, str(moment.applied))
    if not await logs.looking.ask("EVAL", _RESTORE_LUA, str(len(names)), *names, *held, *told):
        raise PartitionHeld(f"Partition {moment.partition} was taken over: stop the workers, then import again.")


def _names(keys: PartitionKeys) -> tuple[bytes, ...]:
    return keys.control, keys.ticks, keys.states, keys.latest, keys.predictions, keys.rejected, keys.put_aside

"""Changes the number of partitions of a running fleet: what the server does at each step, every one safe to repeat.

    begin    meta.next_partitions = N
    close    each old log gets the last possible id, so that neither script nor plain XADD can append; workers go on
    drain    once cursor and stored states are at its end, the lease is taken away for good: nothing changes any more
    carry    states and newest predictions are copied to the next homes of their assets
    end      every new partition is opened, which ends the copying, then one HSET on meta makes them the current ones;
             all under one number, by which a producer tells them from any that a failover took

A copy that comes late finds its new partition open and writes nothing. What is not open takes no numbered tick and no
worker: a failover may take the fleet back before the copying. The old logs stay closed for ever, emptied by
`forget_past` or not, so a client that slept through it all is told instead of sending into the void.

What was copied or counted counts as long as the connections last over which it was: behind a new one may be a server
that lost the end of it. And nobody is sent to the next partitions before the replicas have them whole.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from state_store.client import Address
from state_store.contract import Carried, Meta, Probe
from state_store.errors import MoveRefused
from state_store.keys import Keys, PartitionKeys, partition_of
from state_store.lease import sealed
from state_store.refusals import refusal
from state_store.room import PASS_WHEN_FULL_LUA
from state_store.route import Route
from state_store.slots import key_of
from state_store.wire import Connection, ServerError, encode

PAIRS_AT_ONCE = 128
REPLICAS_MS_MAX = 3000
CARRIED = ("states", "latest")
# What each producer has numbered stays: one that slept through it all would send again what was taken.
FORGOTTEN = ("states", "latest", "predictions", "rejected", "put_aside", "frames")
Call = Callable[..., Awaitable[Any]]

# KEYS: meta    ARGV: partitions
_BEGIN_LUA = """
local kept = redis.call('HMGET', KEYS[1], 'partitions', 'next_partitions')
if not kept[1] or kept[2] or kept[1] == ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], 'next_partitions', ARGV[1])
"""

# KEYS: control ticks    ARGV: next generation    reply: 1 once it is drained, 0 before
_CLOSE_LUA = (
    PASS_WHEN_FULL_LUA
    + """
local function get(name) return redis.call('HGET', KEYS[1], name) end
if not get('closed') then
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('XADD', KEYS[2], '0-1', 'a', '')
    redis.call('XDEL', KEYS[2], '0-1')
  end
  redis.call('XSETID', KEYS[2], '18446744073709551615-18446744073709551615')
  redis.call('HSET', KEYS[1], 'closed', ARGV[1])
end
if get('drained') then return 1 end
local cursor = get('cursor') or '0-0'
if (get('state_cursor') or cursor) ~= cursor then return 0 end
if #redis.call('XRANGE', KEYS[2], '(' .. cursor, '+', 'COUNT', 1) > 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'drained', ARGV[1], 'nonce', '', 'owner', '', 'until', '0', 'wanted', '')
return 1
"""
)

# KEYS: control target    ARGV: name value ...    of a new partition; reply: 0 when it is open already
_CARRY_LUA = """
if redis.call('HGET', KEYS[1], 'opened') then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV))
return 1
"""

# KEYS: meta    ARGV: generation, partitions of the next, the least that will do    reply: the number, or 0
_NUMBER_LUA = """
local kept = redis.call('HMGET', KEYS[1], 'generation', 'next_partitions', 'next_opening')
if (kept[1] or '0') ~= ARGV[1] or kept[2] ~= ARGV[2] then return 0 end
local t = redis.call('TIME')
local number = math.max(t[1] * 1e6 + t[2], tonumber(kept[3] or '0') + 1, tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'next_opening', string.format('%.0f', number))
return number
"""

# KEYS: control    ARGV: number    of a new partition    reply: the one under which it is open, the highest
_OPEN_LUA = """
local opened = redis.call('HGET', KEYS[1], 'opened')
if not opened or tonumber(opened) < tonumber(ARGV[1]) then opened = ARGV[1] end
redis.call('HSET', KEYS[1], 'opened', opened)  -- the same again too: WAIT waits for what its own connection wrote
return opened
"""

# KEYS: meta    ARGV: generation, partitions of the next, its number, the numbers of all with it
# reply: that number; another, which somebody else has taken meanwhile; 0 when the move is ended or unknown here
_END_LUA = """
local kept = redis.call('HMGET', KEYS[1], 'generation', 'next_partitions', 'partitions', 'past', 'next_opening')
if (kept[1] or '0') ~= ARGV[1] or kept[2] ~= ARGV[2] then return 0 end
if kept[5] ~= ARGV[3] then return tonumber(kept[5] or '0') end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'generation', tonumber(ARGV[1]) + 1, 'partitions', ARGV[2],
  'past', (kept[4] and kept[4] .. ',' or '') .. kept[3], 'openings', ARGV[4],
  'moved_ms', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
redis.call('HDEL', KEYS[1], 'next_partitions', 'next_opening')
return tonumber(ARGV[3])
"""


class Lasting(AbstractAsyncContextManager["Lasting"]):
    """One connection to each node, of which none is replaced."""

    def __init__(self, route: Route):
        self._route = route
        self._wires: dict[Address, Connection] = {}

    async def __aexit__(self, *_: object) -> None:
        for wire in self._wires.values():
            wire.abort()

    async def ask(self, *words: Any) -> Any:
        """The answer to one command; a redirection is an error too."""
        address = self._route.guess(key_of(words) or b"")
        if address not in self._wires:
            self._wires[address] = await address.connect(self._route.timeouts)
        return await self._answer(self._wires[address], *words)

    async def replicated(self) -> None:
        """Waits until the replicas have all that was written so far; raises MoveRefused."""
        for address, wire in self._wires.items():
            info = await self._answer(wire, "INFO", "replication")
            replicas = int(info.partition(b"connected_slaves:")[2].split()[0])
            there = await self._answer(wire, "WAIT", str(replicas), str(REPLICAS_MS_MAX)) if replicas else 0
            if there < replicas:
                raise MoveRefused(
                    f"{there} of {replicas} replicas of {address} have what was copied: see why the others are behind, "
                    "then give the same command again."
                )

    async def _answer(self, wire: Connection, *words: Any) -> Any:
        told = [word if isinstance(word, bytes | str) else str(word) for word in words]
        (reply,) = await wire.ask(encode(*told), 1, self._route.timeouts.reply_s)
        if isinstance(reply, ServerError):
            error = refusal(str(reply), wire.where)
            self._route.heed(error)
            raise error
        return reply


class Moving:
    """The steps, for a store that works on the generation of `keys`."""

    def __init__(self, call: Call, keys: Keys, probe: Callable[[int], Awaitable[Probe]], route: Route) -> None:
        self._call, self._keys, self._probe, self._route = call, keys, probe, route
        self._next = replace(keys, generation=keys.generation + 1)

    async def begin(self, partitions: int) -> None:
        """Notes the number, unless another was noted before."""
        await self._call("EVAL", _BEGIN_LUA, 1, self._keys.meta, str(partitions))

    async def close(self, partition: int) -> Probe:
        """Closes a log; drains it if it is worked off."""
        keys = self._keys.of(partition)
        probe = await self._probe(partition)
        if probe.seal:
            raise sealed(partition, probe.seal, keys.control)
        await self._call("EVAL", _CLOSE_LUA, 2, keys.control, keys.ticks, str(self._next.generation))
        return await self._probe(partition)

    async def carry(self, partition: int, meta: Meta) -> Carried:
        """Copies page by page; what is open already was complete."""
        if not meta.next_partitions:
            raise not_begun()
        await self._route.find(None)
        async with Lasting(self._route) as lasting:
            await self._check_drained(lasting, partition)
            counts = [await self._carry(lasting, partition, name, meta.next_partitions) for name in CARRIED]
        return Carried(*counts)

    async def _carry(self, lasting: Lasting, partition: int, name: str, partitions: int) -> int:
        source, place = getattr(self._keys.of(partition), name), b"0"
        while True:
            place, found = await lasting.ask("HSCAN", source, place, "COUNT", PAIRS_AT_ONCE)
            for home, flat in _by_home(list(zip(found[0::2], found[1::2], strict=True)), partitions).items():
                keys = self._next.of(home)
                for start in range(0, len(flat), 2 * PAIRS_AT_ONCE):
                    part = flat[start : start + 2 * PAIRS_AT_ONCE]
                    await lasting.ask("EVAL", _CARRY_LUA, 2, keys.control, getattr(keys, name), *part)
            if place == b"0":
                return await lasting.ask("HLEN", source)

    async def _check_drained(self, lasting: Lasting, partition: int) -> None:
        key = self._keys.of(partition).control
        if not (since := await lasting.ask("HGET", key, "drained")):
            raise not_drained(partition)
        await lasting.ask("HSET", key, "drained", since)  # WAIT waits for what its own connection wrote

    async def end(self, meta: Meta) -> None:
        """Counts, opens the new partitions, switches."""
        if not meta.next_partitions:
            raise not_begun()
        old = [self._keys.of(partition) for partition in range(meta.partitions)]
        new = [self._next.of(partition) for partition in range(meta.next_partitions)]
        await self._route.find(None)
        async with Lasting(self._route) as lasting:
            for partition in range(meta.partitions):
                await self._check_drained(lasting, partition)
            for name in CARRIED:
                there, here = await _count(lasting, old, name), await _count(lasting, new, name)
                if there != here:
                    raise MoveRefused(f"{here} of {there} {name} were carried over: give the same command again.")
            await lasting.replicated()  # A draining that a failover undid could not be copied again into what is open.
            words = (str(meta.generation), str(meta.next_partitions))
            before = [int(await lasting.ask("HGET", keys.control, "opened") or 0) for keys in new]
            least = str(max(before) + 1)
            number = await lasting.ask("EVAL", _NUMBER_LUA, 1, self._keys.meta, *words, least)
            # Those who end a move at once all go over to the highest number; the first who comes through ends it.
            while number:
                opened = [await lasting.ask("EVAL", _OPEN_LUA, 1, keys.control, str(number)) for keys in new]
                highest = max(map(int, opened))
                if highest == number:
                    await lasting.replicated()
                    openings = ",".join(map(str, (*meta.openings, number)))
                    highest = await lasting.ask("EVAL", _END_LUA, 1, self._keys.meta, *words, str(number), openings)
                    if highest == number:
                        return
                number = highest if highest > number else 0
            raise _ended_by_another()

    async def forget(self, meta: Meta) -> None:
        """Empties the generations before this one; refuses where ticks were left behind."""
        for generation in range(meta.oldest, meta.generation):
            before = replace(self._keys, generation=generation)
            for partition in range(meta.past[generation]):
                keys = before.of(partition)
                if await self._left_behind(keys):
                    raise left_behind(keys)
                await self._call("XTRIM", keys.ticks, "MAXLEN", 0)
                for name in FORGOTTEN:
                    await self._call("UNLINK", getattr(keys, name))
            await self._call("HSET", self._keys.meta, "oldest", str(generation + 1))

    async def _left_behind(self, keys: PartitionKeys) -> bool:
        cursor = await self._call("HGET", keys.control, "cursor") or b"0-0"
        closed = await self._call("HGET", keys.control, "closed")
        return not closed or bool(await self._call("XRANGE", keys.ticks, b"(" + cursor, "+", "COUNT", 1))


async def _count(lasting: Lasting, keys: list[PartitionKeys], name: str) -> int:
    return sum([await lasting.ask("HLEN", getattr(each, name)) for each in keys])


def next_meta(meta: Meta, partitions: int) -> Meta:
    """Checks that a fleet may move to so many; raises MoveRefused."""
    if meta.next_partitions not in (0, partitions):
        raise MoveRefused(
            f"The fleet is on its way to {meta.next_partitions} partitions: end that first, with "
            f"`predictor repartition {meta.next_partitions}`."
        )
    return meta


def not_begun() -> MoveRefused:
    return MoveRefused("The fleet is not on its way to another number of partitions: begin with that.")


def not_drained(partition: int) -> MoveRefused:
    return MoveRefused(f"Partition {partition} still has ticks to be worked off: close and drain it first.")


def _ended_by_another() -> MoveRefused:
    return MoveRefused(
        "Somebody else ends this move too: see `predictor repartition --status`, and give the same command again if it "
        "does not come to an end."
    )


def left_behind(keys: PartitionKeys) -> MoveRefused:
    return MoveRefused(
        f"{keys.ticks.decode()} holds ticks that nobody predicted: a failover lost its end while the fleet moved. "
        "Send them again, then XTRIM it; nothing of its generation was removed from there on."
    )


def _by_home(pairs: list[tuple[bytes, bytes]], partitions: int) -> dict[int, list[bytes]]:
    """Names and values in turn, by the next partition of each asset."""
    homes: dict[int, list[bytes]] = defaultdict(list)
    for asset, value in pairs:
        homes[partition_of(asset, partitions)] += (asset, value)
    return homes

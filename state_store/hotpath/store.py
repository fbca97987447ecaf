"""The tuner's keys in Redis: what its leader writes, what workers read and send, what operators ask for.

All keys have one hash tag. One round trip each: a worker's look, a leader's look, a write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from state_store.client import Address, Timeouts
from state_store.hotpath.commit import RECENT_MAX, Committed, HotpathCommit, commit_words, decode_committed
from state_store.hotpath.lease import Leadership, Led, decode_leadership, lease_words
from state_store.hotpath.news import NEWS_MAX, NUMBERS, News
from state_store.hotpath.replicas import Replicas
from state_store.keys import Keys
from state_store.nodes import Nodes
from state_store.route import Route

DIGESTS_MAX = 10_000
COMMANDS_MAX = 1_000
READ_MAX = 2_000
START = "0-0"

# KEYS: config leader acks switch    ARGV: name ack known_fence known_generation
# reply: now_us left_ms frozen document ('' when it is the known one) whether there is one
_FOLLOW_LUA = """
local t = redis.call('TIME')
local now, now_us = t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000000 + t[2]
local c = redis.call('HMGET', KEYS[1], 'fence', 'generation', 'document')
local led = redis.call('HMGET', KEYS[2], 'nonce', 'until')
local left = (led[1] or '') ~= '' and tonumber(led[2] or '0') - now or 0
local news = c[3] and not (c[1] == ARGV[3] and c[2] == ARGV[4])
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
return {string.format('%.0f', now_us), math.max(left, 0), redis.call('HGET', KEYS[4], 'frozen') or '',
        news and c[3] or '', c[3] and 1 or 0}
"""

# KEYS: digests commands audit acks config switch    ARGV: digest id, command id, count, workers to forget
# reply: now_us, digests, commands, audit length, acks, generation, frozen
_LEAD_LUA = """
local t = redis.call('TIME')
for i = 4, #ARGV do redis.call('HDEL', KEYS[4], ARGV[i]) end
return {string.format('%.0f', t[1] * 1000000 + t[2]),
  redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[3]),
  redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3]),
  redis.call('XLEN', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('HGET', KEYS[5], 'generation') or '0',
  redis.call('HGET', KEYS[6], 'frozen') or ''}
"""

# KEYS: config engine audit archive    reply: the newest of each, as of one moment
_LOAD_LUA = """
return {redis.call('HMGET', KEYS[1], 'generation', 'fence', 'document'),
  redis.call('HMGET', KEYS[2], 'checkpoint', 'mode'), redis.call('XLEN', KEYS[3]),
  redis.call('HMGET', KEYS[4], 'id', 'head', 'count')}
"""

# KEYS: leader fence audit archive    ARGV: token nonce id head count
# Only what is archived goes, and only by the leader's word: two archivers cannot cut each other's events.
_ARCHIVED_LUA = """
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'nonce') ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[4], 'id', ARGV[3], 'head', ARGV[4], 'count', ARGV[5])
redis.call('XTRIM', KEYS[3], 'MINID', ARGV[3])
local first = redis.call('XRANGE', KEYS[3], ARGV[3], ARGV[3])
if #first > 0 then redis.call('XTRIM', KEYS[3], 'MAXLEN', redis.call('XLEN', KEYS[3]) - 1) end
return redis.call('XLEN', KEYS[3])
"""

Entry = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Followed:
    """What a worker learns in one look; `document` is None when there is nothing newer than it knows."""

    now_us: int
    leader_left_ms: int
    frozen: bool
    document: bytes | None
    configured: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What a leader learns in one look: ids ascending, acks by worker as (server ms, what it said)."""

    now_us: int
    digests: list[tuple[str, str, bytes]]  # id, source, payload
    commands: list[Entry]
    audit_length: int
    acks: dict[str, tuple[int, bytes]]
    generation: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """Where the last leader left off."""

    generation: int = 0
    fence: int = 0
    document: bytes = b""
    checkpoint: bytes = b""
    mode: str = "observe"
    audit_length: int = 0
    archived_id: str = START
    archive_head: str = ""
    archived: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """What an operator is shown."""

    loaded: Loaded
    now_us: int
    leader: Led
    acks: dict[str, tuple[int, bytes]]
    frozen: bool
    report: bytes
    recent: list[Entry] = field(default_factory=list)  # The newest first.


class HotpathStore:
    """One client of the tuner's keys."""

    def __init__(self, url: str, namespace: str = "usp", *, timeouts: Timeouts | None = None, audit_max: int = 100_000):
        self.address = Address.parse(url)
        self.keys = Keys(namespace).hotpath
        self.audit_max = audit_max
        timeouts = timeouts or Timeouts()
        route = Route(self.address, timeouts)
        self._client = Nodes(route)
        self.news = News(route, self.keys.news)
        self.replicas = Replicas(route, self.keys, timeouts.reply_s)

    async def close(self) -> None:
        self.news.close()
        self.replicas.close()
        await self._client.aclose()

    # The leader.

    async def lead(self, owner: str, nonce: str, ttl_ms: int) -> Leadership | Led:
        """Takes a free lease. Asking again after a lost reply, with the same nonce, gives the same."""
        return decode_leadership(await self._call(*lease_words(self.keys, "acquire", owner, nonce, ttl_ms)), nonce)

    async def renew(self, leadership: Leadership, ttl_ms: int) -> Leadership | Led:
        words = lease_words(self.keys, "renew", "", leadership.nonce, ttl_ms)
        return decode_leadership(await self._call(*words), leadership.nonce)

    async def release(self, leadership: Leadership) -> None:
        """Lets the next one lead at once; what is no longer mine is left alone."""
        await self._call(*lease_words(self.keys, "release", "", leadership.nonce, 0))

    async def load(self) -> Loaded:
        keys = self.keys
        return _loaded(await self._call("EVAL", _LOAD_LUA, 4, keys.config, keys.engine, keys.audit, keys.archive))

    async def look(self, digest_id: str, command_id: str, forget: Sequence[str] = ()) -> Seen:
        """Reads digests and commands after the ids, and who follows what."""
        keys = self.keys
        named = (keys.digests, keys.commands, keys.audit, keys.acks, keys.config, keys.switch)
        reply = await self._call("EVAL", _LEAD_LUA, len(named), *named, digest_id, command_id, READ_MAX, *forget)
        now_us, digests, commands, length, acks, generation, frozen = reply
        return Seen(
            now_us=int(now_us),
            digests=[(entry_id.decode(), *_digest(fields)) for entry_id, fields in digests],
            commands=[(entry_id.decode(), fields[1]) for entry_id, fields in commands],
            audit_length=length,
            acks=_acks(acks),
            generation=int(generation),
            frozen=bool(frozen),
        )

    async def commit(self, leadership: Leadership, commit: HotpathCommit) -> Committed:
        """Changes everything together; raises StoreUnavailable when the answer was lost: then send the same again."""
        return decode_committed(await self._call(*commit_words(self.keys, leadership, commit, self.audit_max)))

    async def note(self, diagnostics: Sequence[bytes], report: bytes) -> None:
        """Leaves what is good to know and may be lost."""
        for event in diagnostics:
            await self._call("XADD", self.keys.recent, "MAXLEN", "~", RECENT_MAX, "*", "e", event)
        await self._call("HSET", self.keys.engine, "report", report)

    async def unarchived(self, after: str) -> list[Entry]:
        """Audit events after an id, the oldest first."""
        return _entries(await self._raw("XRANGE", self.keys.audit, f"({after}", "+", "COUNT", READ_MAX))

    async def archived(self, leadership: Leadership, entry_id: str, head: str, count: int) -> bool:
        """Says that all up to an id is on disk and lets it go from the stream; False if another leads now."""
        keys = self.keys
        named = (keys.leader, keys.fence, keys.audit, keys.archive)
        words = (leadership.token, leadership.nonce, entry_id, head, count)
        return await self._call("EVAL", _ARCHIVED_LUA, len(named), *named, *words) >= 0

    # Workers.

    async def follow(self, name: str, ack: str, fence: int, generation: int) -> Followed:
        """Says what a worker follows, and learns whether there is something newer."""
        keys = self.keys
        named = (keys.config, keys.leader, keys.acks, keys.switch)
        reply = await self._call("EVAL", _FOLLOW_LUA, len(named), *named, name, ack, fence, generation)
        now_us, left_ms, frozen, document, configured = reply
        return Followed(int(now_us), left_ms, bool(frozen), document or None, bool(configured))

    async def send_digest(self, source: str, payload: bytes) -> None:
        await self._call("XADD", self.keys.digests, "MAXLEN", "~", DIGESTS_MAX, "*", "s", source, "d", payload)

    async def announce_numbers(self) -> None:
        """Tells workers that the predictor's numbers have changed."""
        await self._call("XADD", self.keys.news, "MAXLEN", "~", NEWS_MAX, "*", "n", NUMBERS)

    async def leave(self, name: str) -> None:
        """Forgets a worker that ends."""
        await self._call("HDEL", self.keys.acks, name)

    # Operators.

    async def give(self, command: bytes) -> None:
        """Gives an order to whoever leads."""
        await self._call("XADD", self.keys.commands, "MAXLEN", "~", COMMANDS_MAX, "*", "c", command)

    async def answer(self, command_id: str) -> bytes | None:
        return await self._call("HGET", self.keys.answers, command_id)

    async def led(self) -> Led:
        """Who leads, and for how long yet; nobody when no time is left."""
        return _led(await self._call(*lease_words(self.keys, "look", "", "-", 0)))

    async def freeze(self, reason: str) -> None:
        """Throws the switch that workers read themselves; without a reason, back."""
        if reason:
            await self._call("HSET", self.keys.switch, "frozen", reason)
        else:
            await self._call("HDEL", self.keys.switch, "frozen")

    async def document(self, generation: int) -> bytes | None:
        """The document of a generation, while the history holds it."""
        return await self._call("HGET", self.keys.history, generation)

    async def show(self, newest: int = 0) -> Shown:
        """Everything that an operator may want to see; changes nothing."""
        keys = self.keys
        lease = await self._call(*lease_words(keys, "look", "", "-", 0))
        recent = await self._raw("XREVRANGE", keys.recent, "+", "-", "COUNT", newest) if newest else []
        return Shown(
            loaded=await self.load(),
            now_us=int(lease[4]),
            leader=_led(lease),
            acks=_acks(await self._raw("HGETALL", keys.acks)),
            frozen=bool(await self._call("HGET", keys.switch, "frozen")),
            report=await self._call("HGET", keys.engine, "report") or b"{}",
            recent=_entries(recent),
        )

    async def _raw(self, *words: Any) -> Any:
        """A plain command whose reply nobody has rearranged."""
        script = "return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"
        return await self._call("EVAL", script, 1, words[1], words[0], *words[2:])

    async def _call(self, *words: Any) -> Any:
        return await self._client.execute_command(*words)


def _loaded(reply: list) -> Loaded:
    (generation, fence, document), (checkpoint, mode), length, (archived_id, head, count) = reply
    return Loaded(
        generation=int(generation or 0),
        fence=int(fence or 0),
        document=document or b"",
        checkpoint=checkpoint or b"",
        mode=(mode or b"observe").decode(),
        audit_length=length,
        archived_id=(archived_id or START.encode()).decode(),
        archive_head=(head or b"").decode(),
        archived=int(count or 0),
    )


def _led(reply: list) -> Led:
    _, _, left_ms, owner, _ = reply
    return Led(owner.decode() if left_ms else "", left_ms)


def _digest(fields: list[bytes]) -> tuple[str, bytes]:
    """Source and payload; what somebody else put there is empty, and refused by whoever decodes it."""
    named = dict(zip(fields[0::2], fields[1::2], strict=True))
    return named.get(b"s", b"").decode(errors="replace"), named.get(b"d", b"")


def _entries(reply: list) -> list[Entry]:
    return [(entry_id.decode(), fields[1]) for entry_id, fields in reply]


def _acks(flat: list[bytes]) -> dict[str, tuple[int, bytes]]:
    acks = {}
    for name, value in zip(flat[0::2], flat[1::2], strict=True):
        seen_ms, _, said = value.partition(b" ")
        acks[name.decode(errors="replace")] = (int(seen_ms), said)
    return acks

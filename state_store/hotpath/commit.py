"""One write of the tuner: configuration, optimiser and audit change together, or nothing does.

    FENCED      another leader has had a newer token
    NO_LEASE    nobody has, but the lease is over or given back
    DUPLICATE   this very write took effect before: its reply was lost
    STALE_BASE  the generation is another one than the writer believes
    PAUSED      nothing but what leads back to safety is wanted now
    AUDIT_FULL  there is no room left to tell of it; what leads back to safety is told all the same

The first that holds is the answer, and nothing is written then.
"""

from dataclasses import dataclass
from enum import Enum

from state_store.hotpath.lease import Leadership
from state_store.keys import HotpathKeys

HISTORY_MAX = 1000
RECENT_MAX = 10_000  # events for people to look at
PROBES = ("plus", "minus", "update")  # What a tuner does of its own accord; everything else leads back, or was ordered.
SAFE = ("rollback", "abort", "safe")  # What must always be possible.

# KEYS: leader fence config history engine audit answers recent news
# ARGV: token nonce kind id base generation document checkpoint mode is_probe is_safe audit_max history_max,
#       count of inputs, the inputs, count of events, the events, count of answers, id and answer of each,
#       ids of answers to forget
COMMIT_LUA = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local token, nonce, id = ARGV[1], ARGV[2], ARGV[4]
local held = redis.call('HMGET', KEYS[1], 'nonce', 'token', 'until')
local generation = redis.call('HGET', KEYS[3], 'generation') or '0'
local audit = redis.call('XLEN', KEYS[6])
local function reply(code) return {code, generation, audit} end
if redis.call('HGET', KEYS[2], 'token') ~= token then return reply('FENCED') end
if held[1] ~= nonce or held[2] ~= token or tonumber(held[3] or '0') <= now then return reply('NO_LEASE') end
if redis.call('HGET', KEYS[5], 'last') == id then return reply('DUPLICATE') end
if generation ~= ARGV[5] then return reply('STALE_BASE') end
local mode = redis.call('HGET', KEYS[5], 'mode') or 'observe'
if ARGV[10] == '1' and mode ~= 'run' then return reply('PAUSED') end
if ARGV[11] ~= '1' and audit >= tonumber(ARGV[12]) then return reply('AUDIT_FULL') end
redis.call('HSET', KEYS[5], 'checkpoint', ARGV[8], 'last', id, 'mode', ARGV[9])
if ARGV[6] ~= generation then
  generation = ARGV[6]
  redis.call('HSET', KEYS[3], 'generation', generation, 'fence', token, 'document', ARGV[7])
  redis.call('HSET', KEYS[4], generation, ARGV[7])
  redis.call('HDEL', KEYS[4], string.format('%.0f', tonumber(generation) - tonumber(ARGV[13])))
  redis.call('XADD', KEYS[9], 'MAXLEN', '~', 100, '*', 'n', 'document')
end
local at = 14
for _ = 1, tonumber(ARGV[at]) do
  at = at + 1
  redis.call('XADD', KEYS[6], '*', 'e', ARGV[at])
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
  at = at + 1
  redis.call('XADD', KEYS[6], '*', 'e', ARGV[at])
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', RECENT_MAX, '*', 'e', ARGV[at])
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
  redis.call('HSET', KEYS[7], ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
for i = at + 1, #ARGV do redis.call('HDEL', KEYS[7], ARGV[i]) end
audit = redis.call('XLEN', KEYS[6])
return reply('OK')
""".replace("RECENT_MAX", str(RECENT_MAX))


class HotpathOutcome(Enum):
    """The answers to a write; all but the first and the third leave everything as it was."""

    OK = "OK"
    FENCED = "FENCED"
    DUPLICATE = "DUPLICATE"
    NO_LEASE = "NO_LEASE"
    STALE_BASE = "STALE_BASE"
    PAUSED = "PAUSED"
    AUDIT_FULL = "AUDIT_FULL"

    @property
    def took_effect(self) -> bool:
        return self in (HotpathOutcome.OK, HotpathOutcome.DUPLICATE)


@dataclass(frozen=True, slots=True)
class HotpathCommit:
    """Everything that changes together; sending the same one again is harmless."""

    kind: str  # plus, minus, update, rollback, abort, pin, safe or note
    id: str
    base: int
    generation: int  # The same as `base` when the configuration does not change.
    document: bytes
    checkpoint: bytes
    mode: str
    events: tuple[bytes, ...] = ()
    answers: tuple[tuple[str, bytes], ...] = ()
    forget: tuple[str, ...] = ()
    inputs: tuple[bytes, ...] = ()  # What the events were decided on: for the archive, too long to look at.


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a write, the generation now in force, and how many audit events wait for their archive."""

    outcome: HotpathOutcome
    generation: int
    audit_length: int


def commit_words(
    keys: HotpathKeys, leadership: Leadership, commit: HotpathCommit, audit_max: int
) -> tuple[bytes | str | int, ...]:
    """Gives the call of the script."""
    named = (
        keys.leader, keys.fence, keys.config, keys.history, keys.engine, keys.audit, keys.answers, keys.recent,
        keys.news,
    )  # fmt: skip
    flags = (int(commit.kind in PROBES), int(commit.kind in SAFE))
    answers = [word for answer in commit.answers for word in answer]
    return (
        "EVAL", COMMIT_LUA, len(named), *named,
        leadership.token, leadership.nonce, commit.kind, commit.id, commit.base, commit.generation, commit.document,
        commit.checkpoint, commit.mode, *flags, audit_max, HISTORY_MAX,
        len(commit.inputs), *commit.inputs, len(commit.events), *commit.events, len(commit.answers), *answers,
        *commit.forget,
    )  # fmt: skip


def decode_committed(reply: list) -> Committed:
    code, generation, audit_length = reply
    return Committed(HotpathOutcome(code.decode()), int(generation), audit_length)

"""The right to lead the tuner, for a while, with a token that grows with every leader.

The token is max(last token + 1, server time in ms): so it grows even if a failover has lost the last one. Unlike a
partition's lease this one ends when its time is over: a tuner that was silent for so long must look again first.
"""

from dataclasses import dataclass

from state_store.keys import HotpathKeys

# KEYS: leader fence    ARGV: op owner nonce ttl_ms
# reply: code token left_ms owner now_us
LEASE_LUA = """
local t = redis.call('TIME')
local now, now_us = t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000000 + t[2]
local op, owner, nonce, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local function get(name, default) return redis.call('HGET', KEYS[1], name) or default end
local function until_then() return string.format('%.0f', now + ttl) end
local function reply(code)
  local left = get('nonce', '') ~= '' and tonumber(get('until', '0')) - now or 0
  return {code, get('token', '0'), math.max(left, 0), get('owner', ''), string.format('%.0f', now_us)}
end
local held = get('nonce', '')
local alive = held ~= '' and tonumber(get('until', '0')) > now
if op == 'acquire' then
  if alive then return reply(held == nonce and 'OK' or 'HELD') end
  local last = math.max(tonumber(redis.call('HGET', KEYS[2], 'token') or '0'), tonumber(get('token', '0')))
  local token = math.max(last + 1, now)
  local text = string.format('%.0f', token)
  redis.call('HSET', KEYS[2], 'token', text)
  redis.call('HSET', KEYS[1], 'owner', owner, 'nonce', nonce, 'token', text, 'until', until_then())
  return reply('OK')
end
if held ~= nonce or not alive then return reply('HELD') end
if op == 'renew' then redis.call('HSET', KEYS[1], 'until', until_then()) end
if op == 'release' then redis.call('HSET', KEYS[1], 'owner', '', 'nonce', '', 'until', '0') end
return reply('OK')
"""


@dataclass(frozen=True, slots=True)
class Leadership:
    """The right to lead; `now_us` is the server's clock when it was granted or confirmed."""

    token: int
    nonce: str
    now_us: int


@dataclass(frozen=True, slots=True)
class Led:
    """The answer when somebody else leads, or nobody: by whom, and for how long yet."""

    owner: str
    left_ms: int


def lease_words(keys: HotpathKeys, op: str, owner: str, nonce: str, ttl_ms: int) -> tuple[str | int, ...]:
    """Gives the call of the script."""
    return "EVAL", LEASE_LUA, 2, keys.leader, keys.fence, op, owner, nonce, ttl_ms


def decode_leadership(reply: list, nonce: str) -> Leadership | Led:
    code, token, left_ms, owner, now_us = reply
    if code == b"OK":
        return Leadership(int(token), nonce, int(now_us))
    return Led(owner.decode(), left_ms)

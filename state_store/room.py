"""What a full server can do without: history behind the cursor, shorter than its retention promises.

A server at its `maxmemory` refuses whatever could need more, commits among it; only what frees is allowed. First go the
ticks that are applied and in the states already, all of them. When there are none left, the older half of the
predictions goes, but none that states do not reflect yet: whoever takes over looks up in them how they were made.
Producers stop a little earlier, so that there is something to commit with.
"""

import re

from state_store.contract import Retention
from state_store.errors import StoreFull
from state_store.keys import PartitionKeys

PREDICTIONS_LEFT = 1024

# Stands before a script that writes a few bytes and has to run on a full server too: the server refuses a script at its
# first write that may need memory, and no more once another write has come before.
PASS_WHEN_FULL_LUA = "redis.call('HDEL', KEYS[1], '')"

# KEYS: ticks predictions control   ARGV: predictions left
# The cursor is the server's own at this moment, so no unread tick goes, whatever the asker believes.
_ROOM_LUA = """
local cursor = redis.call('HGET', KEYS[3], 'state_cursor')
if not cursor then return 0 end
local gone = redis.call('XTRIM', KEYS[1], 'MINID', cursor)
if gone > 0 then
  redis.call('HINCRBY', KEYS[3], 'trimmed', gone)
  return gone
end
local half = math.ceil(redis.call('XLEN', KEYS[2]) / 2)
local needed = #redis.call('XRANGE', KEYS[2], '(' .. cursor, '+')
return redis.call('XTRIM', KEYS[2], 'MAXLEN', math.max(half, needed, tonumber(ARGV[1])))
"""


def room_words(keys: PartitionKeys, retention: Retention) -> tuple[bytes | str, ...]:
    """Gives the call of the script."""
    left = min(PREDICTIONS_LEFT, retention.predictions)
    return "EVAL", _ROOM_LUA, "3", keys.ticks, keys.predictions, keys.control, str(left)


def memory_share(info: bytes) -> float:
    """Reads from INFO how much of its `maxmemory` a server uses; 0 when it has no limit."""
    found = dict(re.findall(rb"^(used_memory|maxmemory):(\d+)", info, re.MULTILINE))
    limit = int(found.get(b"maxmemory", 0))
    return int(found.get(b"used_memory", 0)) / limit if limit else 0.0


def crowded(share: float, where: str) -> StoreFull:
    """Says why ticks have to wait although there is some memory left."""
    return StoreFull(
        f"{where} uses {share:.0%} of its maxmemory, the rest is for commits: raise maxmemory or lower the retention."
    )

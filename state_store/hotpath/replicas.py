"""Asks whether replicas have a decision, where they must: a failover must not undo what was told to the fleet.

A write after the decision, and WAIT on the same connection: replicas take writes in their order, so whoever has the
later one has the decision too. The write is refused by a server that does not have the decision itself.
"""

from dataclasses import dataclass

from state_store.keys import HotpathKeys
from state_store.refusals import refusal
from state_store.route import Route
from state_store.wire import Connection, ServerError, encode

WAIT_MS = 500

# KEYS: engine    ARGV: id of the decision
_MARK_LUA = """
if redis.call('HGET', KEYS[1], 'last') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'replicated', ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class Replicated:
    """How many replicas have the newest decision, of how many that must."""

    have: int
    wanted: int

    @property
    def enough(self) -> bool:
        return self.have >= self.wanted


class Replicas:
    """One connection to the node of the tuner's keys."""

    def __init__(self, route: Route, keys: HotpathKeys, timeout_s: float) -> None:
        self._route, self._keys, self._timeout_s = route, keys, timeout_s
        self._wire: Connection | None = None

    async def minimum(self) -> int:
        """The server's own `min-replicas-to-write`; 0 where it does not say."""
        (reply,) = await self._ask(encode("CONFIG", "GET", "min-replicas-to-write"), 1)
        return 0 if isinstance(reply, ServerError) or not reply else int(reply[1])

    async def confirm(self, decision: str, wanted: int) -> Replicated:
        """Waits until so many replicas have a decision, half a second at most."""
        mark = encode("EVAL", _MARK_LUA, "1", self._keys.engine, decision)
        marked, have = await self._ask(mark + encode("WAIT", str(wanted), str(WAIT_MS)), 2)
        for reply in (marked, have):
            if isinstance(reply, ServerError):
                raise self._refused(str(reply))
        return Replicated(have if marked else 0, wanted)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def _ask(self, request: bytes, replies: int) -> list:
        if self._wire is None or self._wire.broken:
            self._wire = await self._route.connect(self._keys.engine.encode())
        return await self._wire.ask(request, replies, self._timeout_s)

    def _refused(self, text: str) -> Exception:
        assert self._wire is not None
        self._wire.abort()
        error = refusal(text, self._wire.where)
        self._route.heed(error)
        return error

"""The right to lead as one candidate holds it: taken, renewed in time, given up when nobody confirms it."""

import logging
from collections.abc import Callable
from secrets import token_hex

from state_store.hotpath.lease import Leadership, Led
from state_store.hotpath.store import HotpathStore

SILENT_SHARE = 0.7  # of the lease without a confirmation: nothing is proposed any more
RENEW_SHARE = 0.3
IDLE_LEASES = 6  # after a checkpoint that cannot be continued

log = logging.getLogger(__name__)


class Tenure:
    """At most one leadership at a time."""

    def __init__(self, name: str, lease_ms: int, clock: Callable[[], float]) -> None:
        self.leadership: Leadership | None = None
        self._name, self._lease_ms, self._clock = name, lease_ms, clock
        self._idle_until_s = -1e9
        self._nonce = ""
        self._confirmed_s = 0.0

    async def hold(self, store: HotpathStore) -> bool:
        """Takes or renews the lease; False while somebody else leads."""
        ttl_s, asked_s = self._lease_ms / 1000, self._clock()
        if asked_s < self._idle_until_s:
            return False
        silent_s = asked_s - self._confirmed_s
        if self.leadership is not None and silent_s > SILENT_SHARE * ttl_s:
            self.end("no answer for too long")
            return False  # before it leads again, all that it believed has to be forgotten
        if self.leadership is None:
            self._nonce = self._nonce or token_hex(16)
            answer = await store.lead(self._name, self._nonce, self._lease_ms)
        elif silent_s > RENEW_SHARE * ttl_s:
            answer = await store.renew(self.leadership, self._lease_ms)
        else:
            return True
        if isinstance(answer, Led):
            self.end("another leads" if answer.owner else "the lease is over")
            return False
        self._confirmed_s, self.leadership = asked_s, answer
        return True

    def end(self, why: str) -> None:
        """Leads no more."""
        if self.leadership is not None:
            log.info("hotpath_resigned", extra={"why": why})
        self.leadership, self._nonce = None, ""

    def rest(self) -> None:
        """Does not ask for a while: one of another version may lead."""
        self._idle_until_s = self._clock() + IDLE_LEASES * self._lease_ms / 1000

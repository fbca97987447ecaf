"""When nothing new may begin, and which windows of the fleet teach nothing.

    a worker came or went, a backlog drains, a canary is      no new cycle; one under way goes on
    tried, replicas lack a decision, all are saturated
    graph or machine busier than `utilisation_max`            the window does not count
    fewer workers follow than there should                    there is no window yet
"""

import json
import logging
from collections.abc import Callable

from scheduler.hotpath import TelemetryDigest
from state_store.hotpath.store import Seen
from worker.hotpath.fleet import Facts, facts_of
from worker.hotpath.term import Term
from worker.settings import HotpathSettings

BARRIER_S = 10.0
ACKED_SHARE = 0.95
LIVE_POLLS, LIVE_S = 3, 2.0

log = logging.getLogger(__name__)
Pair = tuple[int, int]


class Gates:
    """What is remembered of the fleet between two looks."""

    def __init__(self, settings: HotpathSettings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._joined: frozenset[str] = frozenset()
        self._scaled_s = -1e9
        self._draining = self._saturated = False
        self._warned: Pair = (0, 0)

    def window(self, term: Term, seen: Seen, now_us: int) -> Facts | None:
        """A complete window of the fleet, once enough workers follow what is in force."""
        live = self.live(seen)
        following = [name for name, pair in live.items() if pair == term.pair]
        applied_us = term.engine.executor.applied_us
        waited = applied_us is None or now_us - applied_us >= BARRIER_S * 1e6
        if len(following) < ACKED_SHARE * len(live):
            if not waited:
                return None
            self._warn_of_those_who_lag(term, len(live) - len(following))
        digests = term.merger.window(following, now_us)
        if digests is None:
            return None
        facts = facts_of(digests)
        self._saturated = self.saturated(facts)
        return facts

    def saturated(self, facts: Facts) -> bool:
        """A window in which the fleet, or something else on its machines, left no room to breathe."""
        return facts.utilisation > self._settings.utilisation_max

    def heed(self, facts: Facts, digest: TelemetryDigest) -> None:
        """After an overload windows measure how the backlog drains, until the lag is at its target again."""
        margin = digest.constraint_margin
        drains = self._draining and facts.lag_s > self._settings.lag_target_s
        self._draining = margin is not None and (margin < 0 or drains)

    def closed(self, term: Term, seen: Seen, replicas_lack: bool) -> str:
        """Why no new cycle may begin; empty if one may, or is under way."""
        joined = frozenset(self.live(seen))
        if joined != self._joined:
            self._joined, self._scaled_s = joined, self._clock()
        if term.engine.proposer.measuring:
            return ""
        reasons = {
            "frozen": term.frozen,
            "a canary is under way": term.canary.trial is not None or term.canary.wants is not None,
            "replicas lack the last decision": replicas_lack,
            "graph or machine is saturated": self._saturated,
            "draining a backlog": self._draining,
            "workers came or went": self._clock() - self._scaled_s < self._settings.settle_s,
            "no workers": not joined,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def live(self, seen: Seen) -> dict[str, Pair]:
        """The workers that were heard of lately, and what each follows."""
        live_ms = 1000 * max(LIVE_S, LIVE_POLLS * self._settings.poll_s)
        now_ms = seen.now_us // 1000
        return {name: _pair(said) for name, (ms, said) in seen.acks.items() if now_ms - ms <= live_ms}

    def _warn_of_those_who_lag(self, term: Term, count: int) -> None:
        """Once for each generation; they are left out by their generation, not waited for."""
        if self._warned != term.pair:
            self._warned = term.pair
            log.warning("hotpath_workers_lag", extra={"generation": term.pair[1], "workers": count})


def _pair(said: bytes) -> Pair:
    try:
        ack = json.loads(said)
        return int(ack["fence"]), int(ack["generation"])
    except (ValueError, KeyError, TypeError):
        return -1, -1

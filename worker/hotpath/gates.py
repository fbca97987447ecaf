"""When nothing new may begin, which windows of the fleet teach nothing, and what a cycle under way cannot survive.

    a backlog drains, a canary is tried, replicas lack a      no new cycle; one under way goes on
    decision, all are saturated
    a worker came or went, the traffic changed                a cycle under way ends: what follows is not its effect
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
from worker.hotpath.traffic import Traffic
from worker.settings import HotpathSettings

BARRIER_S = 10.0
ACKED_SHARE = 0.95
LIVE_POLLS, LIVE_S = 3, 2.0
CAME_OR_WENT, SHIFTED = "workers came or went", "the traffic changed"

log = logging.getLogger(__name__)
Pair = tuple[int, int]


class Gates:
    """What is remembered of the fleet between two looks."""

    def __init__(self, settings: HotpathSettings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._joined: frozenset[str] = frozenset()
        self._scaled_s = self._shifted_s = -1e9
        self._traffic = Traffic(settings.traffic_shift)
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

    def disturbed(self, term: Term, seen: Seen, facts: Facts | None) -> str:
        """Why a cycle under way would measure something else than its probe; empty if it would not."""
        joined, proposer = frozenset(self.live(seen)), term.engine.proposer
        scaled, self._joined = joined != self._joined, joined
        cycle = (proposer.iteration(), term.engine.executor.breaks)
        shifted = facts is not None and proposer.measuring and self._traffic.shifted(cycle, facts.rate)
        self._scaled_s = self._clock() if scaled else self._scaled_s
        self._shifted_s = self._clock() if shifted else self._shifted_s
        if not proposer.measuring:
            return ""
        return CAME_OR_WENT if scaled else SHIFTED if shifted else ""

    def closed(self, term: Term, replicas_lack: bool) -> str:
        """Why no new cycle may begin; empty if one may, or is under way."""
        if term.engine.proposer.measuring:
            return ""
        reasons = {
            "frozen": term.frozen,
            "a canary is under way": term.canary.trial is not None or term.canary.wants is not None,
            "replicas lack the last decision": replicas_lack,
            "graph or machine is saturated": self._saturated,
            "draining a backlog": self._draining,
            CAME_OR_WENT: self._clock() - self._scaled_s < self._settings.settle_s,
            SHIFTED: self._clock() - self._shifted_s < self._settings.settle_s,
            "no workers": not self._joined,
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

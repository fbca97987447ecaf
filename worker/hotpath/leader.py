"""Leads the tuner while its lease holds: any worker may, one does.

    lead     take or renew the lease; read where the last leader left off; end what it left half measured
    look     digests, orders, who follows what
    obey     one order, one write
    tune     a window of the fleet --> the engine --> one write: configuration, optimiser and audit together
    archive  audit events to disk, and only then out of Redis

A write that was not accepted ends the term: all that was believed is thrown away and read again. A write whose answer
was lost is sent again, the very same one, until there is an answer or the lease is over.
"""

import json
import logging
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from scheduler.hotpath import EventType, NoChange, Violation
from scheduler.hotpath.errors import BadCheckpoint
from state_store.hotpath.commit import HotpathCommit, HotpathOutcome
from state_store.hotpath.lease import Leadership, Led
from state_store.hotpath.store import HotpathStore, Seen
from worker.hotpath.archivist import Archivist
from worker.hotpath.engine import AGE_DIGESTS
from worker.hotpath.fleet import Facts, facts_of, fleet_digest, terms_of
from worker.hotpath.metrics import HotpathMetrics
from worker.hotpath.orders import RefusedOrder, decode, follow
from worker.hotpath.report import Report
from worker.hotpath.term import Term
from worker.settings import HotpathSettings

SILENT_SHARE = 0.7  # of the lease without a confirmation: nothing is proposed any more
RENEW_SHARE = 0.3
IDLE_LEASES = 6  # after a checkpoint that cannot be continued
BARRIER_S = 10.0
ACKED_SHARE = 0.95
LIVE_POLLS, LIVE_S = 3, 2.0
FORGOTTEN_MS = 600_000

log = logging.getLogger(__name__)


class TermOver(Exception):
    """What this leader believed is not what is stored, or it leads no more."""


class Leader:
    """One candidate; `step` does all that there is to do now."""

    def __init__(
        self,
        store: HotpathStore,
        settings: HotpathSettings,
        fleet: str,
        name: str,
        natives: dict[str, float],
        clock: Callable[[], float] = time.monotonic,
        metrics: HotpathMetrics | None = None,
        fresh: bool = False,
    ) -> None:
        self.store, self.settings, self.fleet, self.name, self.natives = store, settings, fleet, name, natives
        self.clock, self.fresh = clock, fresh
        self.term: Term | None = None
        self.leadership: Leadership | None = None
        self.report = Report(metrics or HotpathMetrics())
        self.refused = ""  # why this worker does not lead although nobody else does
        self._idle_until_s = -1e9
        self._nonce = ""
        self._confirmed_s = 0.0
        self._unsettled: HotpathCommit | None = None
        self._archivist: Archivist | None = None
        self._joined: frozenset[str] = frozenset()
        self._scaled_s = -1e9
        self._draining = False
        self._warned = (0, 0)

    async def step(self) -> None:
        """Does what is to be done now; raises StateStoreError when the store cannot be asked."""
        try:
            if not await self.lead():
                return
            seen = await self.look()
            await self.obey(seen)
            await self.tune(seen)
            await self.archive(seen)
        except TermOver as over:
            log.warning("hotpath_term_over", extra={"why": str(over)})
            self.term, self._unsettled = None, None

    async def lead(self) -> bool:
        """Takes or renews the lease, and reads what is stored when this is new; False while somebody else leads."""
        ttl_s = self.settings.lease_ms / 1000
        if self.clock() < self._idle_until_s:
            return False
        if self.leadership is not None and self.clock() - self._confirmed_s > SILENT_SHARE * ttl_s:
            self.resign("no answer for too long")
        asked_s = self.clock()
        if self.leadership is None:
            self._nonce = self._nonce or token_hex(16)
            answer = await self.store.lead(self.name, self._nonce, self.settings.lease_ms)
        elif asked_s - self._confirmed_s > RENEW_SHARE * ttl_s:
            answer = await self.store.renew(self.leadership, self.settings.lease_ms)
        else:
            answer = None
        if isinstance(answer, Led):
            self.resign("another leads" if answer.owner else "the lease is over")
            return False
        if answer is not None:
            self._confirmed_s, self.leadership = asked_s, answer
        if self._unsettled is not None:
            await self._send(self._unsettled)
        return self.term is not None or await self._take_over()

    def resign(self, why: str) -> None:
        """Leads no more, and forgets what it believed."""
        if self.leadership is not None:
            log.info("hotpath_resigned", extra={"why": why})
        self.leadership = self.term = self._unsettled = self._archivist = None
        self._nonce = ""

    async def release(self) -> None:
        """Lets another lead at once."""
        if self.leadership is not None:
            leadership = self.leadership
            self.resign("released")
            await self.store.release(leadership)

    async def look(self) -> Seen:
        """Learns what came in, and forgets workers that have been silent for long."""
        term = self._term
        seen = await self.store.look(term.digest_id, term.command_id)
        gone = [name for name, (ms, _) in seen.acks.items() if seen.now_us // 1000 - ms > FORGOTTEN_MS]
        if gone:
            seen = await self.store.look(term.digest_id, term.command_id, gone)
        term.engine.executor.audit_queue.outside = seen.audit_length
        self.report.hear(seen, term, self._live(seen))
        return seen

    async def obey(self, seen: Seen) -> None:
        """Follows the orders that came in, each in a write of its own."""
        term = self._term
        for entry_id, encoded in seen.commands:
            term.command_id = entry_id
            try:
                order = decode(encoded)
            except RefusedOrder as refused:
                log.warning("hotpath_order_refused", extra={"why": str(refused)})
                continue
            if order.id in term.answered or await self.store.answer(order.id) is not None:
                continue
            if order.name in ("pin", "unpin") and term.engine.executor.phase != "centre":
                term.engine.abort(term.now_us(), order.actor, order.name)
                await self._save()
            answer = follow(term, order)
            await self._save([(order.id, json.dumps(answer).encode())])
            log.info("hotpath_order", extra={"order": order.name, "actor": order.actor, "told": answer["told"]})

    async def tune(self, seen: Seen) -> None:
        """Lets time pass, and feeds the engine when a window of the fleet is complete."""
        term = self._term
        now_us = term.now_us()
        self._heed_switch(seen, now_us)
        term.engine.executor.tick(now_us)
        await self._save()
        oldest_ms = seen.now_us / 1000 - AGE_DIGESTS * 1000 * self.settings.digest_s
        for entry_id, source, payload in seen.digests:
            if int(entry_id.partition("-")[0]) >= oldest_ms:
                term.merger.take(source, payload, term.pair, now_us)
            else:
                term.merger.counts["too_old"] += 1
            term.digest_id = entry_id
        facts = self._window(seen, now_us)
        if facts is None:
            if not term.observing and not self._gate(seen):
                await self._apply(term.engine.tick(now_us), now_us)
        else:
            await self._feed(facts, seen, now_us)
        await self._tell(bool(facts))

    async def archive(self, seen: Seen) -> None:
        """Brings the audit to disk, if any of it waits."""
        assert self.leadership is not None
        if not seen.audit_length:
            return
        if self._archivist is None:
            self._archivist = Archivist(self.store, self.settings.directory, self.fleet, self.leadership)
        if not await self._archivist.work():
            raise TermOver("another leader archives")

    @property
    def _term(self) -> Term:
        assert self.term is not None, "nobody acts who does not lead"
        return self.term

    async def _take_over(self) -> bool:
        """Reads where the last leader left off, and ends what it left half measured."""
        assert self.leadership is not None
        loaded = await self.store.load()
        try:
            self.term = Term(self.settings, self.fleet, self.natives, self.leadership, loaded, self.clock, self.fresh)
        except (BadCheckpoint, KeyError, ValueError, TypeError) as error:
            return await self._refuse(str(error))
        self.refused, self.fresh = "", False
        term, now_us = self.term, self.term.now_us()
        term.engine.abort(now_us, self.name, "leader_changed")
        term.engine.executor.record(EventType.LEADER_CHANGED, now_us, actor=self.name, details={"token": term.token})
        await self._save()
        log.info("hotpath_leads", extra={"token": term.token, "generation": term.committed_generation})
        return True

    async def _refuse(self, why: str) -> bool:
        """Lets a worker of another version lead, and asks again later."""
        if why != self.refused:
            log.error("hotpath_refused", extra={"why": why})
        self.refused = why
        self._idle_until_s = self.clock() + IDLE_LEASES * self.settings.lease_ms / 1000
        await self.release()
        return False

    def _heed_switch(self, seen: Seen, now_us: int) -> None:
        term = self._term
        if seen.frozen and not term.frozen:
            term.engine.abort(now_us, "operator", "frozen")
        term.frozen = seen.frozen

    def _window(self, seen: Seen, now_us: int) -> Facts | None:
        """A complete window of the fleet, once enough workers follow what is in force."""
        term = self._term
        live = self._live(seen)
        following = [name for name, pair in live.items() if pair == term.pair]
        applied_us = term.engine.executor.applied_us
        waited = applied_us is None or now_us - applied_us >= BARRIER_S * 1e6
        if len(following) < ACKED_SHARE * len(live):
            if not waited:
                return None
            self._warn_of_those_who_lag(len(live) - len(following))
        digests = term.merger.window(following, now_us)
        return None if digests is None else facts_of(digests)

    def _warn_of_those_who_lag(self, count: int) -> None:
        """Once for each generation; they are left out by their generation, not waited for."""
        if self._warned != self._term.pair:
            self._warned = self._term.pair
            log.warning("hotpath_workers_lag", extra={"generation": self._warned[1], "workers": count})

    async def _feed(self, facts: Facts, seen: Seen, now_us: int) -> None:
        term = self._term
        term.facts = facts
        term.references = term.references or facts.references
        terms = terms_of(facts, self.settings, term.references)
        digest = fleet_digest(facts, self.settings, term.references, term.committed_generation, now_us)
        self.report.measured(facts, terms, digest)
        self._draining = digest.constraint_margin is not None and (
            digest.constraint_margin < 0 or (self._draining and facts.lag_s > self.settings.lag_target_s)
        )
        if term.observing:
            term.rehearse(digest, facts, terms, now_us)
            return await self._save()
        if not self._gate(seen) or (digest.constraint_margin or 0) < 0:
            await self._apply(term.engine.observe(digest, now_us), now_us)

    def _gate(self, seen: Seen) -> str:
        """Why no new cycle may begin; one under way goes on."""
        joined = frozenset(self._live(seen))
        if joined != self._joined:
            self._joined, self._scaled_s = joined, self.clock()
        gate = ""
        if self._term.frozen:
            gate = "frozen"
        elif self._draining:
            gate = "draining a backlog"
        elif self.clock() - self._scaled_s < self.settings.settle_s:
            gate = "workers came or went"
        elif not joined:
            gate = "no workers"
        gate = "" if self._term.engine.proposer.measuring else gate
        self.report.gate = gate
        return gate

    async def _apply(self, proposal: Any, now_us: int) -> None:
        """Applies what was proposed, and writes down whatever that led to."""
        term = self._term
        self.report.heard(proposal, now_us)
        if not isinstance(proposal, NoChange):
            try:
                term.engine.apply(proposal, now_us)
            except Violation as violation:
                self.report.refused(violation)
        await self._save()

    async def _save(self, answers: list[tuple[str, bytes]] | None = None) -> None:
        """One write of all that changed, if anything did."""
        commit, diagnostics = self._term.draft(answers or [])
        self.report.diagnostics += diagnostics
        if commit is not None:
            await self._send(commit)

    async def _send(self, commit: HotpathCommit) -> None:
        """Writes, and knows afterwards what became of it; until then the write is kept."""
        assert self.leadership is not None
        self._unsettled = commit
        answer = await self.store.commit(self.leadership, commit)
        self._unsettled = None
        self.report.committed(commit, answer.outcome)
        if not answer.outcome.took_effect:
            if answer.outcome in (HotpathOutcome.FENCED, HotpathOutcome.NO_LEASE):
                self.resign(answer.outcome.value)
            raise TermOver(f"{answer.outcome.value} for {commit.kind}")
        self._term.committed(commit, answer.audit_length)

    async def _tell(self, measured: bool) -> None:
        """Leaves word for operators, when there is something new."""
        now_s = self.clock()
        if measured or self.report.diagnostics or now_s - self.report.told_s > self.settings.digest_s:
            self.report.told_s = now_s
            diagnostics, self.report.diagnostics = self.report.diagnostics, []
            await self.store.note(diagnostics, self.report.encode(self._term))

    def _live(self, seen: Seen) -> dict[str, tuple[int, int]]:
        """The workers that were heard of lately, and what each follows."""
        live_ms = 1000 * max(LIVE_S, LIVE_POLLS * self.settings.poll_s)
        now_ms = seen.now_us // 1000
        return {name: _pair(said) for name, (ms, said) in seen.acks.items() if now_ms - ms <= live_ms}


def _pair(said: bytes) -> tuple[int, int]:
    try:
        ack = json.loads(said)
        return int(ack["fence"]), int(ack["generation"])
    except (ValueError, KeyError, TypeError):
        return -1, -1

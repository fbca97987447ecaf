"""Leads the tuner while its lease holds: any worker may, one does.

    lead     take or renew the lease; read where the last leader left off; end what it left half measured
    look     digests, orders, who follows what
    obey     one order, one write
    tune     a window of the fleet --> the engine --> one write: configuration, optimiser and audit together
    publish  the numbers that a canary wants
    archive  audit events to disk, and only then out of Redis

A write that was not accepted ends the term: all that was believed is thrown away and read again. A write whose answer
was lost is sent again, the very same one, until there is an answer or the lease is over.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from scheduler.hotpath import NoChange
from scheduler.hotpath.errors import BadCheckpoint
from state_store import StateStore
from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import HotpathStore, Loaded, Seen
from worker.hotpath.archivist import Archivist
from worker.hotpath.decisions import Input, Outcome, matters, plain, take
from worker.hotpath.engine import AGE_DIGESTS
from worker.hotpath.gates import Gates
from worker.hotpath.metrics import HotpathMetrics
from worker.hotpath.model_knobs import MODEL, Model
from worker.hotpath.orders import RefusedOrder, decode
from worker.hotpath.publisher import Publisher, losses_of
from worker.hotpath.report import Report
from worker.hotpath.tenure import Tenure
from worker.hotpath.term import INPUTS_MAX, Term
from worker.hotpath.writer import TermOver, Writer
from worker.settings import HotpathSettings

FORGOTTEN_MS = 600_000
INPUTS_LIMIT = 10 * INPUTS_MAX

log = logging.getLogger(__name__)


class Leader:
    """One candidate; `step` does all that there is to do now."""

    def __init__(
        self,
        store: HotpathStore,
        numbers: StateStore,
        settings: HotpathSettings,
        fleet: str,
        name: str,
        natives: dict[str, float],
        model: Model,
        clock: Callable[[], float] = time.monotonic,
        metrics: HotpathMetrics | None = None,
        fresh: bool = False,
    ) -> None:
        self.store, self.settings, self.fleet, self.name = store, settings, fleet, name
        self.natives, self.model = natives, model
        self.clock, self.fresh = clock, fresh
        self.term: Term | None = None
        self.report = Report(metrics or HotpathMetrics())
        self.refused = ""  # why this worker does not lead although nobody else does
        self._tenure = Tenure(name, settings.lease_ms, clock)
        self._gates = Gates(settings, clock)
        self._publisher = Publisher(numbers, clock)
        self._writer = Writer(settings.replicas_min, self.report)
        self._archivist: Archivist | None = None

    @property
    def leadership(self) -> Leadership | None:
        return self._tenure.leadership

    async def step(self) -> None:
        """Does what is to be done now; raises StateStoreError when the store cannot be asked."""
        try:
            if not await self.lead():
                return
            seen = await self.look()
            await self.obey(seen)
            await self.tune(seen)
            await self.publish()
            await self.archive(seen)
        except TermOver as over:
            log.warning("hotpath_term_over", extra={"why": str(over)})
            if over.deposed:
                self.resign(str(over))
            self.term, self._writer.unsettled = None, None

    async def lead(self) -> bool:
        """Leads, or goes on to; reads what is stored when this is new. False while somebody else leads."""
        try:
            leads = await self._tenure.hold(self.store)
        finally:
            if self.leadership is None:
                self._forget()
        if not leads:
            return False
        if self._writer.unsettled is not None:
            assert self.leadership is not None
            await self._writer.send(self.store, self.leadership, self._term, self._writer.unsettled)
        return self.term is not None or await self._take_over()

    def resign(self, why: str) -> None:
        """Leads no more, and forgets what it believed."""
        self._tenure.end(why)
        self._forget()

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
        self.report.hear(seen, term, self._gates.live(seen))
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
                self._take("ended", actor=order.actor, cause=order.name)
                await self._save()
            if order.name == "canary-start" or order.args.get("knob") in MODEL.names:
                order = replace(order, args={**order.args, "newest": await self._publisher.newest()})
            answer = self._take("order", **asdict(order)).answer
            assert answer is not None
            await self._save([(order.id, json.dumps(answer).encode())])
            log.info("hotpath_order", extra={"order": order.name, "actor": order.actor, "told": answer["told"]})

    async def tune(self, seen: Seen) -> None:
        """Lets time pass, and feeds the engine when a window of the fleet is complete."""
        term = self._term
        if seen.frozen != term.frozen:
            self._take("switch", frozen=seen.frozen)
        self._take("tick", tuning=False)
        await self._save()
        self._collect(seen)
        for told in losses_of(term):
            self._take("losses", **told)
        facts = self._gates.window(term, seen, term.now_us())
        disturbed = self._gates.disturbed(term, seen, facts)
        if disturbed:
            self._take("ended", actor="engine", cause=disturbed)
            await self._save()
        closed = self.report.gate = disturbed or self._gates.closed(term, self._writer.replicas_lack)
        if facts is not None:
            saturated = self._gates.saturated(facts)
            term.merger.counts["saturated"] += saturated
            outcome = self._take("window", facts=plain(facts), open=not closed, saturated=saturated)
            assert outcome.digest is not None
            self._gates.heed(facts, outcome.digest)
            self.report.measured(facts, outcome.terms, outcome.digest)
            self._heard(outcome)
        elif not term.observing and not closed:
            self._heard(self._take("tick", tuning=True))
        await self._save()
        await self._tell(bool(facts))

    async def publish(self) -> None:
        """Brings the fleet's numbers to what the canary wants, and asks replicas that lack the last decision again."""
        news = await self._publisher.reconcile(self._term, self.store)
        if news is not None:
            kind, what = news
            self._take(kind, **what)
            await self._save()
        if self._writer.replicas_lack:
            await self._writer.confirm(self.store)

    async def archive(self, seen: Seen) -> None:
        """Brings the audit to disk, if any of it waits."""
        assert self.leadership is not None
        if not seen.audit_length:
            return
        if self._archivist is None:
            self._archivist = Archivist(self.store, self.settings, self.fleet, self.leadership)
        if not await self._archivist.work():
            raise TermOver("another leader archives", deposed=True)
        surplus = await self._archivist.surplus()
        if surplus is not None:
            self._take("archive_full", **surplus)
            await self._save()
            self._archivist.told = surplus
        if self._archivist.turned():
            raise TermOver("a file of the archive is full: a replay can begin with the next one")

    @property
    def _term(self) -> Term:
        assert self.term is not None, "nobody acts who does not lead"
        return self.term

    def _forget(self) -> None:
        self.term = self._archivist = None
        self._writer.forget()

    async def _take_over(self) -> bool:
        """Reads where the last leader left off, and ends what it left half measured."""
        assert self.leadership is not None
        loaded = await self.store.load()
        given = (self.settings, self.fleet, self.natives, self.model, self.leadership, loaded)
        fresh = self.fresh
        try:
            self.term = term = Term(*given, self.clock, fresh)
        except (BadCheckpoint, KeyError, ValueError, TypeError) as error:
            return await self._refuse(str(error))
        self.refused, self.fresh = "", False
        began = _beginning(loaded) | {"settings": self.settings.model_dump(mode="json"), "fresh": fresh}
        began |= {"fleet": self.fleet, "natives": self.natives, "model": asdict(self.model), "name": self.name}
        self._take("began", token=term.token, **began)
        await self._save()
        log.info("hotpath_leads", extra={"token": term.token, "generation": term.committed_generation})
        return True

    async def _refuse(self, why: str) -> bool:
        """Lets a worker of another version lead, and asks again later."""
        if why != self.refused:
            log.error("hotpath_refused", extra={"why": why})
        self.refused = why
        self._tenure.rest()
        await self.release()
        return False

    def _take(self, kind: str, **what: Any) -> Outcome:
        """Lets something happen to the term, and keeps it to be written down."""
        term = self._term
        given = Input(kind, term.now_us(), term.engine.executor.audit_queue.outside, what)
        before = matters(term) if kind == "tick" else None
        outcome = take(term, given)
        if before is None or matters(term) != before:
            term.inputs.append(asdict(given))
        if len(term.inputs) > INPUTS_LIMIT:
            raise TermOver("there is no room in the audit for what happened")
        return outcome

    def _collect(self, seen: Seen) -> None:
        term, now_us = self._term, self._term.now_us()
        oldest_ms = seen.now_us / 1000 - AGE_DIGESTS * 1000 * self.settings.digest_s
        for entry_id, source, payload in seen.digests:
            if int(entry_id.partition("-")[0]) >= oldest_ms:
                term.merger.take(source, payload, term.pair, now_us)
            else:
                term.merger.counts["too_old"] += 1
            term.digest_id = entry_id

    def _heard(self, outcome: Outcome) -> None:
        if outcome.proposal is None:
            return
        self.report.heard(outcome.proposal, self._term.at_us)
        if not isinstance(outcome.proposal, NoChange) and outcome.violation is not None:
            self.report.refused(outcome.violation)

    async def _save(self, answers: list[tuple[str, bytes]] | None = None) -> None:
        assert self.leadership is not None
        await self._writer.save(self.store, self.leadership, self._term, answers or [])

    async def _tell(self, measured: bool) -> None:
        """Leaves word for operators, when there is something new."""
        now_s = self.clock()
        if measured or self.report.diagnostics or now_s - self.report.told_s > self.settings.digest_s:
            self.report.told_s = now_s
            diagnostics, self.report.diagnostics = self.report.diagnostics, []
            await self.store.note(diagnostics, self.report.encode(self._term))


def _beginning(loaded: Loaded) -> dict[str, Any]:
    """What a term is made of, as JSON values."""
    checkpoint = json.loads(loaded.checkpoint) if loaded.checkpoint else None
    return {
        "checkpoint": checkpoint,
        "generation": loaded.generation,
        "fence": loaded.fence,
        "audit_length": loaded.audit_length,
    }

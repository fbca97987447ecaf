"""What happens to a term, as values: so that it can be written down, and done again to the same byte. Pure.

    began       a leader takes over              window      the fleet was measured
    ended       a probe is to end                order       an operator wants something
    switch      the fleet is frozen, or not      losses      of the forecasts in a canary's round
    tick        time passes                      published   a generation of numbers; superseded: by somebody else's
    archive_full   its oldest files are to go

Nothing else changes a term between two writes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from scheduler.hotpath import EventType, NoChange, TelemetryDigest, Violation
from scheduler.hotpath.proposal import Proposal
from scheduler.hotpath.trial import Sums
from worker.hotpath.fleet import Facts, fleet_digest, terms_of
from worker.hotpath.order import Order
from worker.hotpath.orders import follow
from worker.hotpath.term import Term


@dataclass(frozen=True)
class Input:
    """One thing that happened; `outside` are the audit events that wait for their archive."""

    kind: str
    now_us: int
    outside: int
    what: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the term made of it."""

    proposal: Proposal | None = None
    violation: Violation | None = None
    answer: dict[str, Any] | None = None
    digest: TelemetryDigest | None = None
    terms: dict[str, float] = field(default_factory=dict)


def take(term: Term, given: Input) -> Outcome:
    """The one way to change a term."""
    term.at_us = given.now_us
    term.engine.executor.audit_queue.outside = given.outside
    outcome = KINDS[given.kind](term, given.what, given.now_us)
    _end_canary_where_stopped(term, given.now_us)
    return outcome


def matters(term: Term) -> dict[str, Any]:
    """All that a tick may change, the time itself left out: a tick that changes nothing need not be written down."""
    engine = term.engine.checkpoint()
    del engine["executor"]["now_us"]
    return {"engine": engine, "canary": term.canary.checkpoint()}


def _began(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.engine.abort(now_us, what["name"], "leader_changed")
    term.engine.executor.record(
        EventType.LEADER_CHANGED, now_us, actor=what["name"], details={"token": term.token}
    )
    term.heed_settings(now_us)
    return Outcome()


def _ended(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.engine.abort(now_us, what["actor"], what["cause"])
    return Outcome()


def _switch(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    if what["frozen"] and not term.frozen:
        term.engine.abort(now_us, "operator", "frozen")
        term.canary.stop(now_us, "aborted", "operator", "frozen", back=True)
    term.frozen = what["frozen"]
    return Outcome()


def _tick(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    if what["tuning"]:
        return _applied(term, term.engine.tick(now_us), now_us)
    term.engine.executor.tick(now_us)
    term.canary.step(now_us)
    return Outcome()


def _window(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    facts = Facts(**what["facts"])
    term.facts = facts
    if term.references is None:
        term.measure_by_references(facts.references)
    assert term.references is not None
    terms = terms_of(facts, term.settings, term.references)
    digest = fleet_digest(facts, term.settings, term.references, term.committed_generation, now_us)
    told = Outcome(digest=digest, terms=terms)
    if term.canary.trial is not None and (digest.constraint_margin or 0) < 0:
        term.canary.stop(now_us, "aborted", "engine", "a limit was passed", back=True)
    broken = (digest.constraint_margin or 0) < 0  # is heeded whatever else holds
    if term.observing:
        if not what["saturated"]:
            term.rehearse(digest, facts, terms, now_us)
        return told
    if not broken and not what["open"]:
        return told
    teaches = broken or not what["saturated"]
    proposal = term.engine.observe(digest, now_us) if teaches else term.engine.tick(now_us)
    applied = _applied(term, proposal, now_us)
    return Outcome(applied.proposal, applied.violation, digest=digest, terms=terms)


def _order(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    return Outcome(answer=follow(term, Order(**what), now_us))


def _losses(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.canary.take(what["number"], {int(group): Sums(*sums) for group, sums in what["groups"].items()})
    return Outcome()


def _published(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.canary.published(what["number"], now_us)
    return Outcome()


def _superseded(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.canary.superseded(what["number"], what["values"], now_us)
    return Outcome()


def _archive_full(term: Term, what: dict[str, Any], now_us: int) -> Outcome:
    term.engine.executor.record(EventType.ARCHIVE_REMOVED, now_us, details=what)
    return Outcome()


KINDS: dict[str, Callable[[Term, dict[str, Any], int], Outcome]] = {
    "began": _began,
    "ended": _ended,
    "switch": _switch,
    "tick": _tick,
    "window": _window,
    "order": _order,
    "losses": _losses,
    "published": _published,
    "superseded": _superseded,
    "archive_full": _archive_full,
}


def _applied(term: Term, proposal: Proposal, now_us: int) -> Outcome:
    if not isinstance(proposal, NoChange):
        try:
            term.engine.apply(proposal, now_us)
        except Violation as violation:
            return Outcome(proposal, violation)
    return Outcome(proposal)


def _end_canary_where_stopped(term: Term, now_us: int) -> None:
    """No candidate is tried while nothing may be tuned."""
    executor = term.engine.executor
    if executor.safe_mode:
        term.canary.stop(now_us, "aborted", "engine", "safe mode", back=True)
    elif executor.paused_us is not None:
        term.canary.stop(now_us, "aborted", "operator", "paused")


def plain(facts: Facts) -> dict[str, Any]:
    return asdict(facts)

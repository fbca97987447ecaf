"""What an operator may ask of the tuner: each order has an id, an actor and a reason, is done once, and is audited.

Whoever leads does it; what is refused leaves everything as it was, and says why in one line.
"""

import json
from collections.abc import Callable
from typing import Any

from scheduler.errors import SchedulerError
from scheduler.hotpath import ConfigSnapshot, EventType, Violation
from scheduler.hotpath.candidates import STEP
from scheduler.hotpath.errors import InSafeMode, NoBaseline, ProbeActive
from worker.generations import EVERYONE
from worker.hotpath.canary import proposed_knobs
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.model_knobs import MODEL
from worker.hotpath.order import ID_BYTES_MAX, TEXT_MAX, Order
from worker.hotpath.term import Term

TOLD_BY_ENGINE = ("pause", "resume", "pin", "unpin")


class RefusedOrder(Exception):
    """Why an order cannot be followed."""


def decode(encoded: bytes) -> Order:
    """Reads an order; raises RefusedOrder for what no command can have sent."""
    try:
        order = Order(**json.loads(encoded))
        texts = (order.id, order.name, order.actor, order.reason)
        good = all(isinstance(text, str) and 0 < len(text) <= TEXT_MAX for text in texts)
        good &= len(order.id) <= ID_BYTES_MAX and order.name in ORDERS and isinstance(order.args, dict)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusedOrder(f"it cannot be read: {error}") from None
    if not good:
        raise RefusedOrder("an id, a known name, an actor and a reason are needed")
    return order


def follow(term: Term, order: Order, now_us: int) -> dict[str, Any]:
    """Follows an order and gives the answer, which says what is true now or why nothing changed."""
    generation = term.engine.snapshot().generation
    queue = term.engine.executor.audit_queue
    seq = queue.next_seq
    try:
        if order.expect is not None and order.expect != generation:
            raise RefusedOrder(f"the generation is {generation}, not {order.expect}: look again")
        told = ORDERS[order.name](term, order, now_us)
    except (RefusedOrder, SchedulerError) as refused:
        why = _plain(refused)
        details = {"command": order.name, "command_id": order.id, "refused": why}
        _audit(term, order, now_us, details)
        return {"ok": False, "told": why, "generation": term.engine.snapshot().generation}
    by_engine = order.name in TOLD_BY_ENGINE and order.args.get("knob") not in MODEL.names
    if not by_engine or queue.next_seq == seq:  # the engine says nothing where nothing changed
        _audit(term, order, now_us, {"command": order.name, "command_id": order.id, **order.args})
    return {"ok": True, "told": told, "generation": term.engine.snapshot().generation}


def _pause(term: Term, order: Order, now_us: int) -> str:
    term.engine.pause(now_us, order.actor, order.reason, command_id=order.id)
    return "paused: no more probes; rollback and pin still work"


def _resume(term: Term, order: Order, now_us: int) -> str:
    if term.frozen:
        raise RefusedOrder("the fleet is frozen: predictor hotpath freeze --off")
    term.engine.resume(now_us, order.actor, order.reason, command_id=order.id)
    return "observing: turn tuning on with predictor hotpath dry-run off" if term.observing else "running"


def _rollback(term: Term, order: Order, now_us: int) -> str:
    """Knobs go back to the baseline, and what a canary tries or has not proven to what it was."""
    target, tried = order.args.get("centre"), term.canary.trial is not None
    if target is None and tried and term.engine.executor.baseline is None:
        term.canary.stop(now_us, "aborted", order.actor, "rollback", back=True)
        return "the canary is over; the tuner has turned nothing else"
    if target is None:
        receipt = term.engine.rollback(now_us, order.actor, order.reason)
    else:
        vec = REGISTRY.to_vec(target)
        snapshot = ConfigSnapshot(vec, int(order.args["to"]))
        receipt = term.engine.rollback(now_us, order.actor, order.reason, snapshot)
    term.canary.stop(now_us, "aborted", order.actor, "rollback", back=True)
    return f"generation {receipt.new_generation} has the values of generation {receipt.reverted_to_generation}"


def _set_baseline(term: Term, order: Order, now_us: int) -> str:
    baseline = term.engine.set_baseline(now_us, order.actor, order.reason)
    return f"rollbacks return to generation {baseline.generation}"


def _pin(term: Term, order: Order, now_us: int) -> str:
    if order.args.get("knob") in MODEL.names:
        return _pin_number(term, order, now_us)
    index, value = _knob(order)
    knob = REGISTRY.knobs[index]
    if not knob.lo <= value <= knob.hi:
        raise RefusedOrder(f"{knob.name} must be in {knob.lo:g} to {knob.hi:g} {knob.unit}, got {value:g}")
    jump = bool(order.args.get("jump"))
    unit = knob.to_unit(value)
    term.engine.pin(index, unit, now_us, order.actor, order.reason, jump=jump, command_id=order.id, knob=knob.name)
    return f"{knob.name} is pinned to {value:g} {knob.unit}" + ("" if jump else ", reached in allowed steps")


def _pin_number(term: Term, order: Order, now_us: int) -> str:
    """`newest` is the fleet's generation of numbers, as the leader has just read it."""
    name, value, canary = order.args["knob"], order.args.get("value", 0.0), term.canary
    _check_candidate({name: value}, [])
    newest = order.args["newest"]
    number = {**canary.model.numbers, **newest["values"].get(EVERYONE, {})}[name]
    knob = MODEL.knobs[MODEL.get_id(name)]
    near = knob.lo <= number <= knob.hi and abs(knob.to_unit(value) - knob.to_unit(number)) <= STEP
    if not near and not order.args.get("jump"):
        raise RefusedOrder(f"{name} is {number:g}, more than a step away: try it with canary start, or give --jump")
    if not term.engine.executor.audit_queue.has_room():
        raise RefusedOrder("there is no room in the audit")
    canary.pin(now_us, (newest["number"], newest["values"]), name, float(value), order.actor)
    return f"{name} is pinned to {value:g} for everyone; no canary tries another"


def _unpin(term: Term, order: Order, now_us: int) -> str:
    if order.args.get("knob") in term.canary.pins:
        term.canary.unpin(order.args["knob"])
        return f"{order.args['knob']} may be tried again"
    if order.args.get("knob") in MODEL.names:
        return f"{order.args['knob']} was not pinned"
    index, _ = _knob(order)
    if index not in term.engine.executor.pins:
        return f"{REGISTRY.names[index]} was not pinned"
    term.engine.unpin(index, now_us, order.actor, order.reason, command_id=order.id, knob=REGISTRY.names[index])
    return f"{REGISTRY.names[index]} is tuned again, from where it is"


def _dry_run_on(term: Term, order: Order, now_us: int) -> str:
    term.engine.abort(now_us, order.actor, order.reason)
    term.observe_only(now_us)
    return "observing: nothing is changed"


def _dry_run_off(term: Term, order: Order, now_us: int) -> str:
    if not term.observing:
        return "tuning was on already"
    assert term.rehearsal is not None
    gains = term.rehearsal.gains()
    if gains is None:
        raise RefusedOrder("the dry run has not measured enough yet: see predictor hotpath status")
    references = term.rehearsal.references()
    if term.engine.executor.baseline is None:
        term.engine.set_baseline(now_us, order.actor, order.reason)
    term.begin_tuning(gains, references)
    return f"tuning is on: probes of {gains.perturbation_scale:.4g} of a range, gain {gains.learning_rate:.4g}"


def _reset_safe_mode(term: Term, order: Order, now_us: int) -> str:
    latch = term.engine.executor.safe_mode
    if latch is None:
        return "safe mode was not on"
    term.engine.reset_safe_mode(now_us, order.actor, order.reason)
    return f"left safe mode ({latch.reason.value})"


def _freeze(term: Term, order: Order, now_us: int) -> str:
    """The workers have seen the switch by themselves; here the probe ends and the audit tells of it."""
    term.frozen = bool(order.args.get("on", True))
    if term.frozen:
        term.canary.stop(now_us, "aborted", order.actor, "frozen", back=True)
    term.engine.abort(now_us, order.actor, order.reason)
    return "frozen: workers run with their own settings" if term.frozen else "workers follow again"


def _canary_start(term: Term, order: Order, now_us: int) -> str:
    """`newest` is the fleet's generation of numbers, as the leader has just read it."""
    if term.canary.trial is not None or term.canary.wants is not None:
        raise RefusedOrder("a canary is under way: predictor hotpath canary status")
    if term.frozen or term.mode == "paused" or term.engine.executor.safe_mode:
        raise RefusedOrder("nothing is tried while the tuner is frozen, paused or in safe mode")
    if not term.engine.executor.audit_queue.has_room():
        raise RefusedOrder("there is no room in the audit")
    candidate, knobs = order.args.get("candidate", {}), order.args.get("knobs", [])
    _check_candidate(candidate, knobs)
    pinned = [name for name in (*candidate, *knobs) if name in term.canary.pins]
    proposed = [] if candidate else proposed_knobs(knobs, term.canary.pins)
    if pinned or not (candidate or proposed):
        raise RefusedOrder(f"{', '.join(pinned or term.canary.pins)} is pinned: predictor hotpath unpin")
    newest = order.args["newest"]
    rules = {"groups": min(order.args["share"], order.args["partitions"]), "rotations": order.args["rotations"]}
    if rules["groups"] < 2:
        raise RefusedOrder("a fleet of one partition has nothing to compare a canary with")
    term.engine.abort(now_us, order.actor, "canary")
    trial = term.canary.begin(
        now_us, (newest["number"], newest["values"]), candidate, proposed, rules, order.actor, order.reason
    )
    told = " ".join(f"{name}={value:.4g}" for name, value in trial.candidate.items())
    return f"trying {told} on one of {trial.rules.groups} groups of partitions, in {trial.rules.rounds} rounds"


def _canary_promote(term: Term, order: Order, now_us: int) -> str:
    if term.canary.trial is None or term.canary.trial.watch:
        raise RefusedOrder("no canary is under way")
    told = " ".join(f"{name}={value:.4g}" for name, value in term.canary.trial.candidate.items())
    term.canary.stop(now_us, "better", order.actor, order.reason)
    return f"{told} for everyone, on an operator's word; now watched"


def _canary_rollback(term: Term, order: Order, now_us: int) -> str:
    trial = term.canary.trial
    if trial is None or not trial.watch:
        raise RefusedOrder("nothing that was promoted is watched: set numbers with predictor config set")
    term.canary.stop(now_us, "aborted", order.actor, order.reason, back=True)
    return " ".join(f"{name}={value:.4g}" for name, value in trial.candidate.items()) + " for everyone again"


def _canary_abort(term: Term, order: Order, now_us: int) -> str:
    if term.canary.trial is None:
        term.canary.knobs = []
        return "no canary was under way"
    term.canary.stop(now_us, "aborted", order.actor, order.reason)
    return "the canary is over: all partitions have everyone's numbers again"


ORDERS: dict[str, Callable[[Term, Order, int], str]] = {
    "pause": _pause,
    "resume": _resume,
    "rollback": _rollback,
    "set-baseline": _set_baseline,
    "pin": _pin,
    "unpin": _unpin,
    "dry-run-on": _dry_run_on,
    "dry-run-off": _dry_run_off,
    "reset-safe-mode": _reset_safe_mode,
    "freeze": _freeze,
    "canary-start": _canary_start,
    "canary-promote": _canary_promote,
    "canary-rollback": _canary_rollback,
    "canary-abort": _canary_abort,
}


def _check_candidate(candidate: dict[str, Any], knobs: list[str]) -> None:
    for name in (*candidate, *knobs):
        if name not in MODEL.names:
            raise RefusedOrder(f"a canary tries no {name!r}, only {', '.join(MODEL.names)}")
    for name, value in candidate.items():
        knob = MODEL.knobs[MODEL.get_id(name)]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not knob.lo <= value <= knob.hi:
            raise RefusedOrder(f"{name} must be in {knob.lo:g} to {knob.hi:g}, got {value!r}")


def _knob(order: Order) -> tuple[int, float]:
    name, value = order.args.get("knob"), order.args.get("value", 0.0)
    if name not in REGISTRY.names:
        raise RefusedOrder(f"there is no knob {name!r}: {', '.join((*REGISTRY.names, *MODEL.names))}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise RefusedOrder(f"{value!r} is no number")
    return REGISTRY.get_id(name), float(value)


def _audit(term: Term, order: Order, now_us: int, details: dict[str, Any]) -> None:
    term.engine.executor.record(
        EventType.COMMAND, now_us, actor=order.actor, cause=order.reason, details=details
    )


def _plain(refused: Exception) -> str:
    """A refusal in words that name the remedy."""
    if isinstance(refused, NoBaseline):
        return "there is no baseline: predictor hotpath set-baseline"
    if isinstance(refused, ProbeActive):
        return "a probe is under way: try again when it is over, or pause first"
    if isinstance(refused, InSafeMode):
        return f"safe mode holds ({refused.details['reason']}): predictor hotpath reset-safe-mode"
    return str(refused) if not isinstance(refused, Violation) else f"refused: {refused}"

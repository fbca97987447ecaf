"""What a leader of the tuner knows, from its taking over until it stops or a write of its is not accepted.

Then all of it is thrown away and read again: what is stored is the truth. Its clock is the server's at the beginning,
never before what the last leader has seen, and goes on with this process's monotonic one. `decisions` is what changes
it; between two writes it keeps what was decided on, and writes it down with what came of it.
"""

import json
from collections.abc import Callable
from typing import Any

from scheduler.hotpath import AdaptiveEngine, AuditEvent, ConfigSnapshot, EventType, TelemetryDigest
from scheduler.hotpath.audit import EventClass
from state_store.hotpath.commit import HotpathCommit
from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import START, Loaded
from worker.hotpath.canary import Canary
from worker.hotpath.document import Document
from worker.hotpath.engine import Gains, engine_config, first_gains, probe_ttl_ms
from worker.hotpath.fleet import Facts, References, ruler_of
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.merge import Merger
from worker.hotpath.model_knobs import Model
from worker.hotpath.rehearsal import Rehearsal
from worker.settings import HotpathSettings

VERSION = 1
ANSWERED_MAX = 256
INPUTS_MAX = 64  # kept in memory: what came of them is lost with them when a leader dies
OBSERVE, RUN, PAUSED = "observe", "run", "paused"


class Term:
    """The engine and all that must change together with it."""

    def __init__(
        self,
        settings: HotpathSettings,
        fleet: str,
        natives: dict[str, float],
        model: Model,
        leadership: Leadership,
        loaded: Loaded,
        clock: Callable[[], float],
        fresh: bool = False,
    ) -> None:
        self.settings, self.fleet, self.token, self._model = settings, fleet, leadership.token, model
        self.frozen = False
        self.fence, self.committed_generation = loaded.fence, loaded.generation
        self.merger = Merger(_us(settings.digest_s), _us(settings.settle_s), settings.samples_min)
        self.facts: Facts | None = None
        self.inputs: list[dict[str, Any]] = []
        self._clock, self._began_s = clock, clock()
        if fresh or not loaded.checkpoint:
            state = _fresh(settings, natives, leadership, loaded)
        else:
            state = json.loads(loaded.checkpoint)
        self.at_us = self._began_us = max(leadership.now_us, state["now_us"])
        self._read(state)
        self.engine.executor.audit_queue.outside = loaded.audit_length

    def now_us(self) -> int:
        return self._began_us + _us(self._clock() - self._began_s)

    @property
    def pair(self) -> tuple[int, int]:
        """The configuration that workers are to follow."""
        return self.fence, self.committed_generation

    @property
    def mode(self) -> str:
        """What the store lets pass: probes and updates only in "run"."""
        if self.observing:
            return OBSERVE
        return PAUSED if self.frozen or self.engine.executor.paused_us is not None else RUN

    def measure_by_references(self, references: References) -> None:
        """What cost and loss are held against, as long as nothing was compared yet."""
        self.references = references
        self.engine.executor.ruler = ruler_of(self.settings, references)

    def heed_settings(self, now_us: int) -> None:
        """Where targets or limits are others than the last leader's, or weights another version's, all begins anew."""
        executor, ruler = self.engine.executor, ruler_of(self.settings, self.references)
        if executor.ruler in ("", ruler):
            executor.ruler = ruler
            return
        self.engine.measure_by(ruler, now_us, f"run-{self.token}")
        if self.observing:
            self.observe_only(now_us)

    def observe_only(self, now_us: int) -> None:
        """Begins a dry run."""
        self.observing = True
        self.rehearsal = self._rehearse(now_us)

    def rehearse(self, digest: TelemetryDigest, facts: Facts, terms: dict[str, float], now_us: int) -> None:
        """Takes a window of the dry run; what would have been proposed goes to the audit while there is room."""
        assert self.rehearsal is not None
        told = self.rehearsal.observe(digest, facts, terms, now_us)
        if told and self.engine.executor.audit_queue.has_room():
            for event in told:
                self.engine.executor.record(
                    event.event_type, now_us, proposal=event.proposal_id, details=json.loads(event.details)
                )

    def begin_tuning(self, gains: Gains, references: References) -> None:
        """Ends the dry run: from now on with its probe distance, its gain, and its cost and loss as references."""
        self.gains, self.observing = gains, False
        state, queue = self.engine.checkpoint(), self.engine.executor.audit_queue
        self.engine = AdaptiveEngine.restore(engine_config(self.settings, gains), state, REGISTRY)
        self.engine.executor.audit_queue = queue  # with what was not written down yet
        self.canary = Canary(self.settings, self._model, self.engine.executor, self.canary.checkpoint())
        self.engine.executor.control_safety.regression.forget()
        self.measure_by_references(references)

    def draft(self, answers: list[tuple[str, bytes]]) -> tuple[HotpathCommit | None, list[bytes]]:
        """What is to be written now, if anything; and what is only good to know."""
        durable, diagnostics = self.events()
        generation = self.engine.snapshot().generation
        changed = durable or answers or generation != self.committed_generation
        waiting = len(self.inputs) >= INPUTS_MAX and self.engine.executor.audit_queue.below_mark
        if not changed and not waiting:
            return None, diagnostics
        forgotten = self._note_answers([name for name, _ in answers])
        kind, name = self._name(durable, generation != self.committed_generation)
        commit = HotpathCommit(
            kind=kind,
            id=name,
            base=self.committed_generation,
            generation=generation,
            document=self.document().encode() if generation != self.committed_generation else b"",
            checkpoint=self.checkpoint(),
            mode=self.mode,
            inputs=self._written_inputs(),
            events=tuple(event.encode() for event in durable),
            answers=tuple(answers),
            forget=tuple(forgotten),
        )
        return commit, diagnostics

    def events(self) -> tuple[list[AuditEvent], list[bytes]]:
        """What happened since the last time: what the archive must have, and what is only good to know."""
        durable: list[AuditEvent] = []
        diagnostics: list[bytes] = []
        for event in self.engine.drain_audit():
            proposed = event.event_type is EventType.PROPOSAL
            if self.observing or proposed or event.event_class is not EventClass.DIAGNOSTIC:
                durable.append(event)
            else:
                diagnostics.append(event.encode())
        return durable, diagnostics

    def committed(self, generation: int) -> None:
        """The store has it."""
        if generation != self.committed_generation:
            self.fence, self.committed_generation = self.token, generation
            self.merger.clear()
            if self.observing:
                self.observe_only(self.at_us)  # the scatter of one configuration is asked for, not of two

    def document(self) -> Document:
        """The configuration in force as the workers get it."""
        executor = self.engine.executor
        return Document(
            fleet=self.fleet,
            generation=self.engine.snapshot().generation,
            fence=self.token,
            phase=executor.phase,
            centre=REGISTRY.to_natives(executor.centre),
            live=REGISTRY.to_natives(self.engine.snapshot().params),
            probe_ttl_ms=probe_ttl_ms(self.settings),
            settle_ms=int(self.settings.settle_s * 1000),
            registry=REGISTRY.hash64,
            issued_us=self.at_us,
        )

    def checkpoint(self) -> bytes:
        return json.dumps(
            {
                "version": VERSION,
                "now_us": self.at_us,
                "observing": self.observing,
                "engine": self.engine.checkpoint(),
                "gains": vars(self.gains),
                "references": None if self.references is None else vars(self.references),
                "rehearsal": None if self.rehearsal is None else self.rehearsal.checkpoint(),
                "digest_id": self.digest_id,
                "command_id": self.command_id,
                "answered": self.answered,
                "canary": self.canary.checkpoint(),
            }
        ).encode()

    def _read(self, state: dict[str, Any]) -> None:
        self.gains = Gains(**state["gains"])
        self.references = None if state["references"] is None else References(**state["references"])
        self.engine = AdaptiveEngine.restore(engine_config(self.settings, self.gains), state["engine"], REGISTRY)
        self.canary = Canary(self.settings, self._model, self.engine.executor, state.get("canary", {}))
        self.digest_id, self.command_id = state["digest_id"], state["command_id"]
        self.answered: list[str] = state["answered"]
        self.observing: bool = state["observing"]
        self.rehearsal: Rehearsal | None = None
        if self.observing:
            self.rehearsal = self._rehearse(self.at_us)
            if state["rehearsal"] is not None:
                self.rehearsal.restore(state["rehearsal"])

    def _rehearse(self, now_us: int) -> Rehearsal:
        config = engine_config(self.settings, first_gains(self.settings))
        return Rehearsal(config, self.engine.executor.centre, REGISTRY, now_us)

    def _written_inputs(self) -> tuple[bytes, ...]:
        """One event before those that it led to."""
        if not self.inputs:
            return ()
        details = json.dumps({"inputs": self.inputs}, sort_keys=True)
        self.inputs = []
        run_id, generation = self.engine.executor.run_id, self.committed_generation
        event = AuditEvent(
            self.at_us,
            EventType.INPUTS,
            generation,
            details,
            run_id=run_id,
            base_generation=generation,
            objective=self.engine.executor.ruler,
        )
        return (event.encode(),)

    def _note_answers(self, names: list[str]) -> list[str]:
        """Remembers what was answered; the oldest go, here and in the store."""
        self.answered += names
        surplus = len(self.answered) - ANSWERED_MAX
        forgotten, self.answered = self.answered[: max(0, surplus)], self.answered[max(0, surplus) :]
        return forgotten

    def _name(self, events: list[AuditEvent], changed: bool) -> tuple[str, str]:
        """The kind of a write, and its id: a proposal's own, else one that is never given again."""
        executor = self.engine.executor
        applied = [event for event in events if event.event_type is EventType.APPLY]
        if changed and applied and applied[-1].proposal_id:
            kind = json.loads(applied[-1].details)["kind"]
            return {"ApplyPlus": "plus", "ApplyMinus": "minus"}.get(kind, "update"), applied[-1].proposal_id
        kinds = {event.event_type for event in events}
        if changed:
            kind = "rollback" if EventType.ROLLBACK in kinds else "abort" if EventType.ABORT in kinds else "pin"
        else:
            kind = "safe" if any(event.event_class is EventClass.SAFE for event in events) else "note"
        return kind, f"{executor.run_id}:{kind}:{self.token}:{executor.audit_queue.next_seq}"


def _fresh(
    settings: HotpathSettings, natives: dict[str, float], leadership: Leadership, loaded: Loaded
) -> dict[str, Any]:
    """The first leader of a fleet, or one that begins anew: observes, and changes nothing."""
    gains = first_gains(settings)
    engine = AdaptiveEngine(
        engine_config(settings, gains), REGISTRY.to_vec(natives), REGISTRY, f"run-{leadership.token}"
    )
    engine.executor.continue_from(ConfigSnapshot(engine.snapshot().params, loaded.generation))
    known = json.loads(loaded.checkpoint) if loaded.checkpoint else {}
    return {
        "now_us": known.get("now_us", 0),
        "observing": True,
        "engine": engine.checkpoint(),
        "gains": vars(gains),
        "references": None,
        "rehearsal": None,
        "digest_id": known.get("digest_id", START),
        "command_id": known.get("command_id", START),  # what was ordered of old is not done again
        "answered": known.get("answered", []),
        "canary": _without_trial(known.get("canary", {})),
    }


def _without_trial(canary: dict[str, Any]) -> dict[str, Any]:
    """Beginning anew ends a trial: the fleet's numbers go back to what they were beside it."""
    if not canary.get("trial"):
        return canary
    return canary | {"trial": None, "knobs": [], "wants": canary["values"], "former": None}


def _us(seconds: float) -> int:
    return int(seconds * 1e6)

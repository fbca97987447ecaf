"""Makes every decision of the archive again, from what was decided on, and compares it with what was written down.

    inputs --> the same term --> events          each of them byte for byte

A term begins with all that its leader knew, so each can be made again by itself; where one follows another, it must
begin where that one ended.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scheduler.errors import SchedulerError
from scheduler.hotpath import EventType
from state_store.hotpath.lease import Leadership
from state_store.hotpath.store import Loaded
from worker.hotpath.archive import records
from worker.hotpath.decisions import Input, take
from worker.hotpath.model_knobs import Model
from worker.hotpath.term import Term
from worker.settings import HotpathSettings


@dataclass
class Replayed:
    """What was made again; `difference` is the first that is not as it was written down."""

    terms: int = 0
    inputs: int = 0
    events: int = 0
    proposals: int = 0
    before_the_first_term: int = 0  # events of versions that did not write down what they decided on
    difference: dict[str, Any] | None = None

    @property
    def agrees(self) -> bool:
        return self.difference is None


def replay(directory: Path) -> Replayed:
    """Goes through the archive in its order, and stops at the first difference."""
    again = _Again()
    for entry_id, written in records(directory):
        again.take(entry_id, written)
        if not again.found.agrees:
            return again.found
    again.end("the end of the archive")
    return again.found


@dataclass
class _Again:
    found: Replayed = field(default_factory=Replayed)
    _term: Term | None = None
    _due: list[bytes] = field(default_factory=list)  # what the term says must come next

    def take(self, entry_id: str, written: bytes) -> None:
        event = json.loads(written)
        if event["event_type"] == EventType.INPUTS.value:
            self.end(entry_id)
            if self.found.agrees:
                self._decide(entry_id, event["details"]["inputs"])
        elif self._term is None:
            self.found.before_the_first_term += 1
        elif not self._due:
            self._differ(entry_id, None, written)
        else:
            self._compare(entry_id, self._due.pop(0), written, event)

    def end(self, entry_id: str) -> None:
        """Nothing more comes of the inputs so far."""
        if self._due and self.found.agrees:
            self._differ(entry_id, self._due[0], None)

    def _decide(self, entry_id: str, inputs: list[dict[str, Any]]) -> None:
        try:
            for given in inputs:
                self._take_input(entry_id, Input(**given))
        except (SchedulerError, KeyError, TypeError, ValueError, AssertionError) as error:
            self._differ(entry_id, repr(error).encode(), None)
            return
        if self._term is None or not self.found.agrees:
            return
        durable, _ = self._term.events()
        self._due = [event.encode() for event in durable]
        self._term.committed(self._term.engine.snapshot().generation)

    def _take_input(self, entry_id: str, given: Input) -> None:
        if given.kind == "began":
            self._begin(entry_id, given)
        if self._term is None:
            return
        self.found.inputs += 1
        if given.kind == "order":
            self._term.command_id = entry_id
        take(self._term, given)

    def _begin(self, entry_id: str, given: Input) -> None:
        what, last = given.what, self._term
        if last is not None and what["checkpoint"] is not None and not what["fresh"]:
            ended, begins = _state(json.loads(last.checkpoint())), _state(what["checkpoint"])
            if ended != begins:
                return self._differ(entry_id, json.dumps(ended).encode(), json.dumps(begins).encode())
        checkpoint = what["checkpoint"]
        loaded = Loaded(
            generation=what["generation"],
            fence=what["fence"],
            checkpoint=b"" if checkpoint is None else json.dumps(checkpoint).encode(),
            audit_length=what["audit_length"],
        )
        settings, model = HotpathSettings(**what["settings"]), Model(**what["model"])
        leadership = Leadership(what["token"], "", given.now_us)
        self._term = Term(
            settings, what["fleet"], what["natives"], model, leadership, loaded, lambda: 0.0, what["fresh"]
        )
        self.found.terms += 1

    def _compare(self, entry_id: str, made: bytes, written: bytes, event: dict[str, Any]) -> None:
        if made != written:
            return self._differ(entry_id, made, written)
        self.found.events += 1
        self.found.proposals += event["event_type"] == EventType.PROPOSAL.value

    def _differ(self, entry_id: str, made: bytes | None, written: bytes | None) -> None:
        texts = [None if text is None else text.decode(errors="replace") for text in (made, written)]
        self.found.difference = {"id": entry_id, "made_again": texts[0], "written_down": texts[1]}


def _state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What decides how it goes on; the moment of the write and what was read so far do not."""
    engine = checkpoint["engine"]
    executor = {name: value for name, value in engine["executor"].items() if name != "now_us"}
    kept = ("observing", "gains", "references", "rehearsal", "canary")
    return {"engine": {**engine, "executor": executor}} | {name: checkpoint.get(name) for name in kept}


def facts_of(found: Replayed) -> dict[str, Any]:
    return {"agrees": found.agrees, **asdict(found)}

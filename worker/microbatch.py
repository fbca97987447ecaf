"""What one micro-batch takes in and what it writes: pure values between the stages of the pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from predictor_core import RejectReason
from scheduler.batching import BatchLimits
from state_store import Commit, Rejected, Ticks
from worker.device import Answer, Work
from worker.generations import Generation, Numbers, Side
from worker.holding import Holding
from worker.hotpath.knobs import Knobs
from worker.tracing import Moments

NOTHING = np.empty(0, np.int64)
ALL = slice(None)
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One partition's share of a micro-batch."""

    holding: Holding
    ticks: Ticks
    refused: dict[int, str]  # index -> reason, known before the graph
    computed: np.ndarray | slice  # indices of the other ticks
    slots: np.ndarray  # the row of each of those
    written: np.ndarray = field(default_factory=lambda: NOTHING)  # codes of the assets whose states go with its commit
    reflected: bytes | None = None  # the tick that all stored states then reflect; None: the same as before

    def places(self) -> list[int]:
        """Of the ticks that have a part in the graph."""
        return np.arange(len(self.ticks))[self.computed].tolist()


@dataclass(frozen=True)
class MicroBatch:
    parts: list[Part]
    work: Work
    knobs: Knobs  # in force when it was formed
    generation: Generation  # whose numbers it is computed with
    formed_s: float
    moments: Moments | None = None  # noted only while traces are wanted


def others(count: int, refused: dict[int, str]) -> np.ndarray | slice:
    if not refused:
        return ALL
    keep = np.ones(count, bool)
    keep[list(refused)] = False
    return np.flatnonzero(keep)


def work_of(parts: list[Part], depth: int, numbers: list[Numbers], numbers_of: np.ndarray | None = None) -> Work:
    counts = [len(part.slots) for part in parts]
    return Work(
        slots=np.concatenate([part.slots for part in parts]),
        values=np.concatenate([part.ticks.values[part.computed] for part in parts]),
        times_ns=np.concatenate([part.ticks.times_ns[part.computed] for part in parts]),
        arrivals_ns=np.concatenate([part.ticks.arrivals_ns[part.computed] for part in parts]),
        bounds=[0, *np.cumsum(counts).tolist()],
        depth=depth,
        numbers=numbers,
        numbers_of=numbers_of,
        written=[part.holding.slots[part.written] for part in parts],
    )


def numbers_for(parts: list[Part], generation: Generation) -> tuple[list[Numbers], np.ndarray | None]:
    """What the ticks of the parts are taken with; by tick only where some have numbers of their own."""
    if not generation.groups and generation.canary is None:
        return [generation.everyone], None
    taken_with = [
        numbers for part in parts for numbers in _numbers_of(part, generation.side_of(part.holding.partition))
    ]
    by_mark = {numbers.made_by: numbers for numbers in taken_with}
    if len(by_mark) < 2:
        return list(by_mark.values()) or [generation.everyone], None
    places = {mark: place for place, mark in enumerate(by_mark)}
    return list(by_mark.values()), np.array([places[numbers.made_by] for numbers in taken_with], np.int32)


def _numbers_of(part: Part, side: Side) -> list[Numbers]:
    if not side.groups:
        return [side.everyone] * len(part.slots)
    return [side.numbers_of(part.ticks.assets[i]) for i in part.places()]


def commits_of(part: Part, share: slice, answer: Answer, index: int, limits: BatchLimits) -> Iterator[Commit]:
    """All that one partition writes: predictions and dead letters of some ticks, and states when they are due.

    States that find no room beside them follow in commits of their own.
    """
    ticks, holding = part.ticks, part.holding
    codes, payloads = answer.results["rejected"][share], answer.payloads[share]
    refused = _refused(part, codes)
    served = others(len(ticks), refused)
    names, records = holding.names(part.written), answer.records[index]
    reflected = part.reflected or holding.state_cursor
    room = max(0, limits.bytes_max - len(ticks) * limits.tick_bytes) // records.shape[1]
    yield Commit(
        before=holding.cursor,
        after=ticks.ids[-1],
        ids=_picked(ticks.ids, served),
        assets=_picked(ticks.assets, served),
        times_ns=ticks.times_ns[served],
        payloads=payloads[codes == 0] if refused else payloads,
        state_assets=names[:room],
        state_records=records[:room],
        request_ids=ticks.request_ids and _picked(ticks.request_ids, served),
        rejected=[Rejected(ticks.ids[i], ticks.assets[i], why, ticks.payload(i)) for i, why in sorted(refused.items())],
        applied=ticks.count,
        state_cursor=reflected if len(names) <= room else holding.state_cursor,
    )
    if len(names) > room:
        yield from commits_of_states(holding, ticks.ids[-1], reflected, names[room:], records[room:], limits)


def _refused(part: Part, codes: np.ndarray) -> dict[int, str]:
    """Before the graph, and by it."""
    if not codes.any():
        return part.refused
    places = part.places()
    return part.refused | {places[i]: RejectReason(int(codes[i])).name.lower() for i in np.flatnonzero(codes).tolist()}


def _picked(column: list[T], places: np.ndarray | slice) -> list[T]:
    return column[places] if isinstance(places, slice) else [column[i] for i in places.tolist()]


def commits_of_states(
    holding: Holding, cursor: bytes, reflected: bytes, names: list[bytes], records: np.ndarray, limits: BatchLimits
) -> Iterator[Commit]:
    """The states alone; the last of them says that all stored ones reflect the tick `reflected`.

    Who takes over in between finds some rows ahead of the state cursor, for which ticks are late and change nothing.
    """
    most = max(1, limits.bytes_max // records.shape[1])
    for start in range(0, max(1, len(names)), most):  # without a name too: all ticks may have been refused
        yield Commit(
            before=cursor,
            after=cursor,
            ids=[],
            assets=[],
            times_ns=np.empty(0, np.int64),
            payloads=np.empty(0, "V1"),
            state_assets=names[start : start + most],
            state_records=records[start : start + most],
            rejected=[],
            applied=0,
            state_cursor=reflected if start + most >= len(names) else holding.state_cursor,
        )

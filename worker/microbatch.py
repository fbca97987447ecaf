"""What one micro-batch takes in and what it writes: pure values between the stages of the pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

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


@dataclass(frozen=True)
class Part:
    """One partition's share of a micro-batch."""

    holding: Holding
    ticks: Ticks
    refused: dict[int, str]  # index -> reason, known before the graph
    computed: np.ndarray  # indices of the other ticks
    slots: np.ndarray  # the row of each of those
    writes: bool  # whether the states catch up with this commit
    written: np.ndarray  # codes of the assets whose states go with it


@dataclass(frozen=True)
class MicroBatch:
    parts: list[Part]
    work: Work
    knobs: Knobs  # in force when it was formed
    generation: Generation  # whose numbers it is computed with
    formed_s: float
    moments: Moments | None = None  # noted only while traces are wanted


def others(count: int, refused: dict[int, str]) -> np.ndarray:
    if not refused:
        return np.arange(count)
    keep = np.ones(count, bool)
    keep[list(refused)] = False
    return np.flatnonzero(keep)


def work_of(parts: list[Part], depth: int, numbers: list[Numbers], numbers_of: np.ndarray | None = None) -> Work:
    counts = [len(part.computed) for part in parts]
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
        return [side.everyone] * len(part.computed)
    return [side.numbers_of(part.ticks.assets[i]) for i in part.computed.tolist()]


def commits_of(part: Part, share: slice, answer: Answer, index: int, limits: BatchLimits) -> Iterator[Commit]:
    """All that one partition writes: predictions and dead letters of some ticks, and states when they are due.

    States that find no room beside them follow in commits of their own.
    """
    ticks, holding = part.ticks, part.holding
    codes = answer.results["rejected"][share]
    accepted = np.zeros(len(ticks), bool)
    accepted[part.computed] = codes == 0
    rejected = np.flatnonzero(codes)
    refused = part.refused | {int(part.computed[i]): RejectReason(int(codes[i])).name.lower() for i in rejected}
    names, records = holding.names(part.written), answer.records[index]
    room = max(0, limits.bytes_max - len(ticks) * limits.tick_bytes) // records.shape[1]
    yield Commit(
        before=holding.cursor,
        after=ticks.ids[-1],
        ids=list(compress(ticks.ids, accepted)),
        assets=list(compress(ticks.assets, accepted)),
        times_ns=ticks.times_ns[accepted],
        payloads=answer.payloads[share][codes == 0],
        state_assets=names[:room],
        state_records=records[:room],
        request_ids=ticks.request_ids and list(compress(ticks.request_ids, accepted)),
        rejected=[Rejected(ticks.ids[i], ticks.assets[i], why, ticks.payload(i)) for i, why in sorted(refused.items())],
        applied=ticks.count,
        state_cursor=ticks.ids[-1] if part.writes and len(names) <= room else holding.state_cursor,
    )
    if len(names) > room:
        yield from commits_of_states(holding, ticks.ids[-1], ticks.ids[-1], names[room:], records[room:], limits)


def commits_of_states(
    holding: Holding, cursor: bytes, reflected: bytes, names: list[bytes], records: np.ndarray, limits: BatchLimits
) -> Iterator[Commit]:
    """The states alone, as they are after the tick `reflected`; the last of them says that all of them are.

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

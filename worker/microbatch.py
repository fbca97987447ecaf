"""What one micro-batch takes in and what it writes: pure values between the stages of the pipeline."""

from dataclasses import dataclass
from itertools import compress

import numpy as np

from predictor_core import RejectReason
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
    moments: Moments | None = None  # noted only while traces are wanted


def others(count: int, refused: dict[int, str]) -> np.ndarray:
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


def commit_of(part: Part, share: slice, answer: Answer, index: int) -> Commit:
    """All that one partition writes: predictions and dead letters of some ticks, and states when they are due."""
    ticks, holding = part.ticks, part.holding
    codes = answer.results["rejected"][share]
    accepted = np.zeros(len(ticks), bool)
    accepted[part.computed] = codes == 0
    rejected = np.flatnonzero(codes)
    refused = part.refused | {int(part.computed[i]): RejectReason(int(codes[i])).name.lower() for i in rejected}
    return Commit(
        before=holding.cursor,
        after=ticks.ids[-1],
        ids=list(compress(ticks.ids, accepted)),
        assets=list(compress(ticks.assets, accepted)),
        times_ns=ticks.times_ns[accepted],
        payloads=answer.payloads[share][codes == 0],
        state_assets=holding.names(part.written),
        state_records=answer.records[index],
        request_ids=ticks.request_ids and list(compress(ticks.request_ids, accepted)),
        rejected=[Rejected(ticks.ids[i], ticks.assets[i], why, ticks.payload(i)) for i, why in sorted(refused.items())],
        applied=len(ticks),
        state_cursor=ticks.ids[-1] if part.writes else holding.state_cursor,
    )


def commit_of_states(holding: Holding, codes: np.ndarray, records: np.ndarray) -> Commit:
    """The states alone: they catch up with the cursor, which stays where it is."""
    return Commit(
        before=holding.cursor,
        after=holding.cursor,
        ids=[],
        assets=[],
        times_ns=np.empty(0, np.int64),
        payloads=np.empty(0, "V1"),
        state_assets=holding.names(codes),
        state_records=records,
        rejected=[],
        applied=0,
    )

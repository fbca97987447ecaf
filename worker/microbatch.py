"""What one micro-batch takes in and what it writes: pure values between the stages of the pipeline."""

from dataclasses import dataclass
from itertools import compress

import numpy as np

from predictor_core import RejectReason
from state_store import Commit, Rejected, Ticks
from worker.device import Answer, Work
from worker.holding import Holding


@dataclass(frozen=True)
class Part:
    """One partition's share of a micro-batch."""

    holding: Holding
    ticks: Ticks
    refused: dict[int, str]  # index -> reason, known before the graph
    computed: np.ndarray  # indices of the other ticks
    slots: np.ndarray  # the row of each of those


@dataclass(frozen=True)
class MicroBatch:
    parts: list[Part]
    work: Work


def others(count: int, refused: dict[int, str]) -> np.ndarray:
    keep = np.ones(count, bool)
    keep[list(refused)] = False
    return np.flatnonzero(keep)


def work_of(parts: list[Part], depth: int) -> Work:
    counts = [len(part.computed) for part in parts]
    return Work(
        slots=np.concatenate([part.slots for part in parts]),
        values=np.concatenate([part.ticks.values[part.computed] for part in parts]),
        times_ns=np.concatenate([part.ticks.times_ns[part.computed] for part in parts]),
        arrivals_ns=np.concatenate([part.ticks.arrivals_ns[part.computed] for part in parts]),
        bounds=[0, *np.cumsum(counts).tolist()],
        depth=depth,
    )


def commit_of(part: Part, share: slice, answer: Answer, index: int) -> Commit:
    """All that one partition writes: predictions, states and dead letters of the same ticks."""
    ticks, holding = part.ticks, part.holding
    codes = answer.results["rejected"][share]
    accepted = np.zeros(len(ticks), bool)
    accepted[part.computed] = codes == 0
    rejected = np.flatnonzero(codes)
    refused = part.refused | {int(part.computed[i]): RejectReason(int(codes[i])).name.lower() for i in rejected}
    tick_of = dict(zip(part.slots.tolist(), part.computed.tolist(), strict=True))
    return Commit(
        before=holding.cursor,
        after=ticks.ids[-1],
        ids=list(compress(ticks.ids, accepted)),
        assets=list(compress(ticks.assets, accepted)),
        times_ns=ticks.times_ns[accepted],
        payloads=answer.payloads[share][codes == 0],
        state_assets=[ticks.assets[tick_of[slot]] for slot in answer.slots[index].tolist()],
        state_records=answer.records[index],
        request_ids=ticks.request_ids and list(compress(ticks.request_ids, accepted)),
        rejected=[Rejected(ticks.ids[i], ticks.assets[i], why, ticks.payload(i)) for i, why in sorted(refused.items())],
        applied=len(ticks),
    )

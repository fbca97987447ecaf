"""The knobs that may be turned while a worker runs, and the frozen value in which they reach its pipeline.

    window_ms    how long a micro-batch that is not full waits for more ticks; 0: it does not wait
    ticks_max    most ticks in a micro-batch
    read_ahead   most ticks of a partition read ahead; never less than a micro-batch may take

None of them changes a prediction, and none makes the graph compile: it takes any number of ticks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from scheduler.batching import BatchLimits
from scheduler.hotpath import Knob, KnobRegistry
from worker.settings import WINDOW_MS_MAX, WorkerSettings

GROUP = "transport"
READ_MAX = 4096  # ticks of one read
CRAMPED = 0.001  # of the range: a knob so near to its bound is at it
REGISTRY = KnobRegistry(
    [
        Knob("window_ms", 0.0, WINDOW_MS_MAX, 0.0, unit="ms", group=GROUP, min_probe=1.0),
        Knob("ticks_max", 64, 16_384, 4096, kind="int", scale="log", unit="ticks", group=GROUP),
        Knob("read_ahead", 256, 65_536, 8192, kind="int", scale="log", unit="ticks", group=GROUP),
    ]
)


@dataclass(frozen=True)
class Knobs:
    """What is in force, and the configuration it came from; (0, 0) is what the worker was started with."""

    limits: BatchLimits
    window_s: float = 0.0
    fence: int = 0
    generation: int = 0

    @property
    def pair(self) -> tuple[int, int]:
        return self.fence, self.generation


def at_bound(unit: float) -> bool:
    """Whether a knob can hardly go further on one side."""
    return min(unit, 1 - unit) <= CRAMPED


def turned(base: Knobs, natives: Mapping[str, float], fence: int, generation: int) -> Knobs:
    """The worker's own limits with the knobs as a document says."""
    ticks_max = int(natives["ticks_max"])
    read_ahead = max(int(natives["read_ahead"]), ticks_max)
    limits = replace(base.limits, ticks_max=ticks_max, buffered_max=read_ahead, read_max=min(READ_MAX, read_ahead))
    return Knobs(limits, natives["window_ms"] / 1000, fence, generation)


def natives_of(worker: WorkerSettings) -> dict[str, float]:
    """Where tuning starts: the worker's own settings, as far as the knobs reach."""
    asked = {"window_ms": worker.window_ms, "ticks_max": worker.ticks_max, "read_ahead": worker.read_ahead_max}
    return {knob.name: min(max(asked[knob.name], knob.lo), knob.hi) for knob in REGISTRY.knobs}

"""The calm reference: ticks in the order of a list through the core alone; no Redis, no batches, no luck."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from predictor_core import Program, encode_payloads, payload_fields
from predictor_core.result import RejectReason
from worker.generations import Generations
from worker.lines import prediction_line
from worker.recall import alike, ways_of
from worker.settings import Settings
from worker.ticksfile import TicksFile

TICKS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Answers:
    """What some ticks yielded, in their order: a payload, or why there is none."""

    payloads: np.ndarray  # 'V{n}', meaningless where rejected
    rejected: np.ndarray  # RejectReason


class Replay:
    """States of assets that all began cold."""

    def __init__(self, settings: Settings) -> None:
        self.config = settings.config()
        self.program = Program(self.config, cache_dir=settings.worker.cache_dir)
        self.generations = Generations(self.program)
        self._slots: dict[Any, int] = {}
        self.rows = self.program.cold(0)

    def take(
        self,
        assets: list,
        values: np.ndarray,
        times_ns: np.ndarray,
        arrivals_ns: np.ndarray,
        depths: np.ndarray | None = None,
        marks: Sequence[bytes | None] = (),
    ) -> Answers:
        """Moves the assets' states over some ticks, each at its own depth and with the numbers behind its mark."""
        row_of = np.fromiter(map(self._slot, assets), np.int32, len(assets))
        given = [self.config.log_sig_depth] * len(assets) if depths is None else depths.tolist()
        numbers = map(self.generations.numbers_of, assets, marks or repeat(None))
        ways, way_of = ways_of(given, numbers)
        rejected = np.empty(len(assets), np.int32)
        payloads = np.empty(len(assets), f"V{self.program.payload_bytes}")
        for group in alike(row_of, way_of):
            depth, made_with = ways[way_of[group[0]]]
            columns = row_of[group], values[group], times_ns[group], arrivals_ns[group]
            self.rows, results = self.program.run(self.rows, *columns, depth=depth, params=made_with.params)
            payloads[group] = encode_payloads(results, depth, made_with.made_by)
            rejected[group] = results["rejected"]
        return Answers(payloads, rejected)

    def place(self, asset: Any, row: np.ndarray) -> None:
        """Lets an asset go on from a state instead of the cold one."""
        slot = self._slot(asset)
        self.rows = self.rows.copy()
        self.rows[slot] = row

    def row(self, asset: Any) -> np.ndarray:
        """The state of an asset that was seen."""
        return self.rows[self._slots[asset]]

    def _slot(self, asset: Any) -> int:
        slot = self._slots.setdefault(asset, len(self._slots))
        if slot == len(self.rows):
            self.rows = np.concatenate([self.rows, self.program.cold(max(64, slot))])
        return slot


def replay_file(settings: Settings, file: TicksFile) -> Iterator[dict[str, Any] | RejectReason]:
    """The predictions of a file as lines, in its order; a reason where a tick was rejected."""
    replay = Replay(settings)
    fields = payload_fields(replay.config)
    for start in range(0, len(file), TICKS_AT_ONCE):
        part = slice(start, start + TICKS_AT_ONCE)
        assets = file.assets[part]
        depths = None if file.depths is None else file.depths[part]
        answers = replay.take(assets, file.values[part], file.times_ns[part], file.arrivals_ns[part], depths)
        for asset, payload, rejected in zip(assets, answers.payloads, answers.rejected, strict=True):
            yield RejectReason(rejected) if rejected else prediction_line(payload.tobytes(), fields, asset)

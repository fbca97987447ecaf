"""What predictions tell of how they were made: the depth, and by what build. A replay follows them."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack
import numpy as np

from predictor_core.config import DEPTHS, PRUNED
from worker.generations import Numbers


def depth_of(payload: bytes, otherwise: int) -> int:
    """The depth that a prediction was made at."""
    recorded = _unpacked(payload).get("depth")
    return recorded if recorded in (PRUNED, *DEPTHS) else otherwise


def made_by(payload: bytes) -> bytes | None:
    """The fingerprint of what made a prediction."""
    return _unpacked(payload).get("made_by")


def ways_of(depths: Iterable[int], numbers: Iterable[Numbers]) -> tuple[list[tuple[int, Numbers]], np.ndarray]:
    """How ticks were made, depth and numbers: the ways that occur, and the place of each tick's way among them."""
    made = list(zip(depths, numbers, strict=True))
    by_mark = {(depth, numbers.made_by): (depth, numbers) for depth, numbers in made}
    places = {mark: place for place, mark in enumerate(by_mark)}
    return list(by_mark.values()), np.array([places[depth, numbers.made_by] for depth, numbers in made], np.int64)


def alike(assets: np.ndarray, ways: np.ndarray) -> Iterator[np.ndarray]:
    """Places of ticks that may go together: made in one way, and no asset's ticks out of their order.

    `assets` and `ways` are numbers. How often an asset's way has changed so far is a tick's phase.
    """
    order = np.argsort(assets, kind="stable")
    same = assets[order][1:] == assets[order][:-1]
    changes = np.concatenate([[0], np.cumsum(same & (ways[order][1:] != ways[order][:-1]))])[: len(order)]
    starts = np.flatnonzero(np.concatenate([[True], ~same])[: len(order)])
    phases = np.empty(len(order), np.int64)
    phases[order] = changes - np.repeat(changes[starts], np.diff(np.append(starts, len(order))))
    for phase in range(int(phases.max(initial=-1)) + 1):
        for way in np.unique(ways[phases == phase]):
            yield np.flatnonzero((phases == phase) & (ways == way))


def _unpacked(payload: bytes) -> dict[str, Any]:
    try:
        result = msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException):
        return {}
    return result if isinstance(result, dict) else {}

"""Deals ticks out to lanes and steps: a lot is what one execution of the canonical program takes.

    step 0   | lane 0 .. lane 63 |     block 0: the rows with the most ticks
    step 1   |  .  .  .          |
    step 2   | lane 0 .. lane 63 |     block 1: the next rows; it may need fewer steps
      ...

Rows with more ticks than their neighbours share a block, so that few lanes wait. NumPy throughout: no Python per tick.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lot:
    """One execution: `rows[i]` sits in lane i; tick `ticks[j]` sits at `places[j]` = step * lanes + lane."""

    rows: np.ndarray
    counts: np.ndarray  # ticks of each of these rows
    first_steps: np.ndarray  # of each block, and one past the last step
    ticks: np.ndarray
    places: np.ndarray


# The lot of one tick of one row: by far the most frequent, and always the same.
_FIRST = np.zeros(1, np.int64)
ONE = Lot(_FIRST, np.ones(1, np.int64), np.array([0, 1]), _FIRST, _FIRST)


def lots_of(row_of: np.ndarray, rows: int, lanes: int, blocks: int, steps: int) -> Iterator[Lot]:
    """Covers every tick once, the ticks of one row in order of appearance. `steps` is the number in one execution."""
    counts = np.bincount(row_of, minlength=rows)
    in_order = np.argsort(row_of, kind="stable")
    starts = np.cumsum(counts) - counts
    ranked = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    for at in range(0, len(ranked), lanes * blocks):
        group = ranked[at : at + lanes * blocks]
        next_tick, left = starts[group], counts[group]
        while left[0]:
            live = np.count_nonzero(left)  # the rows of a group are sorted, so these come first
            take = np.minimum(left[:live], steps // -(-live // lanes))
            yield _lot(group[:live], take, next_tick[:live], in_order, lanes)
            next_tick[:live] += take
            left[:live] -= take


def _lot(rows: np.ndarray, take: np.ndarray, next_tick: np.ndarray, in_order: np.ndarray, lanes: int) -> Lot:
    first_steps = np.concatenate([[0], np.cumsum(take[::lanes])])
    lane = np.arange(len(rows))
    first_place = first_steps[lane // lanes] * lanes + lane % lanes
    if take[0] == 1:
        return Lot(rows, take, first_steps, in_order[next_tick], first_place)
    ends = np.cumsum(take)
    within = np.arange(ends[-1]) - np.repeat(ends - take, take)
    ticks = in_order[np.repeat(next_tick, take) + within]
    return Lot(rows, take, first_steps, ticks, np.repeat(first_place, take) + within * lanes)

"""Says which of two sets of numbers is better, when every group of partitions has had the new one in turn.

    rotation      group 0  1  2  3
      round 0           .  .  *  .        one group in each round has the candidate's numbers (*), all others the
      round 1           *  .  .  .        control's; the order is drawn at random, and every group has one turn
      round 2           .  .  .  *
      round 3           .  *  .  .

A cell is the objective of a group in a round. What a round did to all groups and what a group is like in all rounds is
taken away, so cells are compared within their time and with their own group. The p-value is the share of all orders
that might have been drawn which give an effect as good: that holds whatever the noise is like.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.hotpath.random_signs import word

DRAWS = 9999
ORDERS_PER_LEVEL = 10  # so many times more orders than 1 / level, or the level could hardly be reached


@dataclass(frozen=True)
class Effect:
    """How much the candidate changes the objective (less is better), and how likely chance does as well."""

    difference: float
    p: float


def order_of(seed: int, rotation: int, groups: int) -> tuple[int, ...]:
    """Which group has its turn in each round of a rotation; every order is as likely as any other."""
    order = list(range(groups))
    for left in range(groups - 1, 0, -1):
        chosen = word(seed, rotation * groups + left) % (left + 1)
        order[left], order[chosen] = order[chosen], order[left]
    return tuple(order)


def rotations_needed(groups: int, level: float) -> int:
    """How many rotations there must be before chance alone could be told from an effect at this level."""
    return math.ceil(math.log(ORDERS_PER_LEVEL / level) / math.log(math.factorial(groups)))


def effect_of(rotations: Sequence[np.ndarray], orders: Sequence[Sequence[int]], seed: int) -> Effect:
    """Compares the turns with all other cells; `rotations[t][round, group]` are the objectives."""
    count, groups = len(rotations), len(orders[0])
    rounds = np.arange(groups)
    tables = [_centred(table) for table in rotations]
    found = math.fsum(float(table[rounds, list(order)].sum()) for table, order in zip(tables, orders, strict=True))
    raw = np.random.PCG64(seed).random_raw(DRAWS * count * groups)  # these bits are the same in every version
    drawn = np.argsort(raw.reshape(DRAWS, count, groups), axis=2, kind="stable")
    by_chance = np.zeros(DRAWS)
    for number, table in enumerate(tables):
        by_chance += table[rounds, drawn[:, number]].sum(1)
    as_good = int(np.count_nonzero(by_chance <= found + 1e-12))
    return Effect(found / (count * (groups - 1)), (1 + as_good) / (1 + DRAWS))


def _centred(table: np.ndarray) -> np.ndarray:
    return table - table.mean(0) - table.mean(1)[:, None] + table.mean()

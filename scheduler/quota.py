"""Keeps tenants that share a partition from starving each other: so many ticks in each second of arrival.

A tick's second is that in which the server took it, so what is over a quota does not depend on when a worker reads it.
Every tick counts, also one that is refused. A new owner of a partition begins to count with its first tick.
"""

import numpy as np

UNLIMITED = -1


class Meter:
    """Counts the ticks of the tenants of one partition."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}  # tenant -> second, ticks in it so far

    def over(self, tenants: np.ndarray, seconds: np.ndarray, quotas: np.ndarray) -> np.ndarray:
        """Which of these ticks are beyond their tenant's quota. `tenants` index `quotas`, or are UNLIMITED.

        Ticks come in the order of the log, so their seconds do not fall.
        """
        refused = np.zeros(len(tenants), bool)
        for tenant in np.unique(tenants[tenants != UNLIMITED]).tolist():
            at = np.flatnonzero(tenants == tenant)
            own = seconds[at]
            rank = np.arange(len(at)) - np.searchsorted(own, own)  # among those of the same second
            second, before = self._counted.get(tenant, (UNLIMITED, 0))
            rank[own == second] += before
            refused[at] = rank >= quotas[tenant]
            self._counted[tenant] = int(own[-1]), int(rank[-1]) + 1
        return refused

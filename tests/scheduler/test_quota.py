"""A quota is kept in every second of arrival, however the ticks are cut into batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scheduler.quota import UNLIMITED, Meter

QUOTAS = np.array([2, 0, 5])
tick = st.tuples(st.integers(UNLIMITED, 2), st.integers(0, 1))  # tenant, seconds since the tick before


def slow(ticks):
    """One tick at a time."""
    counts, second, refused = {}, 0, []
    for tenant, step in ticks:
        second += step
        counts[tenant, second] = counts.get((tenant, second), 0) + 1
        refused.append(tenant != UNLIMITED and counts[tenant, second] > QUOTAS[tenant])
    return refused


@given(st.lists(tick, max_size=60), st.integers(1, 20))
def test_batches_of_any_size_refuse_what_a_slow_count_refuses(ticks, size):
    tenants = np.array([tenant for tenant, _ in ticks], int)
    seconds = np.cumsum([step for _, step in ticks]).astype(np.int64)
    meter, refused = Meter(), []
    for start in range(0, len(ticks), size):
        share = slice(start, start + size)
        refused += meter.over(tenants[share], seconds[share], QUOTAS).tolist()
    assert refused == slow(ticks)


def test_a_noisy_tenant_leaves_the_others_alone():
    tenants = np.array([0] * 100 + [2] * 5 + [UNLIMITED] * 3)
    refused = Meter().over(tenants, np.zeros(108, int), QUOTAS)
    assert refused.sum() == 98 and not refused[100:].any()

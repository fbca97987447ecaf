"""What a worker knows of one partition: ticks come out in the order they went in, whatever the sizes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from state_store import Lease, Ticks
from worker.holding import DEADLY_ATTEMPTS, Holding

LEASE = Lease(3, 1, b"n", b"0-0", 0, 1, "", 5000, b"0-0")


def ticks(first, count):
    numbers = np.arange(first, first + count)
    return Ticks(
        ids=[b"%d-0" % n for n in numbers],
        assets=[b"asset %d" % (n % 7) for n in numbers],
        values=numbers.astype(np.float64),
        times_ns=numbers,
        arrivals_ns=numbers * 10,
        request_ids=None if first % 2 else [b"r%d" % n for n in numbers],
        malformed={i: "no field y" for i, n in enumerate(numbers) if n % 11 == 0},
        entries=[[b"y", b"%d" % n] for n in numbers],
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=8), st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_ticks_come_out_once_in_order_with_their_own_columns(reads, takes):
    holding, number = Holding(LEASE), 1
    for count in reads:
        holding.push(ticks(number, count))
        number += count
    expected = 1
    for count in takes:
        if not holding.buffered:
            break
        codes, oldest_ns = holding.ready()
        assert oldest_ns == expected * 10
        taken, taken_codes = holding.take(min(count, len(codes)))
        for i, value in enumerate(taken.values):
            assert taken.ids[i] == b"%d-0" % expected == b"%d-0" % value
            assert holding.assets[taken_codes[i]] == taken.assets[i] == b"asset %d" % (expected % 7)
            assert (i in taken.malformed) == (expected % 11 == 0)
            assert taken.entries[i] == [b"y", b"%d" % expected]
            if taken.request_ids is not None:
                assert taken.request_ids[i] in (None, b"r%d" % expected)
            expected += 1
    assert holding.buffered == number - expected


def test_a_partition_whose_workers_die_is_tried_with_fewer_and_fewer_ticks():
    holding = Holding(LEASE)
    sizes = []
    for attempts in range(1, DEADLY_ATTEMPTS):
        holding.attempts = attempts
        sizes.append(holding.ticks_max(4096))
        assert not holding.cornered()
    assert sizes == [4096, 256, 16, 1, 1, 1, 1]
    holding.attempts = DEADLY_ATTEMPTS
    assert holding.cornered()

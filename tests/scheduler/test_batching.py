from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.batching import Backlog, BatchLimits, room, take
from scheduler.errors import BadRules

limits_of_any_size = st.builds(
    BatchLimits,
    partitions_max=st.integers(1, 6),
    ticks_max=st.integers(1, 60),
    rows_max=st.integers(1, 20),
    ticks_per_asset_max=st.integers(1, 6),
    bytes_max=st.integers(20, 300),
    tick_bytes=st.integers(1, 20),
)
waiting = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 10), st.lists(st.integers(0, 12), max_size=40)), max_size=6
).map(
    lambda found: [
        Backlog(p, turn, oldest, np.array(codes, dtype=np.int32) + 100 * p)
        for p, (turn, oldest, codes) in enumerate(found)
    ]
)


def backlog(partition, codes, oldest_ns=0, turn=0):
    return Backlog(partition, turn, oldest_ns, np.asarray(codes))


@given(waiting, limits_of_any_size)
@settings(max_examples=150)
def test_no_cap_is_ever_passed(backlogs, limits):
    counts = take(backlogs, limits)
    batch = {p: backlogs[p].asset_codes[:count].tolist() for p, count in counts.items()}
    assert sum(counts.values()) <= limits.ticks_max and len(counts) <= limits.partitions_max
    assert sum(len(set(codes)) for codes in batch.values()) <= limits.rows_max
    for partition, codes in batch.items():
        assert 0 < counts[partition] <= len(backlogs[partition].asset_codes)
        assert max(Counter(codes).values()) <= limits.ticks_per_asset_max
        assert len(codes) * limits.tick_bytes <= limits.bytes_max


@given(waiting, limits_of_any_size)
@settings(max_examples=150)
def test_whatever_is_left_behind_would_pass_a_cap(backlogs, limits):
    counts = take(backlogs, limits)
    ticks_left = limits.ticks_max - sum(counts.values())
    rows_left = limits.rows_max - sum(len(set(b.asset_codes[: counts.get(b.partition, 0)])) for b in backlogs)
    for b in backlogs:
        count = counts.get(b.partition, 0)
        if count == len(b.asset_codes):
            continue
        codes = b.asset_codes[: count + 1].tolist()
        assert (
            not ticks_left
            or not rows_left
            or len(counts) == limits.partitions_max
            or codes.count(codes[-1]) > limits.ticks_per_asset_max
            or len(codes) * limits.tick_bytes > limits.bytes_max
        )


@given(waiting, limits_of_any_size)
@settings(max_examples=60)
def test_something_is_taken_whenever_a_partition_has_a_tick(backlogs, limits):
    assert bool(take(backlogs, limits)) == any(len(b.asset_codes) for b in backlogs)


@given(waiting, limits_of_any_size)
@settings(max_examples=60)
def test_the_order_in_which_backlogs_are_listed_does_not_matter(backlogs, limits):
    assert take(backlogs, limits) == take(backlogs[::-1], limits)


def test_each_partition_is_offered_an_equal_share_first():
    backlogs = [backlog(0, range(1000)), backlog(1, range(10), 5), backlog(2, range(1000), 9)]
    assert take(backlogs, BatchLimits(ticks_max=90)) == {0: 50, 1: 10, 2: 30}


def test_what_is_left_goes_to_the_oldest():
    backlogs = [backlog(0, range(100), 2), backlog(1, range(100), 1)]
    assert take(backlogs, BatchLimits(ticks_max=1)) == {1: 1}


def test_a_hot_asset_ends_the_prefix_of_its_own_partition_only():
    backlogs = [backlog(0, [7, 7, 8, 7, 9]), backlog(1, [1, 2, 3], 5)]
    assert take(backlogs, BatchLimits(ticks_per_asset_max=2)) == {0: 3, 1: 3}


def test_rows_and_bytes_end_a_prefix_before_the_tick_that_would_pass_them():
    codes = [1, 1, 2, 2, 3, 3]
    assert take([backlog(0, codes)], BatchLimits(rows_max=2)) == {0: 4}
    assert take([backlog(0, codes)], BatchLimits(bytes_max=27, tick_bytes=6)) == {0: 4}


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=20)
def test_nobody_waits_longer_than_a_bounded_number_of_takes(seed, ticks_max, hot_partitions):
    """Hot partitions get more than can be served; one more has a single tick, which is served all the same."""
    rng = np.random.default_rng(seed)
    limits = BatchLimits(ticks_max=ticks_max)
    queues = {p: [(0, code) for code in rng.integers(0, 50, 40)] for p in range(hot_partitions)}
    queues[99] = [(1, 500)]
    last = dict.fromkeys(queues, 0)
    for takes in range(1, 1_000):
        waiting = [backlog(p, [c for _, c in queue], queue[0][0], last[p]) for p, queue in queues.items() if queue]
        for partition, count in take(waiting, limits).items():
            del queues[partition][:count]
            last[partition] = takes
        if not queues[99]:
            break
        for p in range(hot_partitions):
            queues[p] += [(1 + takes, code) for code in rng.integers(0, 50, 8)]
    # At most one turn of each neighbour.
    assert takes <= hot_partitions + 1


def test_every_partition_moves_in_every_take_when_there_is_room_for_all():
    backlogs = [backlog(p, np.arange(10_000), oldest_ns=p) for p in range(8)]
    assert set(take(backlogs, BatchLimits(ticks_max=800, rows_max=800)).values()) == {100}


@given(st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=30)
def test_partitions_come_in_turns_however_old_the_ticks_of_the_others_are(partitions_max, partitions):
    limits, last = BatchLimits(partitions_max=partitions_max), dict.fromkeys(range(partitions), 0)
    rounds = -(-partitions // partitions_max)
    for turn in range(1, 3 * rounds + 1):
        counts = take([backlog(p, [1, 2], 100 - p, last[p]) for p in range(partitions)], limits)
        last |= dict.fromkeys(counts, turn)
        assert all(turn - taken <= rounds for taken in last.values())


def test_room_is_asked_before_reading():
    limits = BatchLimits(buffered_max=100, read_max=30)
    assert [room(buffered, limits) for buffered in (0, 70, 90, 100, 120)] == [30, 30, 10, 0, 0]
    patient = BatchLimits(buffered_max=100, read_max=30, read_below=75)
    assert [room(buffered, patient) for buffered in (0, 70, 74, 75, 90)] == [30, 30, 26, 0, 0]


@pytest.mark.parametrize("wrong", [{"ticks_max": 0}, {"tick_bytes": 0}, {"bytes_max": 10}, {"read_max": 0}])
def test_limits_under_which_nothing_could_move_are_refused(wrong):
    with pytest.raises(BadRules, match=next(iter(wrong))):
        BatchLimits(**wrong)

"""The ready ticks are what any client would send."""

import hiredis
import numpy as np
import pytest

from loadtests.producer import Applied
from loadtests.ticks import ROUNDS, TickBytes, asset_names, digits
from state_store.keys import partition_of


@pytest.mark.parametrize("partitions", [1, 8, 16, 32])
def test_every_asset_belongs_where_it_is_sent_and_all_partitions_get_some(partitions):
    names = asset_names(500, partitions)
    assert len(set(names)) == 500
    assert all(partition_of(name, partitions) == partition for partition, name in names)
    counts = np.bincount([partition for partition, _ in names], minlength=partitions)
    assert counts.min() > 0.4 * 500 / partitions


def test_digits_are_those_of_the_number():
    numbers = np.array([1_700_000_000_123_456_789, 7])
    assert [row.tobytes() for row in digits(numbers)] == [b"1700000000123456789", b"%019d" % 7]


def test_a_command_is_an_xadd_with_its_own_time_and_each_asset_comes_once_a_round():
    ticks = TickBytes(assets=50, partitions=16)
    times = 1_700_000_000_000_000_000 + np.arange(100)
    reader = hiredis.Reader()
    reader.feed(ticks.commands(50 * ROUNDS - 10, times))
    sent = [reader.gets() for _ in range(100)]
    assert all(words[::2] == [b"XADD", b"*", words[4], words[6], words[8]] for words in sent)
    assert [int(words[8]) for words in sent] == times.tolist()
    assert all(words[1] == b"usp:{%d}:ticks" % partition_of(words[4], 16) for words in sent)
    assert len({words[4] for words in sent[10:60]}) == 50


def test_what_was_applied_is_counted_over_all_partitions(tmp_path):
    from redis import Redis

    from state_store import EmbeddedRedis

    with EmbeddedRedis(tmp_path / "redis") as server:
        path = server.url.removeprefix("unix://")
        with Redis(unix_socket_path=path) as redis:
            redis.hset("usp:{1}:control", "applied", 12)
            redis.hset("usp:{3}:control", "applied", 30)
        applied = Applied(path, [["HGET", f"usp:{{{partition}}}:control", "applied"] for partition in range(4)])
        assert applied.count() == 42
        applied.close()

"""What only the double can do: lose a reply at any point, and stand still in time."""

import pytest

from state_store import Lease, Memory, MemoryStateStore, Outcome, StoreFull, StoreUnavailable

P, PARTITIONS = 0, 1


class Faults:
    """Loses the connection at the first call of each given point."""

    def __init__(self, *points: str):
        self.points = list(points)

    async def __call__(self, point: str, partition: int) -> None:
        if point in self.points:
            self.points.remove(point)
            raise StoreUnavailable(f"lost at {point}")


async def begin(commit_of, *points: str):
    memory = Memory(lambda: 1_700_000_000_000)
    faults = Faults()
    store = MemoryStateStore(memory, fault=faults)
    await store.open_fleet(PARTITIONS, bytes(8), {})
    lease = await store.acquire(P, "one", 1000)
    for n in range(3):
        memory.append(P, {b"a": b"x", b"y": b"1", b"t": b"%d" % n})
    commit = commit_of(lease, await store.read(P, lease.cursor, 10, 0))
    faults.points += points
    return memory, store, lease, commit


@pytest.mark.parametrize(
    "points, outcome",
    [
        (["commit.before"], Outcome.CONFLICT),
        (["commit.after"], Outcome.ALREADY),
    ],
)
async def test_a_commit_is_sent_once_wherever_the_connection_was_lost(commit_of, points, outcome):
    memory, store, lease, commit = await begin(commit_of, *points)
    assert await store.commit(lease, commit) is outcome
    assert len(memory.partition(P).predictions.entries) == (3 if outcome is Outcome.ALREADY else 0)


async def test_a_lost_acquisition_is_given_again():
    memory = Memory(lambda: 1_700_000_000_000)
    store = MemoryStateStore(memory, fault=Faults("acquire.after"))
    with pytest.raises(StoreUnavailable):
        await store.acquire(P, "one", 1000)
    lease = await store.acquire(P, "one", 1000)
    assert isinstance(lease, Lease) and (lease.epoch, lease.attempts) == (1, 1)


async def test_a_full_store_writes_nothing(commit_of):
    memory, store, lease, commit = await begin(commit_of)
    memory.full = True
    with pytest.raises(StoreFull):
        await store.commit(lease, commit)
    assert not memory.partition(P).predictions.entries and memory.partition(P).cursor == b"0-0"


async def test_ids_rise_although_the_clock_stands_still():
    memory = Memory(lambda: 5)
    assert [memory.append(P, {b"a": b"x"}) for _ in range(3)] == [b"5-0", b"5-1", b"5-2"]

"""Whoever takes over makes the states again that were not stored, from ticks whose predictions exist already."""

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import PredictorConfig, Program, encode_records
from scheduler.batching import BatchLimits
from scheduler.storing import StoringRules
from state_store import Memory, MemoryStateStore
from state_store.keys import partition_of
from worker.calm import Replay
from worker.device import Device
from worker.generations import Generations
from worker.holding import Holding
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.recall import depth_of
from worker.rows import RowTable
from worker.settings import Settings

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
NEVER = StoringRules(every=1000)
LIMITS = BatchLimits(ticks_max=16, rows_max=64)
NARROW = BatchLimits(ticks_max=2, rows_max=2)
NAMES = [b"asset/%d" % number for number in range(80)]
MANY = [[name for name in NAMES if partition_of(name, 2) == partition][:24] for partition in range(2)]
ASSETS = MANY[1][:7]


@pytest.fixture(scope="module")
def program():
    program = Program(PredictorConfig(), cache_dir=CACHE)
    program.compile((2, 3))
    return program


@pytest.fixture
def memory(program):
    memory = Memory()
    asyncio.run(MemoryStateStore(memory).open_fleet(2, program.layout_fingerprint, {}))
    return memory


@asynccontextmanager
async def working(program, memory, depth, storing=NEVER, rows=1024, limits=LIMITS, partition=1, window_s=0.0):
    """A worker with one partition; it dies at the end, with whatever it has not stored."""
    store = MemoryStateStore(memory)
    device = Device(program, RowTable(program.cold(1)[0], rows), (2, 3))
    await device.compile()
    shedder = SimpleNamespace(depth=depth, observe=lambda *_: None, alert=lambda _: False)
    pipeline = Pipeline(
        store, device, limits, shedder, Metrics(), Generations(program), window_s=window_s, storing=storing
    )
    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as tasks:
            pipeline.start(tasks)
            pipeline.hold(Holding(await store.acquire(partition, f"worker-{depth}", 1)))
            yield pipeline
            raise asyncio.CancelledError
    device.close()
    await asyncio.sleep(0.002)  # the lease of a millisecond is over


def feed(memory, rng, count):
    """Ticks of few assets, in no order."""
    for number in rng.integers(len(ASSETS), size=count).tolist():
        append(memory, 1, ASSETS[number], rng.standard_normal())


def append(memory, partition, asset, value):
    added = memory.partition(partition).ticks.added
    memory.append(partition, {b"a": asset, b"y": b"%r" % value, b"t": b"%d" % (10**18 + added)})


def feed_each(memory, partition, times):
    """So many ticks of each of many assets."""
    for number in range(times * len(MANY[partition])):
        append(memory, partition, MANY[partition][number % len(MANY[partition])], float(number % 5))


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def calm(program, memory):
    """The payloads and rows of one process that took every tick once, each at its recorded depth."""
    ticks = [fields for _, fields in memory.partition(1).ticks.entries]
    depths = [depth_of(fields[b"p"], 0) for _, fields in memory.partition(1).predictions.entries]
    replay = Replay(Settings(worker={"cache_dir": CACHE}))
    arrivals = [int(entry.partition(b"-")[0]) * 10**6 for entry, _ in memory.partition(1).ticks.entries]
    columns = [
        np.array([float(fields[b"y"]) for fields in ticks]),
        np.array([int(fields[b"t"]) for fields in ticks]),
        np.array(arrivals),
    ]
    answers = replay.take([fields[b"a"] for fields in ticks], *columns, np.array(depths, np.int32))
    return answers.payloads.tolist(), replay


def same_as_calm(program, memory):
    """Predictions and stored states are the bytes of one process that took every tick once; gives the payloads."""
    payloads, replay = calm(program, memory)
    assert [fields[b"p"] for _, fields in memory.partition(1).predictions.entries] == payloads
    for asset, record in memory.partition(1).states.items():
        assert record == encode_records(replay.row(asset)[None], program.layout_fingerprint).tobytes()
    return payloads


async def test_a_successor_repeats_what_was_not_stored_at_the_depth_that_was_recorded(program, memory, caplog):
    rng, kept = np.random.default_rng(4), memory.partition(1)
    for depth, asked in ((2, 40), (3, 80), (1, 120)):
        async with working(program, memory, depth):
            feed(memory, rng, 40)
            await memory.wake()
            await until(lambda asked=asked: len(kept.predictions.entries) == asked)
    assert kept.cursor == kept.ticks.last
    assert kept.state_cursor != kept.cursor, "nothing is left to be made again"
    async with working(program, memory, 3) as pipeline:
        await until(lambda: kept.state_cursor == kept.cursor)
        assert pipeline.holdings[1].cursor == kept.cursor
    assert {depth_of(payload, 0) for payload in same_as_calm(program, memory)} == {1, 2, 3}
    assert len(kept.states) == len(ASSETS)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_who_leaves_while_states_are_made_again_stores_what_it_has_and_does_not_go_on(program, memory):
    rng, kept = np.random.default_rng(6), memory.partition(1)
    async with working(program, memory, 3):
        feed(memory, rng, 160)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 160)
    begun, every = kept.state_cursor, [entry for entry, _ in kept.ticks.entries]
    few = replace(LIMITS, rows_max=8)  # so many ticks are made again at once
    async with working(program, memory, 3, limits=few) as pipeline:
        holding = pipeline.holdings[1]
        await until(lambda: holding.read_to != begun)
        await pipeline.let_go(holding)
        assert kept.state_cursor == holding.read_to
    assert kept.cursor == every[-1]
    assert every.index(kept.state_cursor) < 80, "it went on and on"
    async with working(program, memory, 3) as pipeline:
        await until(lambda: kept.state_cursor == kept.cursor)
    same_as_calm(program, memory)


async def test_a_log_that_lost_ticks_which_no_state_reflects_is_not_guessed_at(program, memory, caplog):
    kept = memory.partition(1)
    async with working(program, memory, 3):
        feed(memory, np.random.default_rng(5), 40)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 40)
    assert kept.state_cursor != kept.cursor
    kept.ticks.cut_to(0)
    async with working(program, memory, 3) as pipeline:
        await until(lambda: pipeline.lost)
    (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "are gone from its log" in error.why and "predictor state import" in error.why


async def test_states_are_stored_with_every_nth_commit_and_when_a_partition_is_given_back(program, memory):
    kept = memory.partition(1)
    async with working(program, memory, 3, StoringRules(every=2)) as pipeline:
        feed(memory, np.random.default_rng(6), 100)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 100)
        holding = pipeline.holdings[1]
        await pipeline.let_go(holding)
        assert kept.state_cursor == kept.cursor == kept.ticks.last
        assert not pipeline.device.table.busy.any()


async def test_a_successor_with_a_table_of_its_own_to_keep_stores_what_it_makes_again(program, memory):
    """Both workers' rows together are more than the successor has room for."""
    async with working(program, memory, 3, rows=40, limits=NARROW):
        feed_each(memory, 1, 3)
        await memory.wake()
        await until(lambda: len(memory.partition(1).predictions.entries) == 3 * len(MANY[1]))
    kept = memory.partition(1)
    assert kept.state_cursor != kept.cursor and not kept.states
    async with working(program, memory, 3, rows=40, limits=NARROW, partition=0) as pipeline:
        feed_each(memory, 0, 1)
        await memory.wake()
        await until(lambda: len(memory.partition(0).predictions.entries) == len(MANY[0]))
        assert pipeline.device.table.busy.sum() >= len(MANY[0])
        pipeline.hold(Holding(await pipeline.store.acquire(1, "worker-3", 60_000)))
        await until(lambda: kept.state_cursor == kept.cursor)
        assert set(pipeline.holdings) == {0, 1}
        await pipeline.drain()
    same_as_calm(program, memory)
    assert len(kept.states) == len(MANY[1])


async def test_what_is_made_again_is_stored_before_it_is_more_than_may_be_left_unstored(program, memory):
    kept, stored = memory.partition(1), []
    async with working(program, memory, 3):
        feed(memory, np.random.default_rng(7), 40)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 40)
    few = StoringRules(every=1000, ticks_max=10)
    async with working(program, memory, 3, few, limits=NARROW) as pipeline:
        commit = pipeline.store.commit

        async def noted(lease, given):
            stored.append(given.state_cursor)
            return await commit(lease, given)

        pipeline.store.commit = noted
        await until(lambda: kept.state_cursor == kept.cursor)
    ids = [id for id, _ in kept.ticks.entries]
    assert stored == [ids[at] for at in (9, 19, 29, 39)]


async def test_an_idle_partition_with_ticks_in_hand_stores_its_states_with_them(program, memory):
    """Stored beside them, its states could be taken for those of a later tick."""
    kept, empty = memory.partition(1), []
    async with working(program, memory, 3, window_s=0.01) as pipeline:
        feed(memory, np.random.default_rng(8), 10)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 10)
        pipeline._wanted.clear()  # as while a long micro-batch of others is computed
        feed(memory, np.random.default_rng(9), 10)
        await memory.wake()
        read = pipeline.store.read

        async def noted(*words):
            ticks = await read(*words)
            empty.extend([] if ticks.ids else [pipeline.holdings[1].buffered])
            return ticks

        pipeline.store.read = noted
        await until(lambda: len(empty) > 1)
        assert all(empty) and kept.state_cursor != kept.cursor
        pipeline._wanted.set()
        await until(lambda: kept.state_cursor == kept.ticks.last)


async def test_who_dies_in_the_middle_of_a_sweep_leaves_states_ahead_that_its_successor_leaves_alone(program, memory):
    """Half of the states are stored and reflect more than the others; the cursor is that of the older half."""
    kept = memory.partition(1)
    slowly = StoringRules(every=2, rows_at_once=2)
    async with working(program, memory, 3, slowly, limits=NARROW) as pipeline:
        feed_each(memory, 1, 4)
        ahead, share, stored = pipeline.holdings[1].ahead, pipeline.storing.shares, []

        def shares(parts, ticks, scarce):
            given = share(parts, ticks, scarce) if len(stored) < 9 else {}
            stored.extend(given.values())
            return given

        pipeline.storing.shares = shares
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 4 * len(MANY[1]))
        assert ahead.unstored(0.0).sweeping, "it died between two sweeps"
    assert 0 < len(kept.states) < len(MANY[1]) and kept.state_cursor != kept.cursor
    async with working(program, memory, 3) as pipeline:
        await until(lambda: kept.state_cursor == kept.cursor)
    same_as_calm(program, memory)
    assert len(kept.states) == len(MANY[1])

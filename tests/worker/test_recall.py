"""Whoever takes over makes the states again that were not stored, from ticks whose predictions exist already."""

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import PredictorConfig, Program, encode_records
from scheduler.batching import BatchLimits
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
NEVER = 1000  # commits between two that store states
ASSETS = [name for name in (b"asset/%d" % number for number in range(40)) if partition_of(name, 2) == 1][:7]


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
async def working(program, memory, depth, state_every=NEVER):
    """A worker with partition 1; it dies at the end, with whatever it has not stored."""
    store = MemoryStateStore(memory)
    device = Device(program, RowTable(program.cold(1)[0], 1024), (2, 3))
    await device.compile()
    limits = BatchLimits(ticks_max=16, rows_max=64, row_bytes=program.record_bytes)
    shedder = SimpleNamespace(depth=depth, observe=lambda *_: None)
    pipeline = Pipeline(store, device, limits, shedder, Metrics(), Generations(program), state_every=state_every)
    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as tasks:
            pipeline.start(tasks)
            pipeline.hold(Holding(await store.acquire(1, f"worker-{depth}", 1)))
            yield pipeline
            raise asyncio.CancelledError
    device.close()
    await asyncio.sleep(0.002)  # the lease of a millisecond is over


def feed(memory, rng, count):
    log = memory.partition(1).ticks
    for _ in range(count):
        asset = ASSETS[int(rng.integers(len(ASSETS)))]
        memory.append(1, {b"a": asset, b"y": b"%r" % rng.standard_normal(), b"t": b"%d" % (10**18 + log.added)})


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


async def test_a_successor_repeats_what_was_not_stored_at_the_depth_that_was_recorded(program, memory, caplog):
    rng, kept = np.random.default_rng(4), memory.partition(1)
    for depth, asked in ((2, 40), (3, 80), (2, 120)):
        async with working(program, memory, depth):
            feed(memory, rng, 40)
            await memory.wake()
            await until(lambda asked=asked: len(kept.predictions.entries) == asked)
    assert kept.cursor == kept.ticks.last
    assert kept.state_cursor != kept.cursor, "nothing is left to be made again"
    async with working(program, memory, 3) as pipeline:
        await until(lambda: kept.state_cursor == kept.cursor)
        assert pipeline.holdings[1].cursor == kept.cursor
    payloads, replay = calm(program, memory)
    assert {depth_of(payload, 0) for payload in payloads} == {2, 3}
    assert [fields[b"p"] for _, fields in kept.predictions.entries] == payloads
    for asset, record in kept.states.items():
        assert record == encode_records(replay.row(asset)[None], program.layout_fingerprint).tobytes()
    assert len(kept.states) == len(ASSETS)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


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
    async with working(program, memory, 3, state_every=2) as pipeline:
        feed(memory, np.random.default_rng(6), 100)
        await memory.wake()
        await until(lambda: len(kept.predictions.entries) == 100)
        holding = pipeline.holdings[1]
        await pipeline.let_go(holding)
        assert kept.state_cursor == kept.cursor == kept.ticks.last
        assert not pipeline.device.table.busy.any()

"""Known inputs beside the others: they change nothing, cost no block, and find a machine that counts wrong."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import PredictorConfig
from state_store import WorkerInfo
from worker.device import Device, Work
from worker.errors import WrongBits
from worker.generations import Generations, Numbers
from worker.golden import CASES, Golden
from worker.rows import RowTable
from worker.service import compare

SECOND_NS = 10**9


@pytest.fixture
def golden(program):
    return Golden(program)


@pytest.fixture
def numbers(program):
    return Generations(program).current.everyone


@pytest.fixture
def device(program):
    device = Device(program, RowTable(program.cold(1)[0], 256), (2, 3))
    device.table.rows[:256] = program.cold(256)
    device._compile()
    yield device
    device.close()


def work(slots, numbers, depth=3, seconds=1):
    times_ns = np.full(len(slots), seconds * SECOND_NS)
    values = np.sin(np.arange(len(slots)) + seconds)
    bounds, written = [0, len(slots)], [np.empty(0, np.int64)]
    return Work(np.asarray(slots), values, times_ns, times_ns, bounds, depth, [numbers], None, written)


def test_a_lane_is_spare_unless_the_blocks_are_full(golden):
    assert [golden.spare_lane(rows) for rows in (0, 1, 63, 64, 65, 128)] == [False, True, True, False, True, False]


@pytest.mark.parametrize("rows", [1, 63, 64, 65])
def test_a_known_input_beside_them_leaves_the_others_as_they_are(device, program, numbers, rows):
    asked = work(np.arange(rows), numbers)
    plain_rows, plain = program.run(
        program.cold(rows), np.arange(rows), asked.values, asked.times_ns, asked.arrivals_ns, depth=3
    )
    answer = device._run(asked)
    assert answer.results.tobytes() == plain.tobytes()
    assert device.table.rows[:rows].tobytes() == plain_rows.tobytes()


def test_every_case_comes_round_at_every_depth(device, numbers):
    for batch in range(2 * CASES):
        device._run(work([3, 5, 9], numbers, depth=2 + batch % 2, seconds=1 + batch))


@pytest.mark.parametrize("part", ["row", "result"])
def test_one_wrong_bit_ends_the_micro_batch_without_an_answer(device, numbers, monkeypatch, part):
    device._run(work([1], numbers))
    right = device.program.run_within

    def wrong(table, slots, *columns, **options):
        results = right(table, slots, *columns, **options)
        made = table[device.table.spare] if part == "row" else results[-1:]
        made.view(np.uint8)[-7] ^= 1
        return results

    monkeypatch.setattr(device.program, "run_within", wrong)
    with pytest.raises(WrongBits, match="bytes than before for known input .* at depth 3"):
        device._run(work([1], numbers, seconds=2))


def test_marks_are_equal_on_equal_machines_and_differ_by_depth_and_numbers(golden, program, numbers):
    again = Golden(program)
    params = PredictorConfig(cusum_h=4.5).params()
    other = Numbers(params, program.made_by(params))
    assert golden.mark(3, numbers) == again.mark(3, numbers) != golden.mark(2, numbers)
    assert golden.mark(3, other) != golden.mark(3, numbers)


class Registry:
    """A store of which only the register of workers is asked."""

    def __init__(self, **info):
        self.info = info

    async def workers(self):
        return [WorkerInfo("other", self.info, 10)]


def test_a_machine_that_counts_otherwise_than_a_worker_of_its_build_does_not_join(device, program, numbers):
    pipeline = SimpleNamespace(generations=Generations(program))
    mine = asyncio.run(compare(Registry(), device, pipeline))
    assert mine["build"] == program.fingerprint.hex()
    asyncio.run(compare(Registry(**mine), device, pipeline))
    asyncio.run(compare(Registry(**{**mine, "made_by": "another", "known_inputs": "0"}), device, pipeline))
    with pytest.raises(WrongBits, match="other bytes for the known inputs than other does"):
        asyncio.run(compare(Registry(**{**mine, "known_inputs": "0"}), device, pipeline))

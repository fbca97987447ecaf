"""The simulated loop: no time but the timers', no order but the seed's, and processes that can stop."""

import asyncio
from random import Random

import pytest

from tests.simulation.virtual import Process, Stuck, VirtualLoop


@pytest.fixture
def loop():
    made = VirtualLoop(Random(1))
    yield made
    made.close()


def test_an_hour_of_sleep_takes_no_time(loop):
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == 3600


def test_callbacks_that_are_ready_together_run_in_the_order_of_the_seed():
    def order(seed: int) -> list[int]:
        loop, ran = VirtualLoop(Random(seed)), []
        for number in range(8):
            loop.call_soon(ran.append, number)
        loop.run_until_complete(asyncio.sleep(1))
        loop.close()
        return ran

    assert order(1) == order(1) != order(2)
    assert sorted(order(2)) == list(range(8))


def test_a_paused_process_runs_nothing_and_then_all_it_missed(loop):
    process, ran = Process("worker"), []

    async def work() -> None:
        while True:
            await asyncio.sleep(1)
            ran.append(loop.time())

    task = loop.spawn(work(), process)
    loop.call_later(2.5, setattr, process, "paused", True)
    loop.call_later(10.5, loop.wake, process)
    loop.run_until_complete(asyncio.sleep(12.2))
    assert ran == [1, 2, 10.5, 11.5]
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    assert not loop.tasks


def test_a_wait_for_nothing_is_reported_and_not_waited_for(loop):
    waiting = loop.create_future()
    with pytest.raises(Stuck, match="for ever"):
        loop.run_until_complete(waiting)

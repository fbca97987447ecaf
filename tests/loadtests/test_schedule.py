"""An open loop: no tick waits for those before it, and a stall is charged to every tick that it held up."""

import numpy as np

from loadtests.schedule import AT_ONCE_MAX, Phase, Schedule, follow

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Clock:
    def __init__(self):
        self.now_ns = START - SECOND // 2

    def read(self):
        return self.now_ns

    def wait(self, seconds):
        assert seconds > 0
        self.now_ns += int(seconds * 1e9)


class Sender:
    """Takes ticks; once it stalls."""

    def __init__(self, clock, stall_at=None, stall_ns=0):
        self.clock, self.stall_at, self.stall_ns = clock, stall_at, stall_ns
        self.scheduled, self.sent = [], []

    def send(self, first, times_ns):
        assert first == len(self.scheduled)
        assert len(times_ns) <= AT_ONCE_MAX
        if self.stall_at is not None and first <= self.stall_at < first + len(times_ns):
            self.clock.now_ns += self.stall_ns
        self.scheduled += times_ns.tolist()
        self.sent += [self.clock.now_ns] * len(times_ns)

    def latencies_ms(self):
        return (np.array(self.sent) - np.array(self.scheduled)) / 1e6


def test_ticks_are_due_from_the_start_on_and_never_more_than_there_are():
    schedule = Schedule(START, [Phase(1000.0, 0.05)])
    assert [schedule.due(START + ms * 1_000_000) for ms in (-1, 0, 1, 49, 5000)] == [0, 1, 2, 50, 50]


def test_no_tick_is_sent_before_its_time():
    clock = Clock()
    sender = Sender(clock)
    follow(Schedule(START, [Phase(777.0, 2000.5 / 777)]), clock.read, clock.wait, sender.send)
    assert len(sender.scheduled) == 2000
    assert sender.latencies_ms().min() >= 0
    assert sender.latencies_ms().max() <= 3


def test_no_tick_is_due_a_nanosecond_before_its_time():
    for rate in (777.0, 999.9, 1_234.5, 16_000.0, 33_333.3):
        schedule = Schedule(START, [Phase(rate, 5.0)])
        assert (schedule.times_ns - START >= np.arange(schedule.count) * (SECOND / rate)).all(), rate
        assert all(schedule.due(time_ns - 1) == number for number, time_ns in enumerate(schedule.times_ns)), rate


def test_event_times_rise_with_every_tick():
    times = Schedule(START, [Phase(1_234_567.0, 1.0)]).times_ns
    assert (np.diff(times) > 0).all()


def test_a_stall_is_charged_to_every_tick_that_was_due_in_it():
    clock = Clock()
    sender = Sender(clock, stall_at=1000, stall_ns=SECOND)
    latest_ns = follow(Schedule(START, [Phase(1000.0, 5.0)]), clock.read, clock.wait, sender.send)
    late = sender.latencies_ms()
    assert len(late) == 5000
    # A closed loop would have seen one slow tick; a second at 1000 ticks/s held up a thousand.
    assert 990 <= np.count_nonzero(late > 3) <= 1010
    assert abs(np.sort(late)[-500] - 500) < 10
    assert latest_ns >= 0.99 * SECOND


def test_ticks_go_out_together_even_if_others_come_due_while_they_are_sent():
    clock = Clock()
    times_sent = []

    def send(first, times_ns):
        times_sent.append(clock.now_ns)
        clock.now_ns += 300_000  # six ticks come due meanwhile

    follow(Schedule(START, [Phase(20_000.0, 1.0)]), clock.read, clock.wait, send)
    assert min(np.diff(times_sent)) >= 2_000_000
    assert len(times_sent) >= 400  # but none waits for long: the linger and the sending, not more


def test_phases_follow_each_other_without_a_gap():
    schedule = Schedule(START, [Phase(10.0, 1.0), Phase(1000.0, 0.02), Phase(10.0, 0.5)])
    assert schedule.count == 35
    times_ms = (schedule.times_ns - START) // 1_000_000
    assert times_ms.tolist() == [*range(0, 1000, 100), *range(1000, 1020), *range(1020, 1520, 100)]
    for number, time_ms in enumerate(times_ms.tolist()):
        assert schedule.due(START + time_ms * 1_000_000) == number + 1
        assert schedule.due(START + time_ms * 1_000_000 - 1) == number

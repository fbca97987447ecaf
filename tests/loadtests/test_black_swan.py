"""What is made of a black swan's predictions, on runs that are known, and one real run."""

import json

import numpy as np
import pytest

from loadtests import black_swan, report
from loadtests.rig import Played
from loadtests.schedule import Phase, Schedule

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
PHASES = [Phase(10.0, 1.0), Phase(50.0, 1.0), Phase(200.0, 1.0), Phase(10.0, 3.0)]
SCHEDULE = Schedule(START, PHASES)
TIMES = SCHEDULE.times_ns


def played(latency_ms, depths):
    return Played(START, len(TIMES), 0.0, TIMES, TIMES + (latency_ms * 1e6).astype(np.int64), depths.astype(np.uint8))


def in_phase(number):
    first = sum(phase.ticks for phase in PHASES[:number])
    return slice(first, first + PHASES[number].ticks)


def test_a_run_that_keeps_up_has_no_backlog_and_never_leaves_full_depth():
    found = black_swan.judged(SCHEDULE, played(np.full(len(TIMES), 1.0), np.full(len(TIMES), 5)))
    assert found["ladder"] == [5]
    assert found["backlog_max"] <= 1
    assert (found["caught_up_s"], found["full_depth_again_s"], found["below_full_depth_s"]) == (0, 0, 0)
    assert not found["alert_due"]


def test_the_ladder_is_told_in_turn_with_how_long_it_took_to_come_back():
    depths = np.full(len(TIMES), 5)
    depths[in_phase(1)], depths[in_phase(2)] = 3, 2
    depths[in_phase(3)][:5], depths[in_phase(3)][5:10] = 1, 3
    found = black_swan.judged(SCHEDULE, played(np.full(len(TIMES), 1.0), depths))
    assert found["ladder"] == [5, 3, 2, 1, 3, 5]
    assert found["full_depth_again_s"] == pytest.approx(0.9, abs=0.01)
    assert found["below_full_depth_s"] == pytest.approx(2.9, abs=0.03)


def test_a_backlog_is_all_that_is_due_and_not_read():
    latency_ms = np.full(len(TIMES), 1.0)
    crisis = in_phase(2)
    latency_ms[crisis] = (TIMES[crisis.stop - 1] - TIMES[crisis]) / 1e6 + 1500  # all of it 1.5 s after its end
    found = black_swan.judged(SCHEDULE, played(latency_ms, np.full(len(TIMES), 5)))
    assert 0.95 <= found["backlog_max_over_crisis"] <= 1.1
    assert found["caught_up_s"] == 0.0  # what was due in the calm came in time
    latency_ms[in_phase(3)][:5] = 2000
    assert black_swan.judged(SCHEDULE, played(latency_ms, np.full(len(TIMES), 5)))["caught_up_s"] > 2


def test_an_alert_is_due_after_a_minute_below_full_depth():
    phases = [Phase(10.0, 1.0), Phase(10.0, 1.0), Phase(10.0, 70.0), Phase(10.0, 1.0)]
    schedule = Schedule(START, phases)
    times = schedule.times_ns
    depths = np.full(len(times), 5)
    depths[20:700] = 2
    run = Played(START, len(times), 0.0, times, times + 1, depths.astype(np.uint8))
    assert black_swan.judged(schedule, run)["alert_due"]
    depths[400] = 5
    run = Played(START, len(times), 0.0, times, times + 1, depths.astype(np.uint8))
    assert not black_swan.judged(schedule, run)["alert_due"]


def test_a_real_worker_comes_through_without_losing_a_tick(tmp_path):
    code = black_swan.main(["--quick", "--assets", "200", "--results", str(tmp_path)])
    figures = json.loads((tmp_path / "black_swan.json").read_text())
    assert figures["missing"] == 0
    assert code == bool(black_swan.faults(figures))  # which depths it took depends on who else works here
    assert set(figures["ladder"]) <= {1, 2, 3, 5}
    assert [phase["gap_ms"] for phase in figures["phases"]] == [100, 20, 5, 100]
    assert all(0 < phase["latency_ms"]["p50"] <= phase["latency_ms"]["p99"] for phase in figures["phases"])
    assert (tmp_path / "black_swan.svg").read_text().startswith("<svg")
    assert "black_swan.svg" in report.write(tmp_path).read_text()


def test_lost_ticks_a_depth_given_up_early_and_one_that_does_not_come_back_are_faults():
    calm = {"depths": {"5": 1.0}}
    assert black_swan.faults({"missing": 0, "ladder": [5, 2, 5], "phases": [calm]}) == []
    wrong = {"missing": 3, "ladder": [5, 2], "phases": [{"depths": {"2": 0.5, "5": 0.5}}]}
    assert len(black_swan.faults(wrong)) == 3

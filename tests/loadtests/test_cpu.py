"""The kernel's account of who used the cores."""

import os
import time

import pytest

from loadtests.cpu import machine_in, of_machine, of_process

TOLD = """cpu  1000 20 300 40000 50 6 7 800 900 10
cpu0 500 10 150 20000 25 3 3 400 450 5
"""


def test_what_ran_here_and_what_the_host_gave_away_are_told_apart():
    hertz = os.sysconf("SC_CLK_TCK")
    assert machine_in(TOLD) == pytest.approx({"machine": 1333 / hertz, "stolen": 800 / hertz})


def test_a_busy_process_is_seen_in_its_own_account_and_in_the_machine_s():
    own, machine, clock = of_process(os.getpid()), sum(of_machine().values()), time.process_time()
    while time.process_time() < clock + 0.5:
        pass
    spent = time.process_time() - clock
    assert of_process(os.getpid()) - own == pytest.approx(spent, abs=0.05)
    assert sum(of_machine().values()) - machine >= 0.8 * spent  # a process is charged for what the host took from it

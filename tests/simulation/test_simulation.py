"""Whatever happens to a fleet, its ticks get their predictions: once, in order, and the same bytes."""

import asyncio
import os
from dataclasses import replace

import pytest

from scheduler.batching import BatchLimits
from state_store import Commit, Lease, Outcome, Retention, Ticks
from tests.simulation.__main__ import replay_command
from tests.simulation.history import Cast, History, Plan
from tests.simulation.mutants import MUTANTS
from tests.simulation.network import POINTS, Weather
from tests.simulation.server import WatchedStore

# About forty a second; the long run has SIMULATED_HISTORIES=10000.
HISTORIES = int(os.environ.get("SIMULATED_HISTORIES", "1000"))
LOTS = 4


def play(seed: int, **parts) -> History:
    history = History(seed, **parts)
    try:
        history.run()
    except Exception as error:
        pytest.fail(f"seed {seed}: {error!r}\nreplay it: {replay_command(seed)}")
    return history


@pytest.mark.parametrize("lot", range(LOTS))
def test_every_history_ends_with_the_bytes_of_a_calm_process(lot):
    for seed in range(1 + lot, 1 + HISTORIES, LOTS):
        play(seed)


def calm_and_short(plan: Plan) -> Plan:
    """One worker, one partition, a dozen ticks, and nothing happens."""
    return replace(
        plan, lease_ms=1000, span_s=1.0, partitions=1, workers=1, ticks=12, events=(), weather=Weather(),
        limits=BatchLimits(ticks_max=4), rows_kept=64, retention=Retention(),
    )  # fmt: skip


def test_a_fleet_survives_that_any_one_call_fails():
    calls = play(1, change=calm_and_short).plan.weather.calls
    assert calls > 50
    for number in range(1, calls + 1):
        play(1, change=lambda plan, n=number: replace(calm_and_short(plan), weather=Weather(fail_at=n)))


@pytest.mark.parametrize("act", ["kill", "pause", "zombie", "drain"])
@pytest.mark.parametrize("point", POINTS)
def test_a_fleet_survives_that_a_worker_dies_stops_or_is_told_to_end_at_any_point(point, act):
    for seed in range(1, 4):
        history = play(seed, change=lambda plan: doomed(plan, f"{act} at {point}"))
        assert not history.dooms, "nobody came there"


def doomed(plan: Plan, doom: str) -> Plan:
    """A second worker joins the first, and one of the two is drained, so that they come to every point."""
    return replace(
        calm_and_short(plan), partitions=2, span_s=2.0, events=("join", "drain"), dooms=(doom,)
    )  # fmt: skip


class NotesReads(WatchedStore):
    """Remembers how long after one read of ticks that brought some the next one began; its commits take a while."""

    commit_s: float
    gaps_ms: list[int]
    ended_ms: dict[int, int]

    async def read(self, partition: int, after: bytes, count: int, block_ms: int) -> Ticks:
        if (ended_ms := self.ended_ms.pop(partition, None)) is not None:
            self.gaps_ms.append(self.memory.clock_ms() - ended_ms)
        ticks = await WatchedStore.read(self, partition, after, count, block_ms)
        if ticks.ids:
            self.ended_ms[partition] = self.memory.clock_ms()
        return ticks

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        await asyncio.sleep(self.commit_s)
        return await WatchedStore.commit(self, lease, commit)


def gaps_ms(rest_s: float, commit_s: float) -> list[int]:
    noting = type("Noting", (NotesReads,), {"gaps_ms": [], "ended_ms": {}, "commit_s": commit_s})
    many = {"rest_s": rest_s, "ticks": 40, "limits": BatchLimits()}
    for seed in range(1, 4):
        play(seed, cast=Cast(store=noting), change=lambda plan: replace(calm_and_short(plan), **many))
        noting.ended_ms.clear()
    return noting.gaps_ms


def test_a_partition_that_gave_all_its_ticks_rests_as_long_as_two_micro_batches_take_but_not_too_long():
    assert min(gaps_ms(rest_s=0.0, commit_s=0.03)) < 20
    assert 60 <= min(gaps_ms(rest_s=0.5, commit_s=0.03)) < 120
    assert 100 <= min(gaps_ms(rest_s=0.1, commit_s=0.3)) < 130


def test_a_seed_is_one_exact_history(capsys):
    told = []
    for _ in range(2):
        History(7, trace=True).run()
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and len(told[0]) > 1000


def test_a_drain_gives_every_lease_back():
    for seed in range(1, 4):
        history = play(seed, change=calm_and_short)
        assert [kept.nonce for kept in history.server.memory.partitions.values()] == [b""]


def test_a_tick_that_ends_its_worker_is_found_and_only_that():
    for seed in range(1, 6):
        play(seed, change=lambda plan: replace(calm_and_short(plan), events=("deadly tick",), workers_max=200))


def test_workers_that_die_of_something_else_blame_no_tick():
    for seed in range(1, 6):
        play(seed, change=lambda plan: replace(calm_and_short(plan), ticks=0, events=("deaths",), workers_max=50))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fleet_with_one_protection_less_is_found_out(name):
    mutant = MUTANTS[name]
    assert any(fails(mutant.history(seed)) and not fails(mutant.without_it(seed)) for seed in seeds(mutant))


def seeds(mutant) -> range:
    return range(1, 1 + mutant.seeds_max)


def fails(history: History) -> bool:
    try:
        history.run()
    except Exception:
        return True
    return False

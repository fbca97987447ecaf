"""One asset followed through its partition's log, and what is made of it; the log is written by hand."""

import asyncio
import json
import math
import re
from pathlib import Path

import msgpack
import pytest

from predictor_core import Event, OperatingMode
from state_store.glances import Glances
from state_store.logs import Looking
from worker.console.asset import POINTS_MAX, Form, Point, Trail
from worker.console.fleet import Fleet, Past
from worker.console.follow import ALONG_MAX, PAST_MAX, PAUSE_S, SKIM_S, Follower
from worker.metrics import SECONDS, Metrics
from worker.pace import WINDOW_S, Pace, account, together
from worker.watch import PartitionView, WorkerView

FIELDS = {"quantile_levels": [0.05, 0.5, 0.95], "telemetry": ["kurtosis", "holder_exponent", "weights_a", "weights_b"]}
PAGE = Path(__file__).parents[2] / "worker" / "console" / "page"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A fleet of one partition in which ticks and their predictions are written."""

    def __init__(self, looking: Looking) -> None:
        self.looking, self.number = looking, 0

    async def add(self, asset: str, value: float = 1.0, payload: bytes | None = None) -> None:
        self.number += 1
        entry_id = f"{self.number}-0"
        made = payload or prediction(self.number, value)
        latest = msgpack.packb([entry_id, 0])[:-1] + made
        await self.looking.ask("XADD", "usp:{0}:ticks", entry_id, "a", asset, "y", str(value), "t", str(self.number))
        await self.looking.ask("XADD", "usp:{0}:predictions", entry_id, "a", asset, "t", str(self.number), "p", made)
        await self.looking.ask("HSET", "usp:{0}:latest", asset, latest)


def prediction(number: int, value: float) -> bytes:
    made = {
        "timestamp_ns": number * 1_000_000,
        "reference_prediction": value,
        "confidence_lower": value - 0.5,
        "confidence_upper": value + 0.5,
        "quantiles": [value - 0.5, value, value + 0.5],
        "operating_mode": 0,
        "events": 0,
        "depth": 3,
        "telemetry": [3.0, 0.4, 0.75, 0.25],
    }
    return msgpack.packb(made)


@pytest.fixture
def clock():
    return Clock()


def followed(server, run):
    """A test's own part, with a clean log and a follower of `a`."""

    async def whole() -> None:
        async with Looking(server.url) as looking:
            await looking.ask("FLUSHALL")
            await run(Log(looking), lambda now: Follower(Glances(looking, "usp", 1), Form(FIELDS), "a", now))

    asyncio.run(whole())


def test_the_past_is_read_once_and_then_every_tick_as_it_comes(server, clock):
    async def run(log, follower_of):
        for number in range(300):
            await log.add("a" if number % 2 else "b", number % 3)
        follower = follower_of(clock)
        assert await follower.advance() and follower.known
        assert len(follower.trail.points) == PAST_MAX
        assert [point.follows for point in follower.trail.points] == [False] + [True] * (PAST_MAX - 1)
        assert not await follower.advance()
        await log.add("a", 8.0)
        await log.add("b", 9.0)
        await log.add("a", 8.5)
        await log.add("a", 9.5)
        assert await follower.advance()
        last = list(follower.trail.points)[-3:]
        assert [point.value for point in last] == [8.0, 8.5, 9.5]
        assert (last[0].roughness, last[0].weights, last[0].fan) == (pytest.approx(0.4), (0.75, 0.25), (7.5, 8.0, 8.5))
        judged, covered = follower.trail.judged, follower.trail.covered
        assert judged == PAST_MAX + 2
        assert covered == sum(
            before.lower <= point.value <= before.upper
            for before, point in zip(list(follower.trail.points), list(follower.trail.points)[1:], strict=False)
        )

    followed(server, run)


def test_an_asset_without_a_prediction_is_waited_for(server, clock):
    async def run(log, follower_of):
        follower = follower_of(clock)
        assert not await follower.advance() and not follower.known
        await log.add("a", 2.0)
        assert await follower.advance() and follower.trail.points[-1].value == 2.0

    followed(server, run)


def test_in_a_partition_too_busy_only_the_newest_is_taken_and_nothing_is_judged_across_the_gap(server, clock):
    async def run(log, follower_of):
        await log.add("a", 1.0)
        follower = follower_of(clock)
        await follower.advance()
        for number in range(ALONG_MAX + 1):
            await log.add("a" if number % 50 == 0 else "b", 5.0)
        await follower.advance()
        assert follower.skims and follower.trail.count == 2
        assert not follower.trail.points[-1].follows and follower.trail.judged == 0
        clock.now += SKIM_S + 1
        await log.add("a", 5.2)
        await log.add("a", 5.3)
        await follower.advance()
        assert not follower.skims and follower.trail.judged == 1

    followed(server, run)


def test_a_server_that_lost_its_end_is_followed_anew(server, clock):
    async def run(log, follower_of):
        for _ in range(10):
            await log.add("a")
        follower = follower_of(clock)
        await follower.advance()
        before = follower.trail
        await log.looking.ask("FLUSHALL")
        log.number = 3
        await log.add("a", 7.0)
        await follower.advance()
        await follower.advance()
        assert follower.trail is not before and [point.value for point in follower.trail.points] == [7.0]

    followed(server, run)


def test_a_prediction_that_cannot_be_read_is_said_and_not_asked_for_all_the_time(server, clock):
    async def run(log, follower_of):
        await log.add("a", payload=msgpack.packb({"what": 1}))
        follower = follower_of(clock)
        assert await follower.advance() and "cannot be decoded" in follower.fault
        await log.add("a", 3.0)
        assert not await follower.advance()
        clock.now += PAUSE_S + 1
        await log.looking.ask("XDEL", "usp:{0}:predictions", "1-0")
        assert await follower.advance() and not follower.fault

    followed(server, run)


def test_a_trail_is_bounded_and_numbers_its_points():
    trail = Trail()
    for number in range(POINTS_MAX + 60):
        trail.add(Point(f"{number}-0", 0.0, 1.0, 1.0, 0.0, 2.0, (), 0, 0, 3, 0.5, (), number > 0))
    assert len(trail.points) == POINTS_MAX
    assert [point.id for point in trail.since(trail.count - 2)] == [f"{trail.count - 2}-0", f"{trail.count - 1}-0"]
    assert trail.since(trail.count) == [] and len(trail.since(0)) == POINTS_MAX


def view(partition: int, owner: str) -> PartitionView:
    return PartitionView(partition, owner, "0-0", 0, 0.0, 1.0, 10, 0, 1.0, "")


def test_a_lease_that_lapses_before_it_is_taken_is_one_move():
    past = Past()
    for moment, owners in enumerate((["a", "a"], ["", "a"], ["b", "a"], ["b", ""])):
        past.note(Fleet(moment, [view(p, owner) for p, owner in enumerate(owners)], []))
    assert [tuple(move) for move in past.moves] == [(2, 0, "a", "b")]


def test_a_fleet_is_told_by_places_of_its_workers():
    workers = [WorkerView("a", (1,), 0, 1.0, 0.1), WorkerView("b", (0,), 0, 1.0, 5.0)]
    told = Fleet(1, [view(0, "b"), view(1, "a"), view(2, "")], workers).told()
    assert [row[0] for row in told["partitions"]] == [1, 0, -1]
    assert [worker["gone"] for worker in told["workers"]] == [False, True]
    assert told["totals"]["owned"] == 2


def test_a_worker_s_pace_is_the_difference_over_a_window():
    metrics, pace = Metrics(), Pace()
    for second in range(20):
        for _ in range(10):
            metrics.batch_ticks.observe(4)
            metrics.tick_latency_seconds.observe(0.003 if second < 10 else 0.03)
        strides = pace.note(float(second), json.loads(json.dumps(account(metrics))))
    assert strides.batches == 10 * WINDOW_S and strides.batch_ticks == 4
    assert 20 < strides.latency_ms["p50"] <= 50
    assert together([strides, strides]).ticks == 2 * strides.ticks
    anew = pace.note(30.0, account(Metrics()))
    assert anew.batches == 0 and anew.batch_ticks is None and math.isnan(anew.latency_ms["p99"])


@pytest.mark.parametrize("told", [{}, {"batches": "x"}, {"batches": 1, "ticks": 1, "latency": [1, 2]}])
def test_a_worker_of_another_build_has_no_pace(told):
    assert Pace().note(0.0, told).batches == 0
    assert together([Pace().note(0.0, told)]).latency_ms.keys() == {"p50", "p95", "p99"}


def test_a_heartbeat_stays_small():
    metrics = Metrics()
    for number in range(100_000, 101_000):
        metrics.batch_ticks.observe(number)
    assert len(json.dumps(account(metrics))) < 200 and len(account(metrics)["latency"]) == len(SECONDS) + 1


def test_the_page_names_every_event_and_mode():
    words = (PAGE / "words.js").read_text()
    named = re.findall(r'^  \["(\w+)", "', words, re.M)
    assert named == [event.name for event in Event]
    modes = re.search(r"MODES = \[(.*)\]", words)[1].replace('"', "").split(", ")
    assert modes == [OperatingMode.to_string(mode) for mode in OperatingMode]


def test_the_page_parses_no_markup_and_names_no_foreign_address():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style=", text), file

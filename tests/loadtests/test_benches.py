"""Every bench runs from end to end at a tiny size and says what it promises."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtests import assets_bench, capacity_bench, graph_bench, pipeline_bench, report, results, soak, stages
from loadtests.arena import Shape as ArenaShape
from loadtests.rig import IDENTITY, Rig, RunFailed, Shape, Snapshot, _account
from predictor_core import PredictorConfig
from scheduler.storing import StoringRules
from state_store import server
from worker.cli import app

TINY = {"runs": 1, "warm_s": 0.1, "seconds": 1.0, "assets": 128, "partitions": 4}
PARTIES = {"graph", "worker", "server", "producer", "reader"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def graph(folder):
    figures = graph_bench.measure(graph_bench.Plan(assets=(1, 100), depths=(3,), runs=1, seconds=0.01))
    results.save("graph", figures, folder)
    return figures


@pytest.fixture(scope="module")
def pipeline(folder):
    plan = pipeline_bench.Plan(shares=(0.2,), variants=("identity", "distant", "encoded"), **TINY)
    tiny = {name: replace(shape, waiting=2000) for name, shape in pipeline_bench.VARIANTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_bench, "VARIANTS", tiny)
        figures = pipeline_bench.measure(plan)
    results.save("pipeline", figures, folder)
    return figures


def test_graph_gives_throughput_and_cost_beside_the_naive_loop(graph):
    assert [row["assets"] for row in graph["rows"]] == [1, 100]
    for row in graph["rows"]:
        assert row["ticks_per_second"] == pytest.approx(1e6 / row["us_per_tick"])
        assert row["naive_us_per_tick"] > 0 and row["cpu_us_per_tick"] > 0
    assert graph["bytes_per_record"] > graph["bytes_per_row"] > 1000


def test_pipeline_gives_throughput_cost_of_everyone_and_latency_without_losing_a_tick(pipeline):
    assert set(pipeline["full_load"]) == {"identity", "distant", "encoded"}
    for run in pipeline["full_load"].values():
        assert run["ticks_per_second"] > 0
        assert set(run["cpu_us_per_tick"]) == PARTIES
    assert pipeline["full_load"]["identity"]["cpu_us_per_tick"]["graph"] < 1
    (row,) = pipeline["latency"]
    assert row["cpu_us_per_tick"]["graph"] > 1
    assert row["missing"] == pipeline["unloaded"]["missing"] == 0
    tails = list(row["latency_ms"].values())
    assert 0 < tails[0] and tails == sorted(tails)


def test_a_fleet_can_be_measured_over_the_oldest_server_too(monkeypatch):
    packaged = server._packaged()
    if packaged is None:
        pytest.skip("the package that brings Redis 6.2 exists only for Python below 3.13")
    monkeypatch.setenv("PATH", str(Path(packaged).parent), prepend=os.pathsep)
    assert results.about()["machine"]["redis"] == "6.2"
    with Rig(Shape(IDENTITY, assets=128, partitions=4, waiting=2000)) as rig:
        assert rig.redis.info("server")["redis_version"].startswith("6.2")
        full, loaded = rig.saturate(0.1, 0.3), rig.load(500.0, 0.1, 1.0)
        moment = rig.saturate(0.0, 0.0)
        with pytest.raises(RunFailed, match="no tick is due in 0.6 s at 1.3 ticks/s"):
            rig.load(1.3, 0.1, 0.5)
    assert moment["ticks_per_second"] > 0  # however short: it lasts until something is committed
    assert full["ticks_per_second"] > 0 and full["waiting_at_end"] > 0
    assert loaded["missing"] == 0 and loaded["ticks"] > 0


def test_a_window_in_which_nothing_was_committed_has_no_cost_of_a_tick():
    still = Snapshot(clock=0.0, ticks=7, cpu={"worker": 1.0, "machine": 1.0, "stolen": 0.0}, server={})
    with pytest.raises(RunFailed, match="nothing was committed in the 1.5 s"):
        _account(still, replace(still, clock=1.5))
    assert _account(still, replace(still, clock=2.0, ticks=11))["ticks_per_second"] == 2.0


def test_latencies_of_several_runs_become_medians_but_a_lost_tick_stays_lost():
    def row(p99, missing=0, **more):
        return {"latency_ms": {"p99": p99}, "missing": missing, **more}

    merged = pipeline_bench.merged([row(10.0), row(40.0, 1), row(90.0)])
    assert merged == row(40.0, 1)
    beside = pipeline_bench.merged([row(1.0, alone=row(2.0, 1)), row(3.0, alone=row(4.0, 2))])
    assert beside["alone"] == row(3.0, 3)
    rows = [row(half, share=0.5, alone=row(alone)) for alone, half in ((1.0, 10.0), (2.0, 40.0), (10.0, 90.0))]
    rows.append(row(9.0, share=0.1, alone=row(1.0)))
    assert pipeline_bench.latency_ratios(rows) == {"p99: half load / one tick at a time": 10.0}  # of neighbours


@pytest.fixture(scope="module")
def capacity(folder):
    """Worked out from runs that are known: 10 us a tick and 400 a commit, of each party."""
    runs = {"small commits": 40, "large commits": 200, "1 worker, 8 partitions": 200, "2 workers": 100}
    rates = {"1 worker, 8 partitions": 41_000.0, "2 workers": 45_000.0}
    left = {"asset": 7000.0, "kept_tick": 50.0, "kept_prediction": 750.0}
    figures = {
        **results.about(),
        **capacity_bench.worked_out({k: [_run(n, rates.get(k, 1.0))] for k, n in runs.items()}, left),
    }
    results.save("capacity", figures, folder)
    return figures


@pytest.fixture(scope="module")
def assets(folder):
    plan = assets_bench.Plan((128,), runs=1, warm_s=0.1, seconds=0.3, partitions=4, fresh_memory=True)
    tiny = {name: replace(shape, waiting=2000) for name, shape in assets_bench.variants(plan).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets_bench, "variants", lambda plan: tiny)
        figures = assets_bench.measure(plan)
    results.save("assets", figures, folder)
    return figures


@pytest.fixture(scope="module")
def soaked(folder):
    shape = ArenaShape(partitions=2, workers=2, assets=40, rate=400.0, kept=soak.KEPT)
    figures = soak.measure(soak.Plan(minutes=0.1, fault_every_s=2.5, warm_share=0.1, shape=shape))
    results.save("soak", figures, folder)
    return figures


def _run(ticks_per_commit, rate):
    us = 10 + 400 / ticks_per_commit
    return {
        "ticks_per_second": rate,
        "cpu_us_per_tick": {"graph": us, "worker": us, "server": us, "producer": 0.5, "reader": 1.5},
        "server_per_tick": {"commits": 1 / ticks_per_commit, "in_bytes": 1e3, "out_bytes": 8e2, "file_bytes": 1e3},
        "cores_busy_with_others": 0.0,
    }


def test_capacity_finds_the_prices_and_foretells_runs_that_it_did_not_learn_from(capacity):
    for price in capacity["model"]["prices"].values():
        assert (price["each_tick"], price["each_commit"]) == pytest.approx((10, 400))
    one, two = capacity["checks"].values()
    assert one["foretold"] == pytest.approx(1e6 / 24) and one["bound"] == "workers"
    assert two["foretold"] == pytest.approx(min(2 * 1e6 / 28, 1e6 / 14, 1e6 * len(os.sched_getaffinity(0)) / 44))
    assert one["error"] == pytest.approx(1e6 / 24 / 41_000 - 1)
    assert capacity_bench.faults({"checks": {"far": {"error": -0.2}, "near": {"error": 0.1}}}) == ["far: -20% off"]
    assert len(capacity["needs"]) == len(capacity_bench.RATES) * len(capacity_bench.ASSETS)


def test_assets_tells_cost_and_memory_for_each_number_of_them(assets):
    (run,) = assets["runs"].values()
    assert run["assets"] == 128 and run["worker_bytes"] > 1e8 and run["redis_bytes"] > 1e6
    assert run["server_per_tick"]["commits"] < 1 and run["server_per_tick"]["in_bytes"] > 300
    left = run["bytes_left"]
    assert left["asset"] > 1000 and 0 < left["kept_tick"] < left["kept_prediction"]


def test_so_many_ticks_come_before_it_is_measured_that_every_state_has_been_stored_once():
    assert assets_bench.SERVED_FIRST >= StoringRules.every / 2


def test_more_assets_than_a_worker_keeps_are_measured_with_room_for_all_too():
    shapes = assets_bench.variants(assets_bench.Plan((1000, 400_000)))
    assert list(shapes) == ["1,000 assets", "400,000 assets", "400,000 assets, room for all"]
    assert dict(shapes["400,000 assets, room for all"].settings)["USP_WORKER__ROWS_KEPT"] == "408192"


def test_a_soak_hurts_the_fleet_looks_at_it_and_judges_every_tick(soaked):
    assert soaked["ticks_judged"] > 100 and sum(soaked["faults"].values()) >= 1
    series = {"worker bytes", "worker files", "worker threads", "redis bytes", *soak.LOGS}
    assert set(soaked["course"]) == series
    assert 0 < soaked["predictions_kept_max"] <= soaked["ticks_judged"]
    assert "ticks judged" in soak.table(soaked)


def test_a_soak_that_grows_or_keeps_too_much_is_a_fault(soaked):
    wrong = {**soaked, "growing": ["worker bytes"], "predictions_kept_max": 10_000.0}
    assert [fault.split()[0] for fault in soak.faults(wrong)] == ["worker", "a"]
    assert soak.faults({**soaked, "growing": []}) == []


def test_the_report_is_one_page_of_all_that_was_measured(folder, graph, pipeline, capacity, assets, soaked):
    page = report.write(folder).read_text()
    for name in ("graph", "pipeline", "capacity", "assets", "soak"):
        assert f"predictor bench {name}" in page
    plots = sorted(path.name for path in folder.glob("*.svg"))
    assert plots and all(plot in page for plot in plots)
    assert all((folder / plot).read_text().startswith("<svg") for plot in plots)


def test_a_file_says_machine_commit_and_date(folder, graph):
    kept = json.loads((folder / "graph.json").read_text())
    assert kept["machine"]["processor"] and kept["machine"]["cores"] >= 1
    assert kept["commit"] and kept["date"].endswith("UTC")


def test_every_stage_of_a_workers_path_is_found_and_timed():
    figures = stages.measure(seconds=1.5, assets=128, partitions=4)
    assert figures["ticks_per_commit"] > 1 and figures["whole_us_per_tick"] > 0
    assert len(figures["stages"]) == len(stages.PATH) + 1
    timed = {name: stage for name, stage in figures["stages"].items() if "collector" not in name}
    assert all(stage["us_per_tick"] > 0 for stage in timed.values()), timed


def test_the_command_measures_prints_and_keeps(tmp_path):
    done = CliRunner().invoke(app, ["bench", "graph", "--quick", "--json", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"]
    assert (tmp_path / "graph.json").exists()


def test_every_config_of_the_full_run_is_a_config():
    plan = graph_bench.full_plan()
    assert plan.depths == (1, 2, 3, 5)
    assert plan.config == PredictorConfig(log_sig_depth=5)

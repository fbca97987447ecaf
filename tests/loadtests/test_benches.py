"""Every bench runs from end to end at a tiny size and says what it promises."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from loadtests import graph_bench, peers, pipeline_bench, report, results
from loadtests.rig import Rig
from predictor_core import PredictorConfig
from worker.cli import app

TINY = {"runs": 1, "warm_s": 0.1, "seconds": 0.3, "assets": 128, "partitions": 4}
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
    plan = pipeline_bench.Plan(shares=(0.2,), variants=("identity", "encoded"), **TINY)
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
    assert set(pipeline["full_load"]) == {"identity", "encoded"}
    for run in pipeline["full_load"].values():
        assert run["ticks_per_second"] > 0
        assert set(run["cpu_us_per_tick"]) == PARTIES
    assert pipeline["full_load"]["identity"]["cpu_us_per_tick"]["graph"] < 1
    (row,) = pipeline["latency"]
    assert row["cpu_us_per_tick"]["graph"] > 1
    assert row["missing"] == pipeline["unloaded"]["missing"] == 0
    tails = list(row["latency_ms"].values())
    assert 0 < tails[0] and tails == sorted(tails)


def test_the_peer_does_the_same_job():
    with Rig(replace(peers.PEERS["one tick at a time"], assets=128, partitions=4, waiting=600)) as rig:
        run = rig.saturate(0.1, 0.3)
    assert run["ticks_per_second"] > 0
    assert run["cpu_us_per_tick"]["worker"] > run["cpu_us_per_tick"]["reader"]


def test_the_report_is_one_page_of_all_that_was_measured(folder, graph, pipeline):
    page = report.write(folder).read_text()
    for name in ("graph", "pipeline"):
        assert f"predictor bench {name}" in page
    plots = sorted(path.name for path in folder.glob("*.svg"))
    assert plots and all(plot in page for plot in plots)
    assert all((folder / plot).read_text().startswith("<svg") for plot in plots)


def test_a_file_says_machine_commit_and_date(folder, graph):
    kept = json.loads((folder / "graph.json").read_text())
    assert kept["machine"]["processor"] and kept["machine"]["cores"] >= 1
    assert kept["commit"] and kept["date"].endswith("UTC")


def test_the_command_measures_prints_and_keeps(tmp_path):
    done = CliRunner().invoke(app, ["bench", "graph", "--quick", "--json", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"]
    assert (tmp_path / "graph.json").exists()


def test_every_config_of_the_full_run_is_a_config():
    plan = graph_bench.full_plan()
    assert plan.depths == (2, 3, 5)
    assert plan.config == PredictorConfig(log_sig_depth=5)

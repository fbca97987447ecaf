"""`predictor bench`: the measurements that the README quotes, made again on this machine.

They live in `loadtests`, which observes the product and is not a part of it: it is looked up when a bench is called.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.commands.options import Json

Results = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Where NAME.json, the plots and report.md are written.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Short runs: shows that it works; quote nothing of it.")]
RESULTS = Path("loadtests/results")

bench = typer.Typer(no_args_is_help=True, help="Measure this machine: the graph, the fleet, others doing the same job.")


@bench.command()
def graph(
    full: Annotated[bool, typer.Option("--full", help="Up to 100,000 assets, and depth 5 too.")] = False,
    quick: Quick = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure the compiled graph alone: ticks per second against the number of assets and the depth.

    Beside it, in turn, the naive way: one jitted step for one asset, called in a loop by the host.
    """
    module = _module("graph_bench")
    plan = module.Plan()
    if full:
        plan = module.full_plan()
    if quick:
        plan = module.Plan(assets=(1, 100), depths=(3,), runs=1, seconds=0.05)
    _measure(module, plan, "graph", results, json)


@bench.command()
def pipeline(
    quick: Quick = False,
    assets: Annotated[int, typer.Option("--assets", min=64, max=1_000_000)] = 2048,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure a fleet on this machine: throughput at full load, latency at shares of it, CPU per tick of everyone.

    Redis, workers, producer and reader are processes of their own. Beside the product, in turn, the same bytes with a
    device that only copies, and with commits that were encoded before the run. Latency is from the moment at which a
    tick was due until its prediction was read. Takes about ten minutes. Linux only: CPU time is read from /proc.
    """
    module = _module("pipeline_bench")
    plan = module.Plan(assets=assets)
    if quick:
        variants = ("product", "identity", "encoded")
        plan = module.Plan(runs=1, warm_s=0.3, seconds=1.0, shares=(0.5,), variants=variants, assets=assets)
    _measure(module, plan, "pipeline", results, json)


@bench.command()
def peers(quick: Quick = False, results: Results = RESULTS, json: Json = False) -> None:
    """Measure the same job done by others: a consumer-group worker that takes one tick at a time."""
    module = _module("peers")
    plan = module.Plan(runs=1, warm_s=0.3, seconds=1.0) if quick else module.Plan()
    _measure(module, plan, "peers", results, json)


@bench.command()
def recovery(
    quick: Quick = False,
    takeovers: Annotated[int, typer.Option("--takeovers", min=1, max=10_000)] = 50,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure how long a fleet stands still: after SIGKILL of a worker, at SIGTERM, after ten seconds without Redis.

    Real processes with the default lease; the calm reference judges every tick. Takes about twelve minutes.
    """
    module = _module("recovery")
    plan = module.Plan(takeovers=3, endings=1, restarts=1, down_s=1.0) if quick else module.Plan(takeovers=takeovers)
    _measure(module, plan, "recovery", results, json)


@bench.command()
def report(results: Results = RESULTS) -> None:
    """Write one page, report.md, and its plots from the figures of the last runs."""
    print(_module("report").write(results))


def _measure(module: Any, plan: Any, name: str, results: Path, json: bool) -> None:
    from worker.exits import notice
    from worker.lines import json_line

    figures = module.measure(plan, notice)
    path = _module("results").save(name, figures, results)
    print(json_line(figures) if json else module.table(figures))
    notice(f"written: {path}")


def _module(name: str) -> Any:
    return importlib.import_module(f"loadtests.{name}")

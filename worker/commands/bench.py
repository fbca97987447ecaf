"""`predictor bench`: the measurements that the README quotes, made again on this machine.

They live in `loadtests`, which observes the product and is not a part of it: it is looked up when a bench is called.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.commands.options import Json
from worker.exits import FAILED

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
    tick was due until its prediction was read. Takes about half an hour. Linux only: CPU time is read from /proc.
    """
    module = _module("pipeline_bench")
    plan = module.Plan(assets=assets)
    if quick:
        variants = ("product", "identity", "encoded")
        plan = module.Plan(runs=1, warm_s=0.3, seconds=1.0, shares=(0.5,), halves=1, variants=variants, assets=assets)
    _measure(module, plan, "pipeline", results, json)


@bench.command()
def assets(
    assets: Annotated[
        list[int] | None, typer.Option("--assets", min=64, max=1_000_000, help="How many; give it twice or more.")
    ] = None,
    fresh_memory: Annotated[
        bool, typer.Option("--fresh-memory", help="Do not fill the machine's memory before each fleet.")
    ] = False,
    quick: Quick = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure what a tick costs, end to end, with few and with very many assets; and the memory that they take.

    By default 1,000, 10,000 and 100,000. More than a worker keeps in memory are measured with and without room for all.
    Memory is filled with a file's pages first, as it is after some hours: a virtual machine pays for what its host has
    to give it.
    """
    module = _module("assets_bench")
    times = {"runs": 1, "warm_s": 0.3, "seconds": 1.0} if quick else {}
    numbers = tuple(assets) if assets else (64, 1000) if quick else module.ASSETS
    plan = module.Plan(numbers, fresh_memory=fresh_memory or quick, **times)
    _measure(module, plan, "assets", results, json)


@bench.command()
def peers(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PEER", help="One of them, by its name in the table.")
    ] = None,
    quick: Quick = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure the same job done by others: a consumer group, task queues, a dataflow, and other models.

    Each takes its turn with us in the same run, and is used as its documentation says. The table tells how many times
    slower it is, and which of our promises it keeps. Needs the extra `peers`.
    """
    module = _module("peers_bench")
    names = tuple(only) if only else tuple(module.PEERS)
    times = {"runs": 1, "warm_s": 0.3, "seconds": 1.0} if quick else {}
    _measure(module, module.Plan(peers=names, **times), "peers", results, json)


@bench.command()
def capacity(quick: Quick = False, results: Results = RESULTS, json: Json = False) -> None:
    """Tell from a few prices what a fleet can take, check it here, and say what a cluster needs for more.

    The prices are CPU for each tick and for each commit, and bytes. One and two workers are foretold and then measured.
    """
    module = _module("capacity_bench")
    plan = module.Plan(runs=1, warm_s=0.3, seconds=1.0) if quick else module.Plan()
    _measure(module, plan, "capacity", results, json)


@bench.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", min=0.5, max=10_080)] = 60.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Run a fleet under constant load and hurt it again and again; nothing may grow, and every tick is judged.

    Exit code 1 when memory, files or threads of the oldest worker, or what Redis keeps, grow by more than 2 % after a
    warm-up. One minute shows that it works; hours are worth quoting.
    """
    module = _module("soak")
    _measure(module, module.Plan(minutes=minutes), "soak", results, json)
    if module.faults(_module("results").load("soak", results)):
        raise typer.Exit(FAILED)


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

    try:
        figures = module.measure(plan, notice)
    except (_module("rig").RunFailed, _module("arena").Failed) as error:
        notice(f"bench {name}: {error}")
        raise typer.Exit(FAILED) from None
    path = _module("results").save(name, figures, results)
    print(json_line(figures) if json else module.table(figures))
    notice(f"written: {path}")


def _module(name: str) -> Any:
    return importlib.import_module(f"loadtests.{name}")

"""`predictor bench report`: one page of all that was measured last, with plots."""

from pathlib import Path
from typing import Any

from loadtests import (
    assets_bench,
    black_swan,
    capacity_bench,
    graph_bench,
    peers_bench,
    pipeline_bench,
    plots,
    recovery,
    soak,
)
from loadtests.results import load

BENCHES = {
    "graph": graph_bench,
    "pipeline": pipeline_bench,
    "assets": assets_bench,
    "capacity": capacity_bench,
    "peers": peers_bench,
    "black_swan": black_swan,
    "recovery": recovery,
    "soak": soak,
}
TITLES = {
    "graph": "The graph alone",
    "pipeline": "A fleet on one machine",
    "assets": "Few assets and very many",
    "capacity": "What a fleet can take",
    "peers": "Others doing the same job",
    "black_swan": "A black swan",
    "recovery": "How long a fleet stands still",
    "soak": "A long time under load, hurt again and again",
}
COMMANDS = {name: f"predictor bench {name}" for name in BENCHES} | {"black_swan": "python -m loadtests.black_swan"}
Plot = tuple[str, str, str]  # file name, title, SVG


def write(folder: Path) -> Path:
    """Writes report.md and the plots beside the figures; returns the page's place."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# What was measured"]
    for name in BENCHES:
        figures = load(name, folder)
        if figures is not None:
            parts += [*_section(name, figures), *_drawn(name, figures, folder)]
    if len(parts) == 1:
        parts.append("Nothing yet: `predictor bench graph`, `pipeline`, `peers` and their like make the figures.")
    page = folder / "report.md"
    page.write_text("\n\n".join(parts) + "\n")
    return page


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    machine = figures["machine"]
    load_before = ", ".join(f"{load:.1f}" for load in figures["load_before"])
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    if "redis" in machine:
        where += f", Redis {machine['redis']}"
    when = f"commit {figures['commit']}, {figures['date']}, load before the run {load_before}"
    table = BENCHES[name].table(figures)
    return [f"## {TITLES[name]}", f"`{COMMANDS[name]}` on {where}; {when}.", f"```\n{table}\n```"]


def _drawn(name: str, figures: dict[str, Any], folder: Path) -> list[str]:
    """The plots of one bench, written and named."""
    links = []
    for stem, title, svg in PLOTS[name](figures):
        (folder / f"{stem}.svg").write_text(svg)
        links.append(f"![{title}]({stem}.svg)")
    return links


def _graph_plots(figures: dict[str, Any]) -> list[Plot]:
    title = "Cost of a tick against the number of assets"
    series: dict[str, list[tuple[float, float]]] = {}
    for row in figures["rows"]:
        series.setdefault(f"depth {row['depth']}", []).append((row["assets"], row["us_per_tick"]))
    series["naive loop"] = [(row["assets"], row["naive_us_per_tick"]) for row in figures["rows"][: _per_depth(figures)]]
    return [("graph_cost", title, plots.lines(title, "assets", "us/tick", series, log_x=True, log_y=True))]


def _per_depth(figures: dict[str, Any]) -> int:
    return len({row["assets"] for row in figures["rows"]})


def _pipeline_plots(figures: dict[str, Any]) -> list[Plot]:
    rows = figures["latency"]
    title = "Latency against load"
    tails = {tail: [(row["rate"], row["latency_ms"][tail]) for row in rows] for tail in ("p50", "p95", "p99", "p99.9")}
    latency = plots.lines(title, "ticks/s, scheduled", "ms", tails, log_y=True)
    fill = {"ticks a commit": [(row["rate"], 1 / row["server_per_tick"]["commits"]) for row in rows]}
    full = figures["full_load"]
    spent = {variant: run["cpu_us_per_tick"] for variant, run in full.items()}
    rates = {variant: {"ticks/s": run["ticks_per_second"]} for variant, run in full.items()}
    alike = ("product", "product, no AOF", "distant")
    workers = {name: rate for name, rate in rates.items() if name.replace(", 2 workers", "") in alike}
    found = [
        ("pipeline_latency", title, latency),
        ("pipeline_fill", "Batch fill", plots.lines("Ticks a commit against load", "ticks/s, scheduled", "", fill)),
        ("pipeline_cost", "CPU per tick", plots.bars("CPU at full load", "us of CPU per tick", spent)),
        ("pipeline_throughput", "Throughput", plots.bars("Throughput at full load", "ticks per second", rates)),
    ]
    if len(workers) > 1:
        scaling = plots.bars("Throughput with one worker and with two", "ticks per second", workers)
        found.append(("pipeline_workers", "Scaling with workers", scaling))
    return found


def _assets_plots(figures: dict[str, Any]) -> list[Plot]:
    title = "Cost of a tick against the number of assets, end to end"
    runs = {run["assets"]: run for run in figures["runs"].values()}.values()  # the last of a number has room for all
    series = {
        party: sorted((run["assets"], run["cpu_us_per_tick"][party]) for run in runs) for party in assets_bench.PARTIES
    }
    return [("assets_cost", title, plots.lines(title, "assets", "us/tick", series, log_x=True))]


def _capacity_plots(figures: dict[str, Any]) -> list[Plot]:
    rows = {}
    for name, check in figures["checks"].items():
        rows |= {f"{name}, {kind}": {"ticks/s": check[kind]} for kind in ("foretold", "measured")}
    return [("capacity_checks", "Foretold and measured", plots.bars("Foretold and measured", "ticks per second", rows))]


def _peers_plots(figures: dict[str, Any]) -> list[Plot]:
    rates = {name: {"ticks/s": run["ticks_per_second"]} for name, run in figures["full_load"].items()}
    title = "The same ticks, the same machine"
    return [("peers_throughput", title, plots.bars(title, "ticks per second", rates))]


def _soak_plots(figures: dict[str, Any]) -> list[Plot]:
    title = "What a worker and Redis hold"
    panels = {name: [(at / 60, value) for at, value in points] for name, points in figures["course"].items()}
    return [("soak", title, plots.stacked(title, "minutes", panels))]


def _black_swan_plots(figures: dict[str, Any]) -> list[Plot]:
    return [("black_swan", "A black swan", black_swan.picture(figures))]


def _none(figures: dict[str, Any]) -> list[Plot]:
    return []


PLOTS = {
    "graph": _graph_plots,
    "pipeline": _pipeline_plots,
    "assets": _assets_plots,
    "capacity": _capacity_plots,
    "peers": _peers_plots,
    "black_swan": _black_swan_plots,
    "recovery": _none,
    "soak": _soak_plots,
}

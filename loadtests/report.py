"""`predictor bench report`: one page of all that was measured last, with plots."""

from pathlib import Path
from typing import Any

from loadtests import graph_bench, peers, pipeline_bench, plots
from loadtests.results import load

BENCHES = {"graph": graph_bench, "pipeline": pipeline_bench, "peers": peers}
TITLES = {
    "graph": "The graph alone",
    "pipeline": "A fleet on one machine",
    "peers": "Others doing the same job",
}


def write(folder: Path) -> Path:
    """Writes report.md and the plots beside the figures; returns the page's place."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# What was measured"]
    for name in BENCHES:
        figures = load(name, folder)
        if figures is not None:
            parts += [*_section(name, figures), *_drawn(name, figures, folder)]
    if len(parts) == 1:
        parts.append("Nothing yet: `predictor bench graph`, `pipeline` and `peers` make the figures.")
    page = folder / "report.md"
    page.write_text("\n\n".join(parts) + "\n")
    return page


def _section(name: str, figures: dict[str, Any]) -> list[str]:
    machine = figures["machine"]
    load_before = ", ".join(f"{load:.1f}" for load in figures["load_before"])
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    when = f"commit {figures['commit']}, {figures['date']}, load before the run {load_before}"
    table = BENCHES[name].table(figures)
    return [f"## {TITLES[name]}", f"`predictor bench {name}` on {where}; {when}.", f"```\n{table}\n```"]


def _drawn(name: str, figures: dict[str, Any], folder: Path) -> list[str]:
    """The plots of one bench, written and named."""
    links = []
    for stem, title, svg in _plots(name, figures):
        (folder / f"{stem}.svg").write_text(svg)
        links.append(f"![{title}]({stem}.svg)")
    return links


def _plots(name: str, figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    return {"graph": _graph_plots, "pipeline": _pipeline_plots, "peers": lambda figures: []}[name](figures)


def _graph_plots(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    title = "Cost of a tick against the number of assets"
    series: dict[str, list[tuple[float, float]]] = {}
    for row in figures["rows"]:
        series.setdefault(f"depth {row['depth']}", []).append((row["assets"], row["us_per_tick"]))
    series["naive loop"] = [(row["assets"], row["naive_us_per_tick"]) for row in figures["rows"][: _per_depth(figures)]]
    return [("graph_cost", title, plots.lines(title, "assets", "us/tick", series, log_x=True, log_y=True))]


def _per_depth(figures: dict[str, Any]) -> int:
    return len({row["assets"] for row in figures["rows"]})


def _pipeline_plots(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = figures["latency"]
    title = "Latency against load"
    tails = {
        tail: [(row["rate"], row["latency_ms"][tail]) for row in rows] for tail in ("p50", "p95", "p99", "p99.9")
    }
    latency = plots.lines(title, "ticks/s, scheduled", "ms", tails, log_y=True)
    full = figures["full_load"]
    spent = {variant: run["cpu_us_per_tick"] for variant, run in full.items()}
    rates = {variant: {"ticks/s": run["ticks_per_second"]} for variant, run in full.items()}
    return [
        ("pipeline_latency", title, latency),
        ("pipeline_cost", "CPU per tick", plots.bars("CPU at full load", "us of CPU per tick", spent)),
        ("pipeline_throughput", "Throughput", plots.bars("Throughput at full load", "ticks per second", rates)),
    ]

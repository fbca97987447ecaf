"""Writes docs/metrics.md from the page that a worker serves at /metrics.

    python docs/make_metrics.py [--check]     --check only says whether the page is current
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric

from predictor_core import DeviceMemory
from worker.devicewatch import watch_devices
from worker.metrics import Metrics

PAGE = Path(__file__).with_name("metrics.md")
OPEN_LABELS = {"partition": "its number", "device": "as JAX calls it"}
GROUPS = {
    "predictor_": "The worker",
    "predictor_device_": "The device, on machines with an accelerator",
    "hotpath_": "The tuner; what only its leader knows is as of its last term in the others",
    "process_": "The process",
}
HEAD = """# Metrics

Made by `python docs/make_metrics.py` from the page that every worker serves at `/metrics`; a test keeps it current.
Labels are bounded: no asset and no text of a tick becomes one. What to watch is in `deploy/prometheus/rules.yml` and
`deploy/grafana`, what to do about it in [runbooks.md](runbooks.md).

A partition's backlog is told by the worker that holds it, so one that nobody holds is missing there:
`max(predictor_partitions) - sum(predictor_held_partitions)` says how many that are.
"""


def page() -> str:
    """The whole page."""
    families = sorted(served(), key=lambda family: family.name)
    parts = [HEAD]
    for prefix, title in GROUPS.items():
        rows = [_row(family) for family in families if _group(family.name) == prefix]
        parts.append(f"## {title}\n\n| metric | kind | labels | what |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def served() -> Iterator[Metric]:
    """Every family, those with open labels too."""
    metrics = Metrics()
    metrics.backlog.labels(0).set(0)
    metrics.oldest_age_seconds.labels(0).set(0)
    metrics.build.info({"version": "", "jaxlib": "", "layout": ""})
    watch_devices(metrics.registry, look=lambda: [DeviceMemory("cuda:0", 0, 1, 0, 1)]).stop()
    return metrics.registry.collect()


def _group(name: str) -> str:
    return max((prefix for prefix in GROUPS if name.startswith(prefix)), key=len)


def _row(family: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    return f"| `{family.name}{suffix}` | {family.type} | {_labels(family)} | {family.documentation.rstrip('.')} |"


def _labels(family: Metric) -> str:
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            if name != "le" and value not in values.setdefault(name, []):
                values[name].append(value)
    return "; ".join(f"`{name}`: {_values(name, known)}" for name, known in values.items())


def _values(name: str, known: list[str]) -> str:
    return OPEN_LABELS.get(name) or ", ".join(f"`{value}`" for value in known if value) or "as installed"


def main() -> int:
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
    if not current:
        print("docs/metrics.md is not current: run `python docs/make_metrics.py`.", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())

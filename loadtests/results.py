"""A measurement as a file: the figures, and what one has to know to believe them."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.statistics import rounded
from state_store import ServerNotFound, find_server
from state_store.server import version_of

FOLDER = Path("loadtests/results")


def about() -> dict[str, Any]:
    """Machine, commit, date, and how busy the machine was before the run."""
    return {
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "redis": redis(),
        },
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_before": list(os.getloadavg()),
    }


def save(name: str, figures: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Writes the figures; a later run of the same bench takes their place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rounded(figures), indent=1) + "\n")
    return path


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def redis() -> str:
    """The version of the server that a bench starts; "none" where there is none: the graph needs no server."""
    try:
        return ".".join(map(str, version_of(find_server())))
    except ServerNotFound:
        return "none"


def commit() -> str:
    """The commit, with a plus where the tree had changes; "unknown" outside a checkout."""
    root = Path(__file__).parents[1]
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changes)

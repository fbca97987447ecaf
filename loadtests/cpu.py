"""CPU seconds of other processes, thread by thread, from /proc: who works, and for whom.

XLA's threads carry names of their own, so a worker's time inside the graph and outside it are told apart from without.
"""

import os
from contextlib import suppress
from pathlib import Path

GRAPH_THREADS = "tf_"  # tf_XLAEigen and the like


def of_threads(pid: int) -> dict[str, float]:
    """CPU seconds so far by the threads' names; threads that have ended are forgotten."""
    spent: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it ended just now
            name = (task / "comm").read_text().strip()
            spent[name] = spent.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return spent


def of_process(pid: int) -> float:
    return sum(of_threads(pid).values())


def of_graph(pid: int) -> float:
    return sum(seconds for name, seconds in of_threads(pid).items() if name.startswith(GRAPH_THREADS))


def of_machine() -> dict[str, float]:
    """Seconds since the start of the machine: what all that runs here used, and what other guests of the host got."""
    return machine_in(Path("/proc/stat").read_text())


def machine_in(told: str) -> dict[str, float]:
    """The same, from what /proc/stat told."""
    words = told.splitlines()[0].split()[1:9]  # what follows, time given to guests of this machine, is in `user` too
    user, nice, system, _, _, irq, soft, stolen = (int(word) / os.sysconf("SC_CLK_TCK") for word in words)
    return {"machine": user + nice + system + irq + soft, "stolen": stolen}

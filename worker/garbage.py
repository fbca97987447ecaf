"""Tells the cyclic garbage collector what kind of process this is.

A worker makes a list or two for each tick and drops them by reference a moment later. At the usual threshold of 700 the
collector walks all of them again and again, and finds nothing: a quarter of a worker's time outside the graph.
"""

import gc

YOUNG_MAX = 50_000  # containers made before the collector looks; a few micro-batches


def spare_the_collector() -> None:
    """What is there now stays for the life of the process; new cycles are still found, only later."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)

"""What a worker's process holds that nobody needs: how the cyclic collector finds it, and when it is thrown away.

A worker makes a list or two for each tick and drops them by reference a moment later. At the usual threshold of 700 the
collector walks all of them again and again, and finds nothing: a quarter of a worker's time outside the graph.
"""

import ctypes
import gc

YOUNG_MAX = 50_000  # containers made before the collector looks; a few micro-batches


def spare_the_collector() -> None:
    """What is there now stays for the life of the process; new cycles are still found, only later."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 100)


def give_back_memory() -> None:
    """What compiling left behind, a quarter of a worker's memory, goes back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def sweep() -> None:
    """After a fault: an exception holds the frames that it came through, in cycles, and these a connection's bytes.

    Our patient collector would come by some minutes and faults later, and the heap be larger by all of that for good.
    """
    if gc.get_threshold()[0] == YOUNG_MAX:  # any other comes by soon, and would look at all that is there
        gc.collect()

"""A lock that a dead process cannot keep: the kernel drops a flock with the process that held it.

The file stays where it is. To remove it would let two processes hold two locks of one name.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock beside `path` while the block runs; BlockingIOError if another process holds it."""
    beside = path.with_name(f".{path.name}.lock")
    beside.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield

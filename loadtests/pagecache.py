"""A machine's memory as it is after some hours: full, mostly of files' pages, which make room for whoever wants some.

A virtual machine gets memory from its host when it touches it, and gives it back a few seconds after it is free. A
gigabyte took the one that we measured on two seconds of CPU, which count as those of the process that touched it. So a
large fleet that starts after a small one pays for memory that the small one did not need, by the tick.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

READ_AT_ONCE = 64 << 20
LEFT_FREE = 1 << 30


@contextmanager
def page_cache(folder: Path) -> Iterator[Callable[[], None]]:
    """Gives a function that fills what is free by then; at the end it is free again."""
    folder.mkdir(exist_ok=True)
    file = folder / "page-cache"
    try:
        yield partial(_fill, file)
    finally:
        file.unlink(missing_ok=True)


def _fill(file: Path) -> None:
    """Reads a file without content that would fill all memory: it takes no room on the disk."""
    buffer = bytearray(READ_AT_ONCE)
    with file.open("a+b", buffering=0) as content:
        content.truncate(memory()["MemTotal"])
        content.seek(0)
        while memory()["MemFree"] > LEFT_FREE and content.readinto(buffer):
            pass


def memory() -> dict[str, int]:
    """What the machine has, in bytes, by the kernel's names."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {name.rstrip(":"): int(count) * (1024 if unit else 1) for name, count, *unit in lines}

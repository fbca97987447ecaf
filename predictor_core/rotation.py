"""The newest snapshots of a folder: the last few are kept, and the newest one that is whole is the one to load.

    snapshot_<when, ns, 20 digits>.msgpack      the names sort by age
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import NoSnapshot, SnapshotError
from .files import sweep

PATTERN = "snapshot_*.msgpack"
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SnapshotPlan:
    """Where snapshots go, every how many steps, and how many are kept."""

    folder: Path | str
    every: int = 1000
    keep: int = 5

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep < 1:
            raise ValueError(f"every and keep must be at least 1, got {self.every} and {self.keep}.")


class Names:
    """Gives every snapshot a name newer than all before it, even where the clock went back."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._newest = max((_moment(path) for path in self._folder.glob(PATTERN)), default=-1)

    def next(self, now_ns: int) -> Path:
        self._newest = max(now_ns, self._newest + 1)
        return self._folder / f"snapshot_{self._newest:020d}.msgpack"


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep`, and what killed writers left."""
    for path in _newest_first(folder)[keep:]:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    sweep(folder)


def load_newest(folder: Path, load: Callable[[Path], T]) -> T:
    """What `load` makes of the newest snapshot that it accepts. Refused ones are logged, and named if none is left."""
    refused = []
    for path in _newest_first(folder):
        try:
            return load(path)
        except (SnapshotError, OSError) as error:
            log.error("CorruptedSnapshotEvent", extra={"path": str(path), "why": str(error)})
            refused.append(f"{path.name}: {error}")
    found = "; ".join(refused) or f"no file {PATTERN} is there"
    raise NoSnapshot(f"no snapshot in {folder} can be loaded. {found}")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN), key=_moment, reverse=True)


def _moment(path: Path) -> int:
    digits = path.stem.removeprefix("snapshot_")
    return int(digits) if digits.isdecimal() else -1

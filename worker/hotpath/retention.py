"""Which files of the archive go, so that it does not grow for ever: the oldest, each told of before it is removed.

    full file --> next one --> too many bytes --> event in the audit --> event on disk --> the oldest are removed

The event holds the link from which the chain goes on: `audit verify` knows by it that nobody cut off its beginning.
"""

import json
import logging
from pathlib import Path
from typing import Any

from worker.hotpath.archive import files

REMOVED_MAX = 100  # in one go

log = logging.getLogger(__name__)


def surplus(directory: Path, bytes_max: int) -> dict[str, Any] | None:
    """The oldest files beyond that many bytes, and from where the chain goes on without them; the newest stays."""
    kept = files(directory)
    sizes = [path.stat().st_size for path in kept]
    left, gone = sum(sizes), 0
    while left > bytes_max and gone < min(len(kept) - 1, REMOVED_MAX):
        left, gone = left - sizes[gone], gone + 1
    if not gone:
        return None
    link = next((link for link in map(_goes_on_from, kept[gone:]) if link), "")
    return {"files": [path.name for path in kept[:gone]], "bytes": sum(sizes[:gone]), "link": link}


def remove(directory: Path, told: dict[str, Any]) -> None:
    """Removes what the audit on disk tells of."""
    log.warning("hotpath_audit_removed", extra={"files": told["files"], "bytes": told["bytes"]})
    for name in told["files"]:
        (directory / name).unlink(missing_ok=True)


def _goes_on_from(path: Path) -> str:
    """The link in a file's head; empty when a crash left none."""
    with path.open("rb") as file:
        head = file.readline()
    try:
        return str(json.loads(head)["previous"])
    except (ValueError, KeyError, TypeError):
        return ""

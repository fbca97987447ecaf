"""One thread that encodes, hashes and writes, so that a step never waits for a disk.

A bounded shelf of what is still to be written lies in between. Newer content for the same slot takes the place of the
older, and a full shelf gives up its oldest: whoever waits for a superseded file is told so by its future. Nothing is
dropped in silence.

    submit -->  | slot: newest content |  --thread-->  encode, hash, write, rename, fsync  -->  future
"""

import hashlib
import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .files import write_atomically

WAITING_MAX = 4
EXIT_WAIT_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WriterStatus:
    """How the writing goes."""

    written: int = 0
    failed: int = 0
    superseded: int = 0
    waiting: int = 0  # submitted and not yet ended
    last_path: str | None = None
    last_bytes: int = 0
    last_duration_s: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True)
class _Job:
    path: Path
    content: Callable[[], bytes]
    sealed: bool
    after: Callable[[], None] | None
    future: Future = field(default_factory=Future)

    def tell(self, report: dict[str, Any]) -> None:
        """Nobody hears it if the one who asked has cancelled."""
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.future.set_result(report)


class _Shelf:
    """What the thread and its owner share; the owner may be gone while the thread still writes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.jobs: OrderedDict[object, _Job] = OrderedDict()
        self.busy = self.closed = False
        self.status = WriterStatus()
        self.thread: threading.Thread | None = None


class Writer:
    """Writes files in the background, the newest content of each slot only. Safe to share between threads."""

    def __init__(self) -> None:
        self._shelf = _Shelf()
        # Also at the interpreter's exit, so that a program that just ends loses nothing.
        self._finalizer = weakref.finalize(self, _close, self._shelf, EXIT_WAIT_S)

    def submit(
        self,
        path: Path,
        content: Callable[[], bytes],
        *,
        sealed: bool = True,
        slot: object = None,
        after: Callable[[], None] | None = None,
    ) -> "Future[dict[str, Any]]":
        """Has what `content()` gives written to `path`, sealed with its sum, and `after()` called when it is there.

        All of it happens in the thread, so `content` should be made of values. A slot is a path unless it is given.

        The future's result is {status, filepath, ...}: "success" with filesize_bytes, checksum and timestamp, "error"
        with error, "superseded" when newer content took its place.
        """
        shelf, job = self._shelf, _Job(path, content, sealed, after)
        with shelf.changed:
            if shelf.closed:
                raise RuntimeError(f"{path} was not written: this writer is closed.")
            slot = slot if slot is not None else path
            older = [shelf.jobs.pop(slot)] if slot in shelf.jobs else []
            older += [shelf.jobs.popitem(last=False)[1] for _ in range(len(shelf.jobs) - WAITING_MAX + 1)]
            shelf.jobs[slot] = job
            shelf.status = replace(shelf.status, superseded=shelf.status.superseded + len(older))
            if shelf.thread is None:
                shelf.thread = threading.Thread(target=_serve, args=(shelf,), name="snapshot-writer", daemon=True)
                shelf.thread.start()
            shelf.changed.notify_all()
        for lost in older:
            log.info("snapshot_superseded", extra={"path": str(lost.path), "by": str(path)})
            lost.tell({"status": "superseded", "filepath": str(lost.path), "by": str(path)})
        return job.future

    @property
    def status(self) -> WriterStatus:
        with self._shelf.changed:
            return replace(self._shelf.status, waiting=len(self._shelf.jobs) + self._shelf.busy)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until nothing is left to be written; False if that takes longer."""
        return _flush(self._shelf, timeout_s)

    def close(self, timeout_s: float = EXIT_WAIT_S) -> bool:
        """Writes what is left, then ends the thread; False if that took longer."""
        self._finalizer.detach()
        return _close(self._shelf, timeout_s)


def _flush(shelf: _Shelf, timeout_s: float | None) -> bool:
    with shelf.changed:
        return shelf.changed.wait_for(lambda: not shelf.jobs and not shelf.busy, timeout_s)


def _close(shelf: _Shelf, timeout_s: float) -> bool:
    """What a stuck disk does not take in time is given up by name."""
    done = _flush(shelf, timeout_s)
    with shelf.changed:
        shelf.closed = True
        shelf.changed.notify_all()
        left = list(shelf.jobs.values())
        shelf.jobs.clear()
    for job in left:
        late = TimeoutError(f"{job.path} was not written: the disk took longer than {timeout_s} s.")
        job.tell(_failure(shelf, job, late))
    if done and shelf.thread is not None:
        shelf.thread.join(timeout_s)
    return done


def _serve(shelf: _Shelf) -> None:
    while True:
        with shelf.changed:
            shelf.changed.wait_for(lambda: shelf.jobs or shelf.closed)
            if not shelf.jobs:
                return
            job = shelf.jobs.popitem(last=False)[1]
            shelf.busy = True
        if job.future.set_running_or_notify_cancel():
            job.tell(_write(shelf, job))
        with shelf.changed:
            shelf.busy = False
            shelf.changed.notify_all()


def _write(shelf: _Shelf, job: _Job) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        report = write(job.path, job.content(), job.sealed)
        if job.after:
            job.after()
    except Exception as error:
        return _failure(shelf, job, error)
    took = time.perf_counter() - started
    with shelf.changed:
        shelf.status = replace(
            shelf.status,
            written=shelf.status.written + 1,
            last_path=str(job.path),
            last_bytes=report["filesize_bytes"],
            last_duration_s=took,
        )
    log.info("snapshot_written", extra={"path": str(job.path), "bytes": report["filesize_bytes"], "seconds": took})
    return report


def write(path: Path, data: bytes, sealed: bool = True) -> dict[str, Any]:
    """Writes now; the report says where, how much, and its sum."""
    checksum = hashlib.sha256(data).hexdigest()
    content = data + checksum.encode() if sealed else data
    write_atomically(path, content)
    return {
        "status": "success",
        "filepath": str(path),
        "filesize_bytes": len(content),
        "checksum": checksum,
        "timestamp": time.time(),
    }


def _failure(shelf: _Shelf, job: _Job, error: Exception) -> dict[str, Any]:
    log.error("SnapshotWriteFailedEvent", extra={"path": str(job.path), "why": str(error)})
    with shelf.changed:
        shelf.status = replace(shelf.status, failed=shelf.status.failed + 1, last_error=str(error))
    return {"status": "error", "filepath": str(job.path), "error": str(error), "timestamp": time.time()}

"""AsyncMetaOptimizer: saves and exports in a thread, so that whoever predicts never waits for a disk.

One thread, one queue, so a file is written by one at a time and in order. A study is copied when it is handed over;
at most PENDING_MAX copies wait, and the oldest of the same file gives way to a newer one. Exports never give way.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import checkpoint
from .result import OptimizationResult
from .study import BayesianMetaOptimizer

PENDING_MAX = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    path: Path | None  # of a study; None for an export, which never gives way
    work: Callable[[], Any]
    future: Future = field(default_factory=Future)


class AsyncMetaOptimizer:
    """Wraps an optimizer; its methods return at once, and their futures hold what came of the work."""

    def __init__(self, optimizer: BayesianMetaOptimizer) -> None:
        self.optimizer = optimizer
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._failures: list[BaseException] = []

    def save_study_async(self, path: str | Path) -> "Future[None]":
        """Saves the study as it stands now. The future is cancelled if a newer copy takes its place."""
        path, content = Path(path), self.optimizer.content()
        return self._submit(_Job(path, lambda: checkpoint.write(path, content)))

    def export_config_async(
        self, result: OptimizationResult, path: str | Path = "config.toml", **options: Any
    ) -> "Future[dict]":
        """Changes the configuration file; the future holds what changed, or the refusal."""
        return self._submit(_Job(None, lambda: result.export_to_toml(path, **options)))

    def wait_for_io_completion(self, timeout_seconds: float = 60.0) -> bool:
        """Waits until all that was handed over is done. True only if it was in time and none of it failed.

        A failure is told once; more work can be handed over afterwards.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_seconds)
            failures, self._failures = (self._failures, []) if done else ([], self._failures)
        return done and not failures

    def _submit(self, job: _Job) -> Future:
        with self._changed:
            gone = self._crowded_out(job)
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="tuning-io")
                self._thread.start()
            self._changed.notify_all()
        for old in gone:
            old.future.cancel()
        return job.future

    def _crowded_out(self, job: _Job) -> list[_Job]:
        same = [old for old in self._waiting if job.path is not None and old.path == job.path]
        studies = [old for old in self._waiting if old.path is not None and old not in same]
        gone = same + (studies[:1] if job.path is not None and len(studies) >= PENDING_MAX else [])
        for old in gone:
            self._waiting.remove(old)
        return gone

    def _serve(self) -> None:
        """Ends when nothing is left, so that no idle thread holds up the end of the program."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread, self._busy = None, False
                    self._changed.notify_all()
                    return
                job, self._busy = self._waiting.popleft(), True
            if job.future.set_running_or_notify_cancel():
                self._run(job)

    def _run(self, job: _Job) -> None:
        try:
            result = job.work()
        except Exception as error:
            log.error("tuning_io_failed", extra={"why": str(error)})
            with self._changed:
                self._failures.append(error)
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

"""PredictorService: one process, one asset, and a clean end.

    service = PredictorService(config, folder="snapshots")
    sys.exit(service.run_forever(read=next_observation, on_result=print))

Observations come from `read` in the main thread, or from any thread through `offer` and `accept_observation`. SIGTERM
and SIGINT only set a flag; what follows is the same every time, logged with its `shutdown_phase`, at most 25 s long:

    block      new observations are refused
    drain      those already taken are processed: 1000 of them, or 10 seconds
    pending    a snapshot that is being written is waited for
    final      the last snapshot is written
    closed     exit code 0, or 1 if the state could not be kept
"""

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from predictor_core import NoSnapshot, PredictionResult, PredictorConfig, SnapshotPlan, UniversalPredictor, WriteFailed
from predictor_core.observation import Observed
from worker.devicewatch import watch_devices
from worker.shutdown import Shutdown, ShutdownMetrics

RESIDUAL_MAX = 1000
SHUTDOWN_MAX_S, DRAIN_MAX_S = 25.0, 10.0
FINAL_MAX_S = 5.0  # of the 25, kept for the final snapshot
IDLE_S = 0.05

log = logging.getLogger(__name__)


class PredictorService:
    """Feeds one UniversalPredictor from any thread until a signal comes, and keeps its state across restarts."""

    def __init__(
        self,
        config: PredictorConfig | None = None,
        *,
        folder: Path | str,
        metrics: ShutdownMetrics | None = None,
        now: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        """Begins where the newest snapshot in `folder` ends, or cold. Other options go to UniversalPredictor."""
        options.setdefault("snapshots", SnapshotPlan(folder))
        self.folder = Path(options["snapshots"].folder)
        self.predictor = UniversalPredictor(config, **options)
        self._metrics = metrics if metrics is not None else ShutdownMetrics()
        self._watch = watch_devices(self._metrics.registry)
        self._now = now
        self._taken: queue.Queue[Observed] = queue.Queue(RESIDUAL_MAX)
        self._lock = threading.Lock()  # around the predictor
        self._door = threading.Lock()  # around the way in
        self._stopping: str | None = None  # a plain attribute: a signal handler must not take locks
        self._restore()

    @property
    def accepting(self) -> bool:
        """Whether new observations are taken: what a readiness probe should ask."""
        return self._stopping is None

    def accept_observation(self, observation: Observed) -> PredictionResult | None:
        """Processes one observation now, in any thread; None if the service is shutting down."""
        with self._lock:
            if self.accepting:
                return self.predictor.step(observation)
        log.warning("observation_refused", extra={"timestamp_ns": observation.timestamp_ns})
        return None

    def offer(self, observation: Observed) -> bool:
        """Leaves one observation to the main thread; False if it was not taken: shutting down, or too many wait."""
        with self._door:
            if not self.accepting or self._taken.full():
                return False
            self._taken.put_nowait(observation)
        return True

    def stop(self, why: str = "stop") -> None:
        """Begins the shutdown; safe in a signal handler."""
        self._stopping = self._stopping or why

    def run_forever(
        self,
        read: Callable[[], Observed | None] | None = None,
        on_result: Callable[[PredictionResult], None] = lambda result: None,
    ) -> int:
        """Works until SIGTERM or SIGINT, shuts down, and returns the exit code. Main thread only.

        `read` returns an observation, or None where there is none at the moment; it should not wait for seconds.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self.accepting:
                observation = self._next(read)
                if observation is not None:
                    on_result(self._step(observation))
            return self.graceful_shutdown(on_result=on_result)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def graceful_shutdown(
        self, timeout_s: float = SHUTDOWN_MAX_S, on_result: Callable[[PredictionResult], None] = lambda result: None
    ) -> int:
        """Goes through the phases; returns 0, or 1 if the state could not be kept."""
        shutdown = Shutdown(self._metrics, self._now)
        self.stop()
        with self._door:  # whoever was on the way in is in
            residual = self._taken.qsize()
        shutdown.begin(residual, reason=self._stopping)
        left = self._drain(min(DRAIN_MAX_S, timeout_s / 2), on_result)
        shutdown.phase("drain", processed=residual - left, dropped=left)
        written = self.predictor.flush(max(0.0, timeout_s - FINAL_MAX_S - shutdown.elapsed_s))
        shutdown.phase("pending", written=written)
        report = self._save(max(0.0, timeout_s - shutdown.elapsed_s))
        shutdown.phase("final", **report)
        self.predictor.close(0.0)
        self._watch.stop()
        exit_code = int(report["status"] != "success")
        shutdown.end(exit_code)
        return exit_code

    def _restore(self) -> None:
        """A first start is cold; a folder that holds only damaged snapshots is said so, and is cold too."""
        if not any(self.folder.glob("snapshot_*")):
            log.info("cold_start", extra={"folder": str(self.folder)})
            return
        try:
            path = self.predictor.load_snapshot(self.folder)
            log.info("restored", extra={"path": str(path)})
        except NoSnapshot as error:
            log.error("IntegrityError", extra={"why": str(error), "remedy": "the asset starts cold"})

    def _next(self, read: Callable[[], Observed | None] | None) -> Observed | None:
        if read is None:
            try:
                return self._taken.get(timeout=IDLE_S)
            except queue.Empty:
                return None
        try:
            return self._taken.get_nowait()
        except queue.Empty:
            return read()

    def _step(self, observation: Observed) -> PredictionResult:
        with self._lock:
            return self.predictor.step(observation)

    def _drain(self, seconds: float, on_result: Callable[[PredictionResult], None]) -> int:
        """Processes what was taken; returns how many had to be left."""
        end = self._now() + seconds
        for _ in range(RESIDUAL_MAX):
            if self._now() >= end:
                break
            try:
                observation = self._taken.get_nowait()
            except queue.Empty:
                break
            on_result(self._step(observation))
        return self._taken.qsize()

    def _save(self, seconds: float) -> dict[str, Any]:
        """Reports on the final snapshot, by the thread that writes, so that a stuck disk cannot hold the process."""
        try:
            with self._lock:
                return self.predictor.save_periodic_snapshot().result(seconds)
        except (WriteFailed, TimeoutError) as error:
            return {"status": "error", "error": str(error) or f"the disk took longer than {seconds:.1f} s"}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop(signal.Signals(number).name)

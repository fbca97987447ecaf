"""A clean end, told the same way by a service of one asset and by a worker of a fleet: phases in the log, and metrics.

    shutdown = Shutdown(metrics, now)
    shutdown.begin(residual)     block: new work is refused
    shutdown.phase("drain")      ... and whatever else there is to be done, each with its facts
    shutdown.end(exit_code)      closed
"""

import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

log = logging.getLogger(__name__)


class ShutdownMetrics:
    """What a dashboard sees of shutdowns."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.shutdowns = Counter("predictor_graceful_shutdowns", "Graceful shutdowns begun", registry=registry)
        self.seconds = Histogram(
            "predictor_shutdown_duration_seconds",
            "How long a graceful shutdown took",
            buckets=(0.5, 1, 2, 5, 10, 20, 30),
            registry=registry,
        )
        self.residual = Histogram(
            "predictor_shutdown_residual_observations",
            "Observations taken and not yet processed when a shutdown began",
            buckets=(0, 1, 5, 10, 50, 100, 500, 1000),
            registry=registry,
        )


class Shutdown:
    """One end of one process."""

    def __init__(self, metrics: ShutdownMetrics, now: Callable[[], float]) -> None:
        self._metrics, self._now, self._started = metrics, now, now()
        metrics.shutdowns.inc()

    @property
    def elapsed_s(self) -> float:
        return self._now() - self._started

    def begin(self, residual: int, **facts: Any) -> None:
        self._metrics.residual.observe(residual)
        self.phase("block", residual_observations=residual, **facts)

    def phase(self, name: str, **facts: Any) -> None:
        """One line of the log for each phase that is done."""
        log.info("shutdown", extra={"shutdown_phase": name, **facts})

    def end(self, exit_code: int) -> None:
        took = self.elapsed_s
        self._metrics.seconds.observe(took)
        self.phase("closed", seconds=round(took, 3), exit_code=exit_code)

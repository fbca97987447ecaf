"""Traces: a span for each micro-batch with children read, compute and commit, sent to a collector by OTLP over HTTP.

Only this file knows OpenTelemetry, and imports it only when `telemetry.otlp_endpoint` is set. The pipeline notes
moments; spans are made of them once the micro-batch is done, and a thread carries them off. A collector that is slow
or gone costs spans, never ticks.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Timer
from typing import TYPE_CHECKING, Any

from worker.errors import SettingsError
from worker.settings import Settings
from worker.version import version

if TYPE_CHECKING:
    from worker.microbatch import MicroBatch

PATH = "/v1/traces"
EXPORT_MAX_S = 2.0  # For one sending with its retries, and for what is left at the end.


class Moments:
    """When the stages of one micro-batch began and ended, in nanoseconds of the wall clock."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.time_ns()
        try:
            yield
        finally:
            self.stages.append((name, began, time.time_ns()))


def noted(moments: Moments | None, name: str) -> AbstractContextManager[None]:
    """Notes when a stage begins and ends, if anybody wants to know."""
    return nullcontext() if moments is None else moments.stage(name)


class Tracing:
    """Makes spans of finished micro-batches."""

    def __init__(self, settings: Settings) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SettingsError(
                f"telemetry.otlp_endpoint is set, but {error.name} is not installed: "
                "pip install 'universal-predictor[otel]', or leave the endpoint empty"
            ) from None
        self._trace = trace
        endpoint = settings.telemetry.otlp_endpoint.rstrip("/") + PATH
        self._exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_MAX_S)
        self._provider = TracerProvider(resource=Resource.create(_resource(settings)), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("predictor.worker", version())

    def tell(self, batch: "MicroBatch") -> None:
        """Hands over the spans of a micro-batch that is done, for good or for nothing."""
        assert batch.moments is not None, "it was formed while tracing was on"
        stages = batch.moments.stages
        lost = sorted(part.holding.partition for part in batch.parts if part.holding.lost)
        root = self._tracer.start_span(
            "micro-batch", kind=self._trace.SpanKind.CONSUMER, start_time=stages[0][1], attributes=_attributes(batch)
        )
        inside = self._trace.set_span_in_context(root)
        for name, began, ended in stages:
            self._tracer.start_span(name, inside, start_time=began).end(ended)
        if lost:
            root.set_attribute("predictor.partitions_lost", lost)
            root.set_status(self._trace.StatusCode.ERROR, "not committed: the lease was lost")
        root.end(stages[-1][2])

    def close(self) -> None:
        """Sends what is left; gives up on it if the collector does not take it."""
        giving_up = Timer(EXPORT_MAX_S, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


def _resource(settings: Settings) -> dict[str, str]:
    return {
        "service.name": "universal-predictor",
        "service.namespace": settings.redis.namespace,
        "service.instance.id": settings.worker.name,
        "service.version": version(),
    }


def _attributes(batch: "MicroBatch") -> dict[str, Any]:
    return {
        "predictor.partitions": sorted(part.holding.partition for part in batch.parts),
        "predictor.ticks": sum(len(part.ticks) for part in batch.parts),
        "predictor.assets": sum(len(set(part.slots.tolist())) for part in batch.parts),
        "predictor.depth": batch.work.depth,
        "predictor.refused": sum(len(part.refused) for part in batch.parts),
    }

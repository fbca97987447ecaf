"""Chooses the concrete parts of a worker from its settings."""

from predictor_core import PredictorConfig, Program
from scheduler.batching import BatchLimits
from scheduler.shedding import Shedder
from scheduler.storing import StoringRules
from state_store import RedisStateStore, Retention, StateStore
from worker.device import Device
from worker.generations import Generations
from worker.hotpath.tuning import Tuning
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.quality import Quality
from worker.rows import RowTable
from worker.settings import Settings
from worker.tracing import Tracing

UNSTORED_TICKS_MAX = 65_536  # of a partition; a successor makes them again in a second or two
PREDICTION_OVERHEAD_BYTES = 256  # ids, asset names and RESP around two copies of a payload


def make_program(settings: Settings) -> Program:
    return Program(settings.config(), cache_dir=settings.worker.cache_dir)


def make_device(settings: Settings) -> Device:
    program = make_program(settings)
    return Device(program, RowTable(program.cold(1)[0], settings.worker.rows_kept), depths(settings.config()))


def depths(config: PredictorConfig) -> tuple[int, ...]:
    """The signature depths that this config may run at, the full one last."""
    return tuple(depth for depth in (2, 3, 5) if depth <= config.log_sig_depth)


def make_store(settings: Settings) -> StateStore:
    kept = Retention(ticks=settings.worker.ticks_kept, predictions=settings.worker.predictions_kept)
    return RedisStateStore(settings.redis.url, namespace=settings.redis.namespace, retention=kept)


def make_pipeline(settings: Settings, store: StateStore, device: Device, metrics: Metrics) -> Pipeline:
    worker, program = settings.worker, device.program
    limits = BatchLimits(
        ticks_max=worker.ticks_max,
        rows_max=worker.rows_max,
        ticks_per_asset_max=worker.ticks_per_asset_max,
        bytes_max=worker.commit_bytes_max,
        tick_bytes=2 * program.payload_bytes + PREDICTION_OVERHEAD_BYTES,
        buffered_max=worker.read_ahead_max,
        read_max=min(4096, worker.read_ahead_max),
    )
    shedder = Shedder(settings.shedding.rules(device.depths, program.config.besov_nyquist_interval_ns))
    metrics.follow(shedder)
    storing = StoringRules(
        every=worker.state_every,
        ticks_max=min(UNSTORED_TICKS_MAX, worker.predictions_kept - worker.ticks_max),
        rows_at_once=worker.rows_max,
    )
    waits = {"window_s": worker.window_ms / 1000, "rest_s": worker.rest_ms / 1000, "storing": storing}
    pipeline = Pipeline(store, device, limits, shedder, metrics, Generations(program), **waits)
    pipeline.quality = Quality(device.table, program.config.quantile_levels, metrics)
    return pipeline


def make_tuning(settings: Settings, pipeline: Pipeline, metrics: Metrics) -> Tuning | None:
    """The worker's part in the tuner, unless it is to have none."""
    return Tuning(settings, pipeline, metrics.hotpath) if settings.hotpath.enabled else None


def make_tracing(settings: Settings) -> Tracing | None:
    """Traces, where a collector for them is named."""
    return Tracing(settings) if settings.telemetry.otlp_endpoint else None

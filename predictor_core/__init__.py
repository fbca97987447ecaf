"""The predictor itself: pure, compiled, the same bits everywhere.

Only UniversalPredictor reads a clock and writes files; what it wraps knows neither.
"""

from .charts import Page
from .config import PredictorConfig
from .device_memory import DeviceMemory, monitor_vram_fragmentation
from .dump import DumpPlan, read_dump
from .errors import (
    BadObservation,
    ConfigRefused,
    CorruptRecord,
    Diverged,
    FrequencyWarning,
    InsufficientStorage,
    IntegrityError,
    NoSnapshot,
    NothingSeen,
    PredictorError,
    PredictorWarning,
    SchemaMismatch,
    SnapshotError,
    StalenessWarning,
    WriteFailed,
    WrongLayout,
    WrongShape,
)
from .functional import FunctionalPredictor, States
from .graph import Program
from .observation import MarketObservation, ProcessState
from .payload import encode_payloads, payload_fields
from .records import decode_record, encode_records
from .reload import ConfigFile, Reloaded
from .result import Event, OperatingMode, PredictionResult, RejectReason, Telemetry
from .rotation import SnapshotPlan
from .universal import UniversalPredictor
from .writer import WriterStatus

__all__ = [
    "BadObservation",
    "ConfigFile",
    "ConfigRefused",
    "CorruptRecord",
    "DeviceMemory",
    "Diverged",
    "DumpPlan",
    "Event",
    "FrequencyWarning",
    "FunctionalPredictor",
    "InsufficientStorage",
    "IntegrityError",
    "MarketObservation",
    "NoSnapshot",
    "NothingSeen",
    "OperatingMode",
    "Page",
    "PredictionResult",
    "PredictorConfig",
    "PredictorError",
    "PredictorWarning",
    "ProcessState",
    "Program",
    "RejectReason",
    "Reloaded",
    "SchemaMismatch",
    "SnapshotError",
    "SnapshotPlan",
    "StalenessWarning",
    "States",
    "Telemetry",
    "UniversalPredictor",
    "WriteFailed",
    "WriterStatus",
    "WrongLayout",
    "WrongShape",
    "decode_record",
    "encode_payloads",
    "encode_records",
    "monitor_vram_fragmentation",
    "payload_fields",
    "read_dump",
]

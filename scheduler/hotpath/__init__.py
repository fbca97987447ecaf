"""Tunes a few knobs of the fleet while it runs, inside guardrails. Pure: no I/O, and time is an argument.

    digests --> proposer (spsa) --> proposal --> executor (guardrails, control safety) --> config --> workers
                                                     |                  |
                                                   audit             rollback

All times are integer microseconds of one monotonic clock. Knobs are coordinates between 0 and 1. The *centre* is the
vector that was committed; the *live* vector, which workers see, is the centre or a probe beside it. Smaller
objectives are better.
"""

from scheduler.hotpath.audit import AuditEvent, AuditPolicy, AuditQueue, EnqueueResult, EventType
from scheduler.hotpath.config import AtomicConfig, ConfigSnapshot
from scheduler.hotpath.control_safety import ControlSafety
from scheduler.hotpath.engine import AdaptiveEngine
from scheduler.hotpath.engine_config import AdaptiveEngineConfig
from scheduler.hotpath.errors import Violation
from scheduler.hotpath.executor import ApplyReceipt, RollbackReceipt, SafetyExecutor
from scheduler.hotpath.guardrails import Guardrails
from scheduler.hotpath.histogram import LatencyHistogram
from scheduler.hotpath.knobs import Knob, KnobRegistry
from scheduler.hotpath.observer import Estimate, Observer
from scheduler.hotpath.proposal import ApplyMinus, ApplyPlus, NoChange, NoChangeReason, Proposal, Update
from scheduler.hotpath.rollback import RollbackPolicy
from scheduler.hotpath.safe_mode import SafeMode, SafeModeReason
from scheduler.hotpath.spsa import Spsa, SpsaConfig
from scheduler.hotpath.telemetry import DigestValidity, TelemetryDigest, TelemetryRing

__all__ = [
    "AdaptiveEngine",
    "AdaptiveEngineConfig",
    "ApplyMinus",
    "ApplyPlus",
    "ApplyReceipt",
    "AtomicConfig",
    "AuditEvent",
    "AuditPolicy",
    "AuditQueue",
    "ConfigSnapshot",
    "ControlSafety",
    "DigestValidity",
    "EnqueueResult",
    "Estimate",
    "EventType",
    "Guardrails",
    "Knob",
    "KnobRegistry",
    "LatencyHistogram",
    "NoChange",
    "NoChangeReason",
    "Observer",
    "Proposal",
    "RollbackPolicy",
    "RollbackReceipt",
    "SafeMode",
    "SafeModeReason",
    "SafetyExecutor",
    "Spsa",
    "SpsaConfig",
    "TelemetryDigest",
    "TelemetryRing",
    "Update",
    "Violation",
]

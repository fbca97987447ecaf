"""Decides who holds which partition, which ticks go together, how deep the graph may go, and with which knobs.

Pure: no I/O, no clock. What is seen comes in as arguments, what is decided goes out as values.
"""

from scheduler.batching import Backlog, BatchLimits, room, take
from scheduler.errors import BadAsset, BadRules, ClockWentBack, SchedulerError
from scheduler.partitions import check_asset, check_partitions, partition_of, tenant_of
from scheduler.placement import Member, Moves, PlacementRules, View, assign, plan
from scheduler.shedding import Jitter, Shedder, SheddingRules

__all__ = [
    "Backlog",
    "BadAsset",
    "BadRules",
    "BatchLimits",
    "ClockWentBack",
    "Jitter",
    "Member",
    "Moves",
    "PlacementRules",
    "SchedulerError",
    "Shedder",
    "SheddingRules",
    "View",
    "assign",
    "check_asset",
    "check_partitions",
    "partition_of",
    "plan",
    "room",
    "take",
    "tenant_of",
]

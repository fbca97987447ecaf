"""What happened and why, in a bounded queue that never blocks and never loses in silence.

Three classes of events. *Critical* ones need a slot before the change that they tell of. *Safe* ones (rollback, abort,
safe mode, commands) may use a reserve beyond the capacity, since what they tell of must always be possible.
*Diagnostic* ones (digests, proposals, refusals) have a queue of their own: they may be dropped, and are counted then.
"""

import enum
import json
import threading
from collections import Counter, deque
from typing import NamedTuple

from scheduler.hotpath.checks import require

SCHEMA = 1
RESERVE = 64


class EventType(enum.Enum):
    DIGEST = "digest"
    PROPOSAL = "proposal"
    VIOLATION = "violation"
    TIMEOUT = "timeout"
    APPLY = "apply"
    BASELINE_SET = "baseline_set"
    COMMAND = "command"
    LEADER_CHANGED = "leader_changed"
    ROLLBACK = "rollback"
    ABORT = "abort"
    SAFE_MODE_ENTERED = "safe_mode_entered"
    SAFE_MODE_EXITED = "safe_mode_exited"
    CANARY = "canary"
    CANARY_ENDED = "canary_ended"
    INPUTS = "inputs"
    ARCHIVE_REMOVED = "archive_removed"
    OBJECTIVE_CHANGED = "objective_changed"


class EventClass(enum.Enum):
    CRITICAL = "critical"
    SAFE = "safe"
    DIAGNOSTIC = "diagnostic"


_CLASSES = {event_type: EventClass.CRITICAL for event_type in EventType}
_CLASSES |= dict.fromkeys(
    (
        EventType.ROLLBACK,
        EventType.ABORT,
        EventType.SAFE_MODE_ENTERED,
        EventType.SAFE_MODE_EXITED,
        EventType.COMMAND,
        EventType.LEADER_CHANGED,
        EventType.CANARY_ENDED,
        EventType.ARCHIVE_REMOVED,
        EventType.OBJECTIVE_CHANGED,
    ),
    EventClass.SAFE,
)
_CLASSES |= dict.fromkeys(
    (EventType.DIGEST, EventType.PROPOSAL, EventType.VIOLATION, EventType.TIMEOUT), EventClass.DIAGNOSTIC
)


class EnqueueResult(enum.Enum):
    OK = "ok"
    HIGH_WATER_MARK = "high_water_mark"
    FULL = "full"


class AuditPolicy(enum.Enum):
    IN_MEMORY_REQUIRED = "in_memory_required"
    IN_MEMORY_PLUS_ASYNC_DISK = "in_memory_plus_async_disk"
    IN_MEMORY_ONLY = "in_memory_only"
    DISABLE = "disable"


class Tier(enum.Enum):
    EXECUTOR = "1"
    PROPOSER = "2"
    OFFLINE = "omega"


def check_policy(policy: AuditPolicy, tier: Tier) -> AuditPolicy:
    """Only offline discovery may do without an audit."""
    refused = policy is AuditPolicy.DISABLE and tier is not Tier.OFFLINE
    require(not refused, "audit policy", f"other than disable in tier {tier.value}", policy.value)
    return policy


class AuditEvent(NamedTuple):
    """One line of the history; `details` is JSON text, and `seq` is given by the queue."""

    timestamp_us: int
    event_type: EventType
    generation: int
    details: str = "{}"
    seq: int = -1
    run_id: str = ""
    proposal_id: str = ""
    base_generation: int = 0
    actor: str = ""
    cause: str = ""
    objective: str = ""  # the version of what was minimised then

    @property
    def event_class(self) -> EventClass:
        return _CLASSES[self.event_type]

    def encode(self) -> bytes:
        """The event as canonical JSON: equal events, equal bytes."""
        body = self._asdict() | {"event_type": self.event_type.value, "details": json.loads(self.details)}
        return json.dumps({"schema": SCHEMA, **body}, sort_keys=True, separators=(",", ":")).encode()


class AuditQueue:
    """A bounded queue: a full one refuses and counts."""

    def __init__(self, capacity: int = 4096, next_seq: int = 0):
        require(capacity >= 1, "capacity", "at least 1", capacity)
        self.capacity = capacity
        self.mark = -(-4 * capacity // 5)  # 80 per cent, rounded up.
        self.outside = 0  # Events taken out that still need their place, in a stream that has not been archived.
        self.drops: Counter[EventClass] = Counter()
        self.next_seq = next_seq
        self._lock = threading.Lock()
        self._critical: deque[tuple[int, AuditEvent]] = deque()  # With their sequence numbers.
        self._reserve: deque[tuple[int, AuditEvent]] = deque()
        self._diagnostic: deque[tuple[int, AuditEvent]] = deque()

    def __len__(self) -> int:
        """Events in the slots that changes need."""
        return len(self._critical)

    @property
    def drop_count(self) -> int:
        return self.drops.total()

    @property
    def below_mark(self) -> bool:
        return self._occupied < self.mark

    @property
    def _occupied(self) -> int:
        return len(self._critical) + self.outside

    def has_room(self) -> bool:
        """Says whether a critical event fits; counts a drop if it does not, since its change cannot happen."""
        if self._occupied < self.capacity:
            return True
        self.drops[EventClass.CRITICAL] += 1
        return False

    def enqueue(self, event: AuditEvent) -> EnqueueResult:
        kind = _CLASSES[event.event_type]
        with self._lock:
            queue = self._queue_for(kind)
            if queue is None:
                self.drops[kind] += 1
                return EnqueueResult.FULL
            queue.append((self.next_seq, event))
            self.next_seq += 1
            return EnqueueResult.HIGH_WATER_MARK if len(queue) >= self.mark else EnqueueResult.OK

    def try_dequeue(self) -> AuditEvent | None:
        """Takes the oldest event of all classes."""
        with self._lock:
            filled = [queue for queue in (self._critical, self._reserve, self._diagnostic) if queue]
            if not filled:
                return None
            seq, event = min(filled, key=lambda queue: queue[0][0]).popleft()
        return event._replace(seq=seq)

    def drain(self) -> list[AuditEvent]:
        """Takes all events, the oldest first."""
        with self._lock:
            events = [*self._critical, *self._reserve, *self._diagnostic]
            for queue in (self._critical, self._reserve, self._diagnostic):
                queue.clear()
        return [event._replace(seq=seq) for seq, event in sorted(events, key=lambda entry: entry[0])]

    def _queue_for(self, kind: EventClass) -> deque[tuple[int, AuditEvent]] | None:
        if kind is EventClass.DIAGNOSTIC:
            return self._diagnostic if len(self._diagnostic) < self.capacity else None
        if self._occupied < self.capacity:
            return self._critical
        return self._reserve if kind is EventClass.SAFE and len(self._reserve) < RESERVE else None

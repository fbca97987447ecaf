"""When to return to the baseline by itself, and when to stop doing so."""

from collections import deque
from dataclasses import dataclass

from scheduler.hotpath.checks import require_count, require_positive

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class RollbackPolicy:
    """Limits of automatic rollbacks; the default is the balanced preset."""

    max_consecutive_regressions: int = 3
    max_rollbacks_per_hour: int = 4
    min_stable_time_us: int = 5_000_000

    def __post_init__(self) -> None:
        require_count(
            max_consecutive_regressions=self.max_consecutive_regressions,
            max_rollbacks_per_hour=self.max_rollbacks_per_hour,
        )
        require_positive(min_stable_time_us=self.min_stable_time_us)

    @classmethod
    def preset_conservative(cls) -> "RollbackPolicy":
        return cls(2, 2, 30_000_000)

    @classmethod
    def preset_balanced(cls) -> "RollbackPolicy":
        return cls()

    @classmethod
    def preset_aggressive(cls) -> "RollbackPolicy":
        return cls(5, 10, 1_000_000)


class CircuitBreaker:
    """Counts automatic rollbacks inside a sliding hour; the one too many still happens, and is the last."""

    def __init__(self, policy: RollbackPolicy):
        self.limit = policy.max_rollbacks_per_hour
        self.times_us: deque[int] = deque()

    def count(self, now_us: int) -> int:
        while self.times_us and now_us - self.times_us[0] >= HOUR_US:
            self.times_us.popleft()
        return len(self.times_us)

    def trips(self, now_us: int) -> bool:
        """Counts one more, and says whether that was too many."""
        tripped = self.count(now_us) >= self.limit
        self.times_us.append(now_us)
        return tripped

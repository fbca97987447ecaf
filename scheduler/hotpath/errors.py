"""Our exception hierarchy; each violation carries its numbers in `details`:

* HotpathError
  x NotTheWriter              somebody else already holds the right to publish
  x BadCheckpoint             a checkpoint of another version, run or registry
  * Violation                 a proposal or command was refused, and nothing changed
    * ProposerDefect          a proposal that a sound proposer does not make
      x DeltaTooLarge  x OutOfBounds  x UnknownParameter  x NotFinite
    * NotNow                  the same proposal may be repeated at `earliest_us`
      x RateLimitExceeded  x CooldownActive
    x DirectionFlipViolation  x CumulativeDeltaViolation  x ConstraintViolation
    x InSafeMode  x AuditQueueFull  x NoBaseline  x ProbeActive
    x StaleBase  x Fenced  x Paused  x Pinned
"""

from scheduler.errors import SchedulerError


class HotpathError(SchedulerError):
    """Base of all errors of the tuner."""


class NotTheWriter(HotpathError):
    pass


class BadCheckpoint(HotpathError, ValueError):
    pass


class Violation(HotpathError):
    """A refusal. Partial application does not exist: the configuration is as it was."""

    def __init__(self, **details):
        self.details = details
        numbers = ", ".join(f"{name}={value}" for name, value in details.items())
        super().__init__(f"{type(self).__name__}({numbers})")

    @property
    def kind(self) -> str:
        return type(self).__name__


class ProposerDefect(Violation):
    pass


class DeltaTooLarge(ProposerDefect):
    pass


class OutOfBounds(ProposerDefect):
    pass


class UnknownParameter(ProposerDefect):
    pass


class NotFinite(ProposerDefect):
    pass


class NotNow(Violation):
    @property
    def earliest_us(self) -> int:
        return self.details["earliest_us"]


class RateLimitExceeded(NotNow):
    pass


class CooldownActive(NotNow):
    pass


class DirectionFlipViolation(Violation):
    pass


class CumulativeDeltaViolation(Violation):
    pass


class ConstraintViolation(Violation):
    pass


class InSafeMode(Violation):
    pass


class AuditQueueFull(Violation):
    pass


class NoBaseline(Violation):
    pass


class ProbeActive(Violation):
    pass


class StaleBase(Violation):
    pass


class Fenced(Violation):
    pass


class Paused(Violation):
    pass


class Pinned(Violation):
    pass

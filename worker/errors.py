"""Our exception hierarchy:

* WorkerError
  x SettingsError   a setting is unknown, out of range or unreadable: says which one, and where it was given
  x PortInUse       the HTTP port of a worker is taken
  x BadInput        a file, an asset or an id given to a command is not what the command can use
  x OrderRefused    the tuner did not follow an order, and nothing changed
  x TicksGone       ticks that states have to be made of again are no longer in the log
  x NotRebuilt      a state cannot be computed again from what is kept
  x WrongBits       this machine gave other bytes for known inputs than it should
  x FleetFailed     a process that a command started ended before its time

Each message is one line a finding: what, where, remedy. The command line prints it and nothing else.
"""


class WorkerError(Exception):
    """Anything a user can put right."""


class SettingsError(WorkerError):
    """A setting is unknown, out of range or unreadable."""


class PortInUse(WorkerError):
    """The HTTP port of a worker is taken."""


class BadInput(WorkerError):
    """What was given to a command is not what the command can use."""


class TicksGone(WorkerError):
    """Ticks that states have to be made of again are no longer in the log."""


class NotRebuilt(WorkerError):
    """A state cannot be computed again from what is kept."""


class WrongBits(WorkerError):
    """This machine gave other bytes for known inputs than it should."""


class FleetFailed(WorkerError):
    """A process that a command started ended before its time."""


class OrderRefused(WorkerError):
    """The tuner did not follow an order, or nobody answered."""

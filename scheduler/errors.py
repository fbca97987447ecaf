"""Our exception hierarchy:

* SchedulerError
  x BadAsset          an asset's name is not UTF-8 of 1 to 256 bytes
  x BadRules          a limit, rule or knob does not make sense
  x ClockWentBack     a time lies before one that was given earlier
"""


class SchedulerError(Exception):
    """Base of all errors that this package raises."""


class BadAsset(SchedulerError, ValueError):
    pass


class BadRules(SchedulerError, ValueError):
    pass


class ClockWentBack(SchedulerError, ValueError):
    pass

"""Exit codes: what a script may rely on.

    0  done                                         3  Redis cannot be reached or refuses
    1  a check found something, or the work failed  4  the namespace holds no fleet, or one made with other values
    2  wrong usage, setting or input
"""

import sys

DONE, FAILED, USAGE, STORE, FLEET = range(5)

# By the names of our error classes: naming them does not import the packages that raise them.
CODES = {
    "SettingsError": USAGE,
    "BadInput": USAGE,
    "PortInUse": USAGE,
    "WorkerError": FAILED,
    "BadUrl": USAGE,
    "BadTick": USAGE,
    "BadAsset": USAGE,
    "BadRules": USAGE,
    "FleetMissing": FLEET,
    "FleetMismatch": FLEET,
    "BadBackup": FAILED,
    "PartitionHeld": FAILED,
    "PartitionMoved": FAILED,
    "MoveRefused": FAILED,
    "BackupRefused": FAILED,
    "StateStoreError": STORE,
    "PredictorError": FAILED,
}
OURS = ("worker", "state_store", "scheduler", "predictor_core")


def verdict(error: BaseException) -> int | None:
    """The exit code for an error that is the world's or the user's doing; None for one that is ours."""
    for kind in type(error).__mro__:
        if kind.__name__ in CODES and kind.__module__.split(".")[0] in OURS:
            return CODES[kind.__name__]
    return None


def alone(error: BaseException) -> BaseException:
    """The one error inside groups that hold nothing else."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def notice(text: str) -> None:
    """Lines for a person, out of the data's way."""
    for line in text.splitlines():
        print(f"predictor: {line}", file=sys.stderr, flush=True)

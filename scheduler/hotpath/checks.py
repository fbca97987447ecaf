"""Checks the numbers of a rule when it is made."""

import math

from scheduler.errors import BadRules


def require(holds: bool, name: str, wanted: str, found: object) -> None:
    if not holds:
        raise BadRules(f"{name} must be {wanted}, got {found}")


def require_positive(**values: float) -> None:
    for name, value in values.items():
        require(math.isfinite(value) and value > 0, name, "finite and positive", value)


def require_count(**values: int) -> None:
    for name, value in values.items():
        require(value >= 1, name, "at least 1", value)

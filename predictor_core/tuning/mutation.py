"""Changes a configuration file: checked, backed up, whole or not at all, and on record.

    lock -> check -> back up -> audit line -> temporary file, fsync, replace

A kill at any moment leaves the old file or the new one. The audit line comes first and carries the sum of what should
follow: a line whose sum no file ever had is a change that did not happen.
"""

import contextlib
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..config import PredictorConfig
from ..errors import PredictorError
from ..files import write_atomically
from . import tomledit
from .errors import ConfigMutationError
from .lock import locked
from .space import DEEP, LOCKED, STEP_MAX, SearchSpace

SECTION = "predictor"
LOCKED_SECTIONS = frozenset({"redis", "worker", "log", "io", "security", "core", "meta_optimization"})
BACKUPS_MAX = 20
ROUNDING = 1e-9

Check = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class MutationLimits:
    """How fast a configuration may change."""

    per_hour: int = 10
    step: float = STEP_MAX  # of a knob's range, in its own scale; numbers that are no knobs: of their value


def change(
    path: Path,
    values: Mapping[str, Any],
    why: Mapping[str, Any],
    *,
    backup: bool = True,
    check: Check | None = None,
    limits: MutationLimits | None = None,
    now: datetime | None = None,
) -> dict[str, list[Any]]:
    """Writes values into [predictor]; gives what changed as name -> [old, new]. `check` sees the whole new file."""
    now = now or datetime.now(UTC)
    with _alone(path):
        if not path.exists():
            raise FileNotFoundError(f"there is no configuration file at {path}.")
        before = path.read_bytes()
        text, changes = _changed(path, before, values, limits or MutationLimits(), check)
        if changes:
            _check_rate(path, limits or MutationLimits(), now)
            if backup:
                _back_up(path, before, now)
            _record(path, {"event": "mutation", **why, "changes": changes}, before, text.encode(), now)
            write_atomically(path, text.encode())
        return changes


def roll_back(path: Path, why: Mapping[str, Any], now: datetime | None = None) -> dict[str, list[Any]]:
    """Puts the numbers of the newest backup back; what else was edited since then stays. Gives what changed."""
    now = now or datetime.now(UTC)
    with _alone(path):
        if not backup_of(path).exists():
            raise ConfigMutationError(f"{path} has no backup at {backup_of(path)}: there is nothing to go back to.")
        before = path.read_bytes()
        old, new = (_parsed(backup_of(path), backup_of(path).read_bytes()), _parsed(path, before))
        there, here = old.get(SECTION, {}), new.get(SECTION, {})
        defaults = {name: getattr(PredictorConfig(), name) for name in here.keys() - there.keys()}
        back = {name: value for name, value in {**there, **defaults}.items() if here.get(name) != value}
        text = _edited(path, before, back)
        changes = {name: [here.get(name), value] for name, value in back.items()}
        if changes:
            _record(path, {"event": "rollback", **why, "changes": changes}, before, text.encode(), now)
            write_atomically(path, text.encode())
        return changes


def backup_of(path: Path) -> Path:
    return path.with_name(path.name + ".bak")


def audit_of(path: Path) -> Path:
    return path.with_name(path.name + ".audit.jsonl")


def audit(path: Path) -> list[dict[str, Any]]:
    """The file's changes on record, oldest first; a line that a kill cut short is none."""
    lines = audit_of(path).read_bytes().splitlines() if audit_of(path).exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        with locked(path):
            for orphan in path.parent.glob(f"{path.name}.*.tmp"):  # of a process that was killed with the lock in hand
                orphan.unlink(missing_ok=True)
            yield
    except BlockingIOError:
        raise ConfigMutationError(f"{path} is being changed by another process: try again when it is done.") from None
    except (FileNotFoundError, PredictorError):
        raise
    except OSError as error:
        raise ConfigMutationError(f"{path} was not changed: {error.strerror or error}.") from None


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ConfigMutationError(f"{path} is not valid TOML: {error}") from None


def _changed(
    path: Path, before: bytes, values: Mapping[str, Any], limits: MutationLimits, check: Check | None
) -> tuple[str, dict[str, list[Any]]]:
    table = _parsed(path, before)
    locked_names = sorted(LOCKED & values.keys())
    if locked_names:
        raise ConfigMutationError(f"{', '.join(locked_names)} must not be changed by a tuning.")
    present = _config(path, table)
    changes = {name: [_present(present, name), value] for name, value in values.items()}
    changes = {name: pair for name, pair in changes.items() if pair[0] != pair[1]}
    for name, (old, new) in changes.items():
        _check_step(name, old, new, limits)
    text = _edited(path, before, {name: new for name, (_, new) in changes.items()})
    after = _parsed(path, text.encode())
    _config(path, after)
    if check:
        try:
            check(after)
        except Exception as error:
            raise ConfigMutationError(f"{path} was not changed: {error}") from None
    return text, changes


def _present(config: PredictorConfig, name: str) -> Any:
    if name not in config.__dataclass_fields__:
        raise ConfigMutationError(f"{name!r} is not a setting of the predictor.")
    return getattr(config, name)


def _config(path: Path, table: Mapping[str, Any]) -> PredictorConfig:
    try:
        return PredictorConfig.from_mapping(table.get(SECTION, {}))
    except (ValueError, TypeError) as error:
        raise ConfigMutationError(f"{path} was not changed: [{SECTION}] {error}") from None


def _edited(path: Path, before: bytes, values: Mapping[str, Any]) -> str:
    try:
        return tomledit.with_values(before.decode("utf-8"), SECTION, values)
    except ValueError as error:
        raise ConfigMutationError(f"{path} was not changed: {error}") from None


def _check_step(name: str, old: Any, new: Any, limits: MutationLimits) -> None:
    knob = DEEP.get(name)
    if knob is None:
        numbers = isinstance(old, int | float) and isinstance(new, int | float)
        near = numbers and abs(new - old) <= limits.step * abs(old) + ROUNDING
    else:
        near = new in _slack(knob.around(old, limits.step))
    if not near:
        raise ConfigMutationError(f"{name} may not go from {old!r} to {new!r} in one step: that is beyond its limit.")


def _slack(knob: SearchSpace) -> SearchSpace:
    """A range without the rounding of its ends."""
    if knob.choices() or knob.param_type == "int":
        return knob
    low, high = knob.range
    return SearchSpace(knob.name, "float", (low - ROUNDING * abs(low), high + ROUNDING * abs(high)))


def _check_rate(path: Path, limits: MutationLimits, now: datetime) -> None:
    since = (now - timedelta(hours=1)).isoformat()
    recent = [entry for entry in audit(path) if entry.get("event") == "mutation" and entry.get("time", "") > since]
    if len(recent) >= limits.per_hour:
        raise ConfigMutationError(
            f"{path} has changed {len(recent)} times in the last hour, and {limits.per_hour} is the limit: wait."
        )


def _back_up(path: Path, content: bytes, now: datetime) -> None:
    """The newest as NAME.bak; beside it those before, by their time."""
    write_atomically(path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%S.%fZ}.bak"), content)
    write_atomically(backup_of(path), content)
    for old in sorted(path.parent.glob(f"{path.name}.*Z.bak"))[:-BACKUPS_MAX]:
        old.unlink(missing_ok=True)


def _record(path: Path, entry: Mapping[str, Any], before: bytes, after: bytes, now: datetime) -> None:
    sums = {"before": hashlib.sha256(before).hexdigest(), "after": hashlib.sha256(after).hexdigest()}
    line = json.dumps({"time": now.isoformat(), **entry, **sums}, default=str) + "\n"
    descriptor = os.open(audit_of(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        cut_short = os.fstat(descriptor).st_size and not audit_of(path).read_bytes().endswith(b"\n")
        os.write(descriptor, (b"\n" if cut_short else b"") + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

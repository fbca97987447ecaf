"""Log lines: one for each event of a life, none for a tick; JSON for machines, a short line for a terminal.

    {"ts": "2026-01-31T12:00:00.123Z", "level": "info", "event": "partition_acquired", "worker": "a-1", "partition": 3}
    12:00:00.123 info     partition_acquired  partition=3
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from worker.settings import LogSettings

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def start_logging(settings: LogSettings, worker: str, stream: TextIO = sys.stderr) -> None:
    """Sends every log line of this process to one stream."""
    human = settings.format == "human" or (settings.format == "auto" and stream.isatty())
    line = logging.StreamHandler(stream)
    line.setFormatter(_Human() if human else _Json(worker))
    logging.basicConfig(level=settings.level.upper(), handlers=[line], force=True)
    for noisy in ("jax", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Json(logging.Formatter):
    def __init__(self, worker: str) -> None:
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line = {"ts": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        line |= {"level": record.levelname.lower(), "event": record.getMessage(), "worker": self._worker}
        return json.dumps(line | _fields(record), default=_plain)


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record).items())
        time = _moment(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        return f"{time} {record.levelname.lower():8} {record.getMessage()}  {fields}".rstrip()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra=`."""
    fields = {name: value for name, value in vars(record).items() if name not in STANDARD}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _plain(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

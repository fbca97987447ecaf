"""Backups of a fleet's states, as a user asks for them; nothing here knows what is inside a state."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from state_store.backup import Backup, Summary, write_backup
from state_store.logs import Logs, Looking
from state_store.restore import restore
from worker.errors import BadInput
from worker.reach import open_store
from worker.settings import Settings


async def export_states(settings: Settings, path: Path, partition: int | None) -> dict[str, Any]:
    """Writes a backup of the fleet, or of one partition."""
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        meta = await store.read_meta()
        wanted = _wanted(range(meta.partitions), partition, "the fleet")
        summary = await write_backup(Logs(looking, settings.redis.namespace), meta, path, wanted)
    return summary_facts(path, summary)


async def import_states(settings: Settings, path: Path, partition: int | None) -> dict[str, Any]:
    """Puts a backup back; makes the fleet where there is none."""
    backup = open_backup(path)
    wanted = _wanted(sorted(backup.summary.moments), partition, str(path))
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        await restore(store, Logs(looking, settings.redis.namespace), backup, wanted)
    return summary_facts(path, backup.summary) | {"partitions": wanted}


def open_backup(path: Path) -> Backup:
    if not path.is_file():
        raise BadInput(f"{path} is not a file: name one that `predictor state export` wrote")
    return Backup(path)


def summary_facts(path: Path, summary: Summary) -> dict[str, Any]:
    """A backup as plain names and values."""
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "layout": summary.meta.layout.hex(),
        "partitions": sorted(summary.moments),
        "states": summary.states,
        "cursors": {str(p): moment.cursor.decode() for p, moment in sorted(summary.moments.items())},
    }




def _wanted(there: Collection[int], partition: int | None, where: str) -> list[int]:
    if partition is not None and partition not in there:
        raise BadInput(f"{where} has no partition {partition}: it has {_span(list(there))}")
    return list(there) if partition is None else [partition]


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0] if numbers else "none")

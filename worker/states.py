"""The stored state of an asset in plain words."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from predictor_core import Program, decode_record
from state_store.keys import asset_fault, partition_of
from worker.errors import BadInput
from worker.reach import open_store
from worker.settings import Settings

FLAGS = {
    "stale": "gates.clock.stale",
    "frozen": "gates.stillness.frozen",
    "degraded": "gates.degraded",
    "collapsed": "entropy.collapsed",
    "regime_change_grace": "cusum.grace",
}


async def state_facts(settings: Settings, asset: str) -> dict[str, Any]:
    """What an asset's record says; CorruptRecord or WrongLayout if it cannot be read."""
    program = Program(settings.config())
    async with open_store(settings) as store:
        partition = home_of(asset, (await store.read_meta()).partitions)
        (record,) = await store.load(partition, [asset.encode()])
    if record is None:
        raise BadInput(f"{asset!r} has no state in partition {partition}: none of its ticks was taken yet")
    return {"asset": asset, "partition": partition, **record_facts(program, record)}


def record_facts(program: Program, record: bytes) -> dict[str, Any]:
    """The parts of a state that mean something by themselves."""
    row = decode_record(record, program.layout_fingerprint)
    fields = {name: values[0] for name, values in program.fields(row[None].copy()).items()}
    last_ns = int(fields["gates.clock.last_ns"])
    return {
        "layout": program.layout_fingerprint.hex(),
        "bytes": len(record),
        "ticks": int(fields["ticks"]),
        "last_timestamp_ns": last_ns if int(fields["ticks"]) else None,
        "last_time": _moment(last_ns) if int(fields["ticks"]) else None,
        "level": float(fields["level"]),
        "weights": [float(weight) for weight in np.asarray(fields["orchestrator.weights"])],
        "flags": [name for name, field in FLAGS.items() if int(fields[field]) > 0],
    }


def home_of(asset: str, partitions: int) -> int:
    """The partition of an asset whose name can be one."""
    if fault := asset_fault(asset.encode()):
        raise BadInput(f"{asset[:40]!r}: {fault}")
    return partition_of(asset.encode(), partitions)


def _moment(time_ns: int) -> str | None:
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None

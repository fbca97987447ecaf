"""What the files of a predictor of one asset say, as plain names and values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predictor_core import read_dump
from predictor_core.functional import prediction_result
from predictor_core.rotation import load_newest
from predictor_core.snapshot import contents, decode_array
from worker.errors import BadInput


def snapshot_facts(path: Path) -> dict[str, Any]:
    """The map of a snapshot, its arrays as lists."""
    found = load_newest(path, _read) if path.is_dir() else _read(path)
    shared = found["global"]
    return {
        "schema_version": found["schema_version"],
        "timestamp": found["timestamp"],
        "layout": shared["layout"].hex(),
        "made_by": shared["made_by"].hex(),
        "telemetry": found["telemetry"],
        "flags": found["flags"],
        "global": _plain(shared["state"]),
        "kernels": {kernel: _plain(block) for kernel, block in found["kernels"].items()},
        "config": found["config"],
    }


def dump_facts(path: Path) -> dict[str, Any]:
    """All of a dump but its raw columns."""
    facts = _opened(path, read_dump)
    return {name: value for name, value in facts.items() if name != "history"}


def plot_dump(path: Path, picture: Path) -> None:
    """Draws the ticks before an emergency."""
    dump = _opened(path, read_dump)
    history = dump["history"]
    title = f"{dump['asset_id']}, emergency at {dump['emergency_timestamp']}"
    page = prediction_result(history).plot(dump["signal_buffer"], history["timestamp_ns"], title)
    try:
        page.save(picture)
    except OSError as error:
        raise BadInput(f"{picture} cannot be written: {error.strerror}") from None


def _read(path: Path) -> dict[str, Any]:
    return _opened(path, lambda path: contents(path.read_bytes(), path))


def _opened(path: Path, read: Any) -> dict[str, Any]:
    try:
        return read(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def _plain(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: decode_array(leaf).tolist() for name, leaf in block.items()}

"""A forensic file for each emergency: what the predictor saw and thought before it gave way.

    emergency_timestamp, asset_id, holder_exponent, weights      at that moment
    signal_buffer, regime_history                                the last values; G+, G-, Gs, h_t and alarms beside them
    telemetry_snapshot, flags_at_emergency, events, config
    history                                                      every field of the last results, as arrays

Plain MessagePack, written whole or not at all. `predictor dump` prints it and plots it.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack
import numpy as np

from .config import PredictorConfig
from .errors import IntegrityError
from .result import Event
from .snapshot import FLAGS, decode_array, encode_array, pack, telemetry_of

DUMP_FOLDER = "~/predictor_emergency_dumps"
REGIME = ("cusum_drift", "cusum_drift_down", "cusum_scale", "adaptive_threshold", "regime_change_detected")


@dataclass(frozen=True)
class DumpPlan:
    """Where forensic files go, and how many there may be."""

    folder: Path | str = DUMP_FOLDER
    interval_s: float = 60.0  # at least between two of them
    keep: int = 50

    def __post_init__(self) -> None:
        if self.interval_s < 0 or self.keep < 1:
            raise ValueError(f"interval_s must be >= 0 and keep at least 1, got {self.interval_s} and {self.keep}.")


class DumpGate:
    """Lets one emergency in so many seconds through."""

    def __init__(self, interval_s: float) -> None:
        self._interval_ns = round(interval_s * 1e9)
        self._last_ns: int | None = None

    def open(self, now_ns: int) -> bool:
        if self._last_ns is not None and 0 <= now_ns - self._last_ns < self._interval_ns:
            return False
        self._last_ns = now_ns
        return True


class Recent:
    """The last values with the results that were made after them."""

    def __init__(self, length: int) -> None:
        self._ticks: deque[tuple[float, np.ndarray]] = deque(maxlen=length)

    def add(self, value: float, record: np.ndarray) -> None:
        self._ticks.append((value, record))

    def copy(self) -> "Recent":
        """As it is now, for a reader in another thread."""
        made = Recent(0)
        made._ticks = self._ticks.copy()
        return made

    def __len__(self) -> int:
        return len(self._ticks)

    def values(self) -> list[float]:
        return [value for value, _ in self._ticks]

    def records(self) -> np.ndarray:
        return np.array([record for _, record in self._ticks])


def encode_dump(config: PredictorConfig, asset: str, recent: Recent, now_ns: int) -> bytes:
    """The content of the file, for the newest of the recent ticks."""
    records = recent.records()
    last = records[-1]
    return pack(
        {
            "emergency_timestamp": datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(),
            "asset_id": asset,
            "holder_exponent": float(last["holder_exponent"]),
            "weights": last["weights"].tolist(),
            "signal_buffer": recent.values(),
            "regime_history": {name: records[name].tolist() for name in REGIME},
            "telemetry_snapshot": telemetry_of(last),
            "flags_at_emergency": {flag: bool(last[name]) for flag, name in FLAGS.items()},
            "events": Event.names(int(last["events"])),
            "config": vars(config),
            "history": {name: encode_array(records[name]) for name in records.dtype.names or ()},
        }
    )


def dump_path(folder: Path | str, asset: str, now_ns: int) -> Path:
    """The file's name: the asset's, made safe for a file system, and the moment."""
    moment = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return Path(folder).expanduser() / f"{quote(asset, safe='')[:100]}_emergency_{moment}.msgpack"


def prune_dumps(folder: Path, keep: int) -> None:
    """Removes all but the newest dumps."""
    dumps = folder.glob("*_emergency_*.msgpack")
    for path in sorted(dumps, key=lambda path: path.name.rpartition("_")[2], reverse=True)[keep:]:
        path.unlink(missing_ok=True)


def read_dump(path: Path) -> dict[str, Any]:
    """What a dump holds; `history` as NumPy records."""
    try:
        dump = msgpack.unpackb(path.read_bytes())
        columns = {name: decode_array(leaf) for name, leaf in dump["history"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = type(error).__name__  # its text may hold the whole file
        raise IntegrityError(f"{path} is not an emergency dump, or it is damaged ({why}).") from error
    dtype = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    history = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, column in columns.items():
        history[name] = column
    return {**dump, "history": history}

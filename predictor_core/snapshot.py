"""The state of one asset as a file that cannot be half right.

    +------------------------------------------------+-------------------------------+
    | MessagePack map                                | SHA-256 of the map, as 64     |
    | schema_version timestamp config global         | hexadecimal characters        |
    | telemetry flags kernels {A, B, C, D}           |                               |
    +------------------------------------------------+-------------------------------+

Every number of the state lies in `global` or in its kernel's block under its own name, as dtype, shape and bytes: what
is read is what was written, NaN and the last bit included. `telemetry`, `flags` and the last forecast are those that
were out. The sum is checked before anything is looked at, then the schema, then the shapes.
"""

import hashlib
import threading
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from .config import PredictorConfig
from .errors import IntegrityError, SchemaMismatch
from .graph import Program
from .result import Telemetry

SUM_BYTES = 64
KERNELS = {"A": "hilbert.", "B": "galerkin.", "C": "levy.", "D": "signature."}
FLAGS = {
    "degraded_inference": "degraded_inference_mode",
    "emergency": "emergency_mode",
    "regime_change": "regime_change_detected",
    "mode_collapse": "mode_collapse_warning",
}
RESTORE = "Load an older snapshot, or start cold."


@dataclass(frozen=True)
class Snapshot:
    """What a file holds."""

    config: PredictorConfig
    timestamp_ns: int  # when it was taken
    row: np.ndarray  # [1, words]
    last: np.ndarray | None  # the record of the last forecast; None before the first, or from another version


class Encoder:
    """Makes the MessagePack of a program's states, without its sum. What does not change is packed once.

    Safe to share between threads.
    """

    def __init__(self, program: Program, config: PredictorConfig) -> None:
        self._lock = threading.Lock()  # around the row, which is filled anew each time
        self._row = program.cold(1)
        self._start = _map(7) + _entry("schema_version", config.schema_version)
        self._config = _entry("config", vars(config))
        made_by = program.made_by(config.params())
        self._made_by = _entry("layout", program.layout_fingerprint) + _entry("made_by", made_by)
        self._leaves: dict[str, list[tuple[bytes, np.ndarray]]] = {"": [], **{kernel: [] for kernel in KERNELS}}
        for name, leaf in program.fields(self._row).items():
            up_to_data = _entry(name, encode_array(leaf[0]))[: -leaf.nbytes]
            self._leaves[_block_of(name)].append((up_to_data, leaf))

    def encode(self, row: np.ndarray, last: np.ndarray | None, timestamp_ns: int) -> bytes:
        with self._lock:
            self._row[...] = row
            blocks = {kernel: self._block(kernel) for kernel in self._leaves}
        kernels = [part for kernel in KERNELS for part in (pack(kernel), blocks[kernel])]
        return b"".join(
            [
                self._start,
                _entry("timestamp", timestamp_ns),
                self._config,
                pack("global") + _map(4) + self._made_by,
                pack("state") + blocks[""],
                _entry("last_result", _encoded_last(last)),
                _entry("telemetry", {} if last is None else telemetry_of(last)),
                _entry("flags", {flag: bool(last is not None and last[name]) for flag, name in FLAGS.items()}),
                pack("kernels") + _map(len(KERNELS)),
                *kernels,
            ]
        )

    def _block(self, kernel: str) -> bytes:
        leaves = self._leaves[kernel]
        return _map(len(leaves)) + b"".join([part for head, leaf in leaves for part in (head, leaf.tobytes())])


def pack(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert packed is not None
    return packed


def _map(length: int) -> bytes:
    """The head of a map, whose entries follow."""
    return msgpack.Packer().pack_map_header(length)


def _entry(name: str, value: Any) -> bytes:
    """One entry of a map: its name and its value."""
    return pack({name: value})[1:]


def _block_of(name: str) -> str:
    return next((kernel for kernel, prefix in KERNELS.items() if name.startswith(prefix)), "")


def _encoded_last(last: np.ndarray | None) -> dict[str, Any] | None:
    return None if last is None else {"fields": list(last.dtype.names or ()), "record": last.tobytes()}


def unseal(content: bytes, where: object) -> bytes:
    """The data of a file, if their sum is right."""
    data, found = content[:-SUM_BYTES], content[-SUM_BYTES:]
    expected = hashlib.sha256(data).hexdigest().encode()
    if len(content) <= SUM_BYTES or found != expected:
        raise IntegrityError(
            f"Checksum mismatch in snapshot {where} ({len(content)} bytes): the file is damaged or was cut short "
            f"(checksum mismatch: the data give {expected.decode()[:12]}…). {RESTORE}"
        )
    return data


def contents(content: bytes, where: object) -> dict[str, Any]:
    """The whole map of a file whose sum is right: for a look inside."""
    data = unseal(content, where)
    try:
        payload = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise IntegrityError(f"{where} is not a snapshot: it cannot be decoded ({error}). {RESTORE}") from error
    if not isinstance(payload, dict) or "schema_version" not in payload:
        raise IntegrityError(f"{where} is not a snapshot: it has no schema_version. {RESTORE}")
    return payload


def config_in(content: bytes, where: object) -> PredictorConfig:
    """The config that a snapshot was taken with."""
    try:
        return PredictorConfig.from_mapping(contents(content, where)["config"])
    except (ValueError, TypeError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise SchemaMismatch(f"the config in snapshot {where} is not one of this version: {error} {RESTORE}") from error


def decode(program: Program, config: PredictorConfig, content: bytes, where: object) -> Snapshot:
    """What a file holds, or IntegrityError, or SchemaMismatch."""
    payload = contents(content, where)
    if payload["schema_version"] != config.schema_version:
        raise SchemaMismatch(
            f"Schema version mismatch: snapshot={payload['schema_version']}, current={config.schema_version} "
            f"({where}). Load it with the version of this package that wrote it, or start cold."
        )
    try:
        shared = payload["global"]
        if shared["layout"] != program.layout_fingerprint:
            raise SchemaMismatch(_other_shapes(payload, program, config, where))
        leaves = dict(ChainMap(shared["state"], *payload["kernels"].values()))
        row = _filled(program, leaves, where)
        return Snapshot(config_in(content, where), payload["timestamp"], row, _last(program, shared["last_result"]))
    except (IntegrityError, SchemaMismatch):
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IntegrityError(f"snapshot {where} lacks a part ({error!r}). {RESTORE}") from error


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """A number or an array, to the bit."""
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}


def decode_array(leaf: Mapping[str, Any]) -> np.ndarray:
    """The reverse of encode_array."""
    return np.frombuffer(leaf["data"], leaf["dtype"]).reshape(leaf["shape"])


def telemetry_of(last: np.ndarray) -> dict[str, Any]:
    """Plain numbers, exact: every float32 is a float64."""
    return {name: last[name].tolist() for name in Telemetry._fields}


def _filled(program: Program, leaves: Mapping[str, Any], where: object) -> np.ndarray:
    row = program.cold(1)
    fields = program.fields(row)
    if fields.keys() != leaves.keys():
        raise SchemaMismatch(f"snapshot {where} differs in {sorted(fields.keys() ^ leaves.keys())}. {RESTORE}")
    for name, field in fields.items():
        leaf = leaves[name]
        if leaf["dtype"] != field.dtype.str or tuple(leaf["shape"]) != field.shape[1:]:
            raise SchemaMismatch(
                f"{name} in snapshot {where} is {leaf['dtype']}{leaf['shape']}, "
                f"the running config needs {field.dtype.str}{list(field.shape[1:])}. {RESTORE}"
            )
        field[0] = decode_array(leaf)
    return row


def _last(program: Program, kept: Mapping[str, Any] | None) -> np.ndarray | None:
    if kept is None or kept["fields"] != list(program.result_dtype.names or ()):
        return None
    return np.frombuffer(kept["record"], program.result_dtype)[0]


def _other_shapes(payload: Mapping[str, Any], program: Program, config: PredictorConfig, where: object) -> str:
    before, now = payload["config"], vars(config.static())
    differing = [name for name in now if _plain(before.get(name)) != _plain(now[name])]
    why = f"differing settings: {', '.join(differing)}" if differing else "another version of the model wrote it"
    return (
        f"Schema version mismatch: snapshot {where} has the shapes {payload['global']['layout'].hex()}, the running "
        f"config {program.layout_fingerprint.hex()} ({why}). Load it with the config inside it "
        "(UniversalPredictor.from_snapshot), or start cold."
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

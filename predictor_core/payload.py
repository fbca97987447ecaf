"""Predictions as bytes: each result is one MessagePack map of a fixed length, all of them made by a few strided stores.

    reference_prediction, confidence_lower, confidence_upper   float64
    quantiles           float64 for each level of payload_fields()["quantile_levels"]
    timestamp_ns        int64, of the tick that the forecast was made after
    operating_mode      0 inference, 1 calibration, 2 diagnostic
    events              uint32, bits of result.Event
    depth               of the signature
    made_by             8 bytes, Program.made_by
    telemetry           float32 for each name of payload_fields()["telemetry"]

Numbers are written at full width, whatever their size, so that every row has every field at the same place.
"""

from functools import lru_cache
from typing import NamedTuple

import msgpack
import numpy as np

from .config import PredictorConfig, Shapes
from .result import Telemetry, output_shape

FINGERPRINT_BYTES = 8
_NUMBERS = ("reference_prediction", "confidence_lower", "confidence_upper")


def payload_fields(config: PredictorConfig | Shapes) -> dict[str, list]:
    """What a reader needs to name the numbers of a payload's arrays."""
    return {"quantile_levels": list(config.quantile_levels), "telemetry": telemetry_names()}


def telemetry_names() -> list[str]:
    """The names of a payload's telemetry in turn; an array counts as its elements, as weights_a to weights_d."""
    names = []
    for name, leaf in output_shape(1).telemetry._asdict().items():
        names += [f"{name}_{letter}" for letter in "abcd"[: leaf.size]] if leaf.ndim else [name]
    return names


def payload_dtype(result_dtype: np.dtype) -> np.dtype:
    """A payload as a NumPy record: its fields are the numbers, the MessagePack around them lies in the gaps."""
    return _plan(result_dtype).dtype


def encode_payloads(results: np.ndarray, depth: int, made_by: bytes) -> np.ndarray:
    """The payloads of results as dtype 'V{n}' [m]."""
    assert len(made_by) == FINGERPRINT_BYTES
    plan = _plan(results.dtype)
    encoded = np.full(len(results), plan.blank)
    payloads = encoded.view(plan.dtype)
    for name in (*_NUMBERS, "timestamp_ns", "events", "operating_mode"):
        payloads[name] = results[name]
    payloads["quantiles"]["number"] = results["quantiles"]
    payloads["telemetry"]["number"] = results.view(plan.telemetry)["telemetry"]
    payloads["depth"] = depth
    payloads["made_by"] = np.void(made_by)
    return encoded


def _telemetry_as_one(result_dtype: np.dtype) -> np.dtype:
    """The same records with all telemetry as one array; it lies together, in order, at their end."""
    start = min(place[1] for name, place in (result_dtype.fields or {}).items() if name in Telemetry._fields)
    return np.dtype(
        {
            "names": ["telemetry"],
            "formats": [("<f4", len(telemetry_names()))],
            "offsets": [start],
            "itemsize": result_dtype.itemsize,
        }
    )


class _Plan(NamedTuple):
    """How results of one dtype become payloads."""

    dtype: np.dtype
    blank: np.void  # one record's bytes with everything but the numbers in place
    telemetry: np.dtype  # of the results, to see all of it at once


@lru_cache
def _plan(result_dtype: np.dtype) -> _Plan:
    levels, count = result_dtype["quantiles"].shape[0], len(telemetry_names())
    parts = [
        *((name, b"\xcb", ">f8", bytes(8)) for name in _NUMBERS),
        ("quantiles", _array_head(levels), _tagged(">f8", levels), (b"\xcb" + bytes(8)) * levels),
        ("timestamp_ns", b"\xd3", ">i8", bytes(8)),
        ("operating_mode", b"", "u1", b"\0"),  # small whole numbers are their own MessagePack
        ("events", b"\xce", ">u4", bytes(4)),
        ("depth", b"", "u1", b"\0"),
        ("made_by", b"\xc4\x08", f"V{FINGERPRINT_BYTES}", bytes(FINGERPRINT_BYTES)),
        ("telemetry", _array_head(count), _tagged(">f4", count), (b"\xca" + bytes(4)) * count),
    ]
    blank, names, formats, offsets = bytes([0x80 | len(parts)]), [], [], []
    for name, head, form, body in parts:
        blank += msgpack.packb(name) + head
        names.append(name)
        formats.append(form)
        offsets.append(len(blank))
        blank += body
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(blank)})
    return _Plan(dtype, np.void(blank), _telemetry_as_one(result_dtype))


def _array_head(length: int) -> bytes:
    return b"\xdc" + length.to_bytes(2, "big")


def _tagged(number: str, length: int) -> tuple[np.dtype, tuple[int]]:
    """An array of numbers, each behind the byte that says its type."""
    size = 1 + np.dtype(number).itemsize
    each = np.dtype({"names": ["number"], "formats": [number], "offsets": [1], "itemsize": size})
    return each, (length,)

"""A prediction as a line: the one place that turns payload bytes into named fields, for `tail` and `replay` alike.

For a terminal: an asset may hold any character, and those that would move its cursor or its colours are escaped.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgpack


def prediction_line(
    payload: bytes, fields: Mapping[str, Any], asset: str, partition: int | None = None, tick_id: str | None = None
) -> dict[str, Any]:
    """Every field of the result under its name; `fields` is what the fleet's meta says about the payload's lists."""
    from predictor_core.result import Event, OperatingMode  # loads JAX, so only once there is a prediction

    result = msgpack.unpackb(payload)
    telemetry = dict(zip(fields["telemetry"], result.pop("telemetry"), strict=True))
    return {
        "partition": partition,
        "tick_id": tick_id,
        "asset": asset,
        "timestamp_ns": result.pop("timestamp_ns"),
        **result,
        "made_by": result["made_by"].hex(),
        "mode": OperatingMode.to_string(result["operating_mode"]),
        "event_names": Event.names(result["events"]),
        "telemetry": telemetry,
    }


def json_line(line: Mapping[str, Any]) -> str:
    """Valid JSON: a number that is not finite becomes null."""
    return json.dumps(_finite(line), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def table_line(line: Mapping[str, Any]) -> str:
    """The same for a person: one row, fixed columns."""
    band = f"[{line['confidence_lower']:.6g}, {line['confidence_upper']:.6g}]"
    moment = datetime.fromtimestamp(line["timestamp_ns"] / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    where = f"{line['tick_id']:>20}  " if line["tick_id"] else ""
    told = " ".join([line["mode"], *line["event_names"]])
    return f"{where}{printable(line['asset']):<16} {moment}  {line['reference_prediction']:>12.6g}  {band:<28} {told}"


def printable(text: str) -> str:
    """The text with escapes for what a terminal would obey, not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

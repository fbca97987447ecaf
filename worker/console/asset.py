"""The recent past of one asset: each tick with the forecast that was made after it. Pure.

A forecast is for the tick that follows, so a value is held against the point before it. Where ticks in between were
not followed there is a gap, and nothing is held against anything.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgpack

POINTS_MAX = 240
FAN = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # of the fleet's levels, those nearest to these


class Point(NamedTuple):
    """One tick, and what was said after it about the next."""

    id: str
    time_ms: float
    value: float | None  # None: the log holds the tick no more
    forecast: float
    lower: float
    upper: float
    fan: tuple[float, ...]
    mode: int
    events: int
    depth: int
    roughness: float
    weights: tuple[float, ...]
    follows: bool  # on the point before it, with no tick of the asset between


class Form:
    """Which of a payload's numbers are which, by what the fleet's meta says."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        levels, names = list(fields.get("quantile_levels", ())), list(fields.get("telemetry", ()))
        places = sorted({min(range(len(levels)), key=lambda i: abs(levels[i] - want)) for want in FAN if levels})
        self.levels = [levels[place] for place in places]
        self._places = places
        self._roughness = names.index("holder_exponent") if "holder_exponent" in names else None
        self._weights = [place for place, name in enumerate(names) if name.startswith("weights_")]

    def read(self, entry_id: bytes, payload: bytes, value: float | None, follows: bool) -> Point:
        """A point out of a prediction's bytes; raises ValueError where they are not what a worker writes."""
        try:
            made = msgpack.unpackb(payload)
            telemetry = made["telemetry"]
            return Point(
                id=entry_id.decode(),
                time_ms=made["timestamp_ns"] / 1e6,
                value=value,
                forecast=made["reference_prediction"],
                lower=made["confidence_lower"],
                upper=made["confidence_upper"],
                fan=tuple(made["quantiles"][place] for place in self._places),
                mode=made["operating_mode"],
                events=made["events"],
                depth=made["depth"],
                roughness=float("nan") if self._roughness is None else telemetry[self._roughness],
                weights=tuple(telemetry[place] for place in self._weights),
                follows=follows,
            )
        except (KeyError, TypeError, IndexError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"the prediction {entry_id!r} cannot be decoded ({error!r})") from None


class Trail:
    """The last points of one asset; `count` numbers them, so that each viewer knows which it has seen."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)
        self.count = self.judged = self.covered = 0

    def add(self, point: Point) -> None:
        before = self.points[-1] if self.points else None
        if before is not None and point.follows and point.value is not None:
            self.judged += 1
            self.covered += before.lower <= point.value <= before.upper
        self.points.append(point)
        self.count += 1

    def since(self, count: int) -> Sequence[Point]:
        """The points after so many; all that are kept, if some of them are gone."""
        fresh = min(len(self.points), self.count - count)
        return list(islice(self.points, len(self.points) - fresh, None))

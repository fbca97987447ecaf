"""Maps knobs between native units and the unit coordinates in which everything is tuned.

    linear  u = (x - lo) / (hi - lo)        log  u = ln(x / lo) / ln(hi / lo)

Whole-number knobs are rounded when they are shown; the coordinate that is then in force is that of the rounded value.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from scheduler.hotpath.checks import require

Vec = tuple[float, ...]
KNOBS_MAX = 65_536
SCHEMA = 1


@dataclass(frozen=True)
class Knob:
    """One number that may be tuned: its range in native units and how to walk through it."""

    name: str
    lo: float
    hi: float
    default: float
    kind: Literal["float", "int"] = "float"
    scale: Literal["linear", "log"] = "linear"
    unit: str = ""
    group: str = "transport"
    min_probe: float = 0.0  # The smallest useful change, native units.
    max_delta: float | None = None  # The largest step as a share of the range; overrides the guardrails.
    online: bool = True

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "not empty", repr(self.name))
        numbers = (self.lo, self.hi, self.default, self.min_probe)
        require(all(map(math.isfinite, numbers)) and self.lo < self.hi, f"range of {self.name}", "lo < hi", numbers)
        require(self.lo <= self.default <= self.hi, f"default of {self.name}", f"in {self.lo}..{self.hi}", self.default)
        require(self.kind in ("float", "int"), f"kind of {self.name}", "float or int", self.kind)
        whole = self.kind == "float" or (self.lo == int(self.lo) and self.hi == int(self.hi))
        require(whole, f"range of {self.name}", "whole numbers for kind int", (self.lo, self.hi))
        require(self.scale in ("linear", "log"), f"scale of {self.name}", "linear or log", self.scale)
        require(self.scale == "linear" or self.lo > 0, f"lo of {self.name}", "positive on a log scale", self.lo)
        require(self.min_probe >= 0, f"min_probe of {self.name}", "not negative", self.min_probe)
        good = self.max_delta is None or 0 < self.max_delta <= 1
        require(good, f"max_delta of {self.name}", "in (0, 1]", self.max_delta)

    def to_unit(self, native: float) -> float:
        if self.scale == "log":
            return math.log(native / self.lo) / math.log(self.hi / self.lo)
        return (native - self.lo) / (self.hi - self.lo)

    def to_native(self, unit: float) -> float | int:
        """Shows a coordinate in native units; whole-number knobs are rounded, ties to even."""
        if self.scale == "log":
            native = self.lo * (self.hi / self.lo) ** unit
        else:
            native = self.lo + unit * (self.hi - self.lo)
        native = min(max(native, self.lo), self.hi)
        return round(native) if self.kind == "int" else native

    def realised(self, unit: float) -> float:
        """The coordinate that is in force when `unit` is asked for."""
        return self.to_unit(self.to_native(unit)) if self.kind == "int" else unit

    def probe(self, unit: float) -> float:
        """The smallest useful change as a distance in coordinates, seen from `unit`."""
        if not self.min_probe:
            return 0.0
        native = float(self.to_native(unit))
        other = native + self.min_probe if native + self.min_probe <= self.hi else native - self.min_probe
        return abs(self.to_unit(max(other, self.lo)) - self.to_unit(native))


class KnobRegistry:
    """The knobs of one optimiser, in the order of their index; never changes during a run."""

    def __init__(self, knobs: Sequence[Knob]):
        self.knobs = tuple(knobs)
        self.names = tuple(knob.name for knob in self.knobs)
        require(0 < len(self.knobs) <= KNOBS_MAX, "number of knobs", f"1 to {KNOBS_MAX}", len(self.knobs))
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        require(not twice, "names of knobs", "unique", twice)
        self._ids = {name: index for index, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.knobs)

    @property
    def hash64(self) -> int:
        """Changes whenever anything about the knobs or their order does."""
        text = json.dumps([SCHEMA, [asdict(knob) for knob in self.knobs]], sort_keys=True)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())

    def get_id(self, name: str) -> int:
        require(name in self._ids, "knob", f"one of {', '.join(self.names)}", name)
        return self._ids[name]

    def get_name(self, index: int) -> str:
        require(0 <= index < len(self), "index of a knob", f"0 to {len(self) - 1}", index)
        return self.names[index]

    def defaults(self) -> Vec:
        return tuple(knob.to_unit(knob.default) for knob in self.knobs)

    def to_vec(self, natives: Mapping[str, float]) -> Vec:
        """Reads native values by name; every knob exactly once, each inside its range."""
        unknown, missing = sorted(set(natives) - set(self.names)), sorted(set(self.names) - set(natives))
        require(not unknown and not missing, "names", "those of the registry", {"unknown": unknown, "missing": missing})
        for knob in self.knobs:
            require(knob.lo <= natives[knob.name] <= knob.hi, knob.name, f"in {knob.lo}..{knob.hi}", natives[knob.name])
        return tuple(knob.to_unit(natives[knob.name]) for knob in self.knobs)

    def to_natives(self, vec: Vec) -> dict[str, float | int]:
        return {knob.name: knob.to_native(unit) for knob, unit in zip(self.knobs, vec, strict=True)}

    def realised(self, vec: Vec) -> Vec:
        return tuple(knob.realised(unit) for knob, unit in zip(self.knobs, vec, strict=True))

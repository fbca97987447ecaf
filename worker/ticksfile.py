"""Reads ticks from a CSV file with a header: `asset,timestamp_ns,value`, and optionally `arrival_ns` and `depth`.

The whole file is checked before the first tick is used, so a bad line 9000 does not leave 8999 ticks behind.
"""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scheduler.partitions import check_asset
from scheduler.shedding import PRUNED, SheddingRules
from worker.errors import BadInput

NEEDED = ("asset", "timestamp_ns", "value")
OPTIONAL = ("arrival_ns", "depth")
DEPTHS = (PRUNED, *SheddingRules().depths)  # that a fleet makes predictions at
_REAL, _WHOLE = set("0123456789+-.eE"), set("0123456789+-")  # float() and int() also take "1_5": no log does


class TicksFile:
    """The columns of a file, in its order; `finite` refuses values that no log would take."""

    def __init__(self, path: Path, finite: bool = False) -> None:
        self._finite = finite
        self.assets: list[str] = []
        columns: dict[str, list] = {name: [] for name in (*NEEDED[1:], *OPTIONAL)}
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                self._read(path, csv.reader(file, strict=True), columns)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8 text (byte {error.start})") from None
        self.times_ns = np.array(columns["timestamp_ns"], np.int64)
        self.values = np.array(columns["value"], np.float64)
        self.arrivals_ns = np.array(columns["arrival_ns"], np.int64) if columns["arrival_ns"] else self.times_ns
        self.depths = np.array(columns["depth"], np.int32) if columns["depth"] else None

    def __len__(self) -> int:
        return len(self.assets)

    def _read(self, path: Path, rows: Any, columns: dict[str, list]) -> None:
        places = _places(path, next(rows, []))
        width = max(places.values()) + 1
        try:
            for row in rows:
                where = f"{path} line {rows.line_num}"
                if not row:
                    continue
                if len(row) < width:
                    raise BadInput(f"{where}: expected {width} columns, found {len(row)}")
                self.assets.append(_asset(row[places["asset"]], where))
                for name, place in places.items():
                    if name != "asset":
                        columns[name].append(self._number(row[place], name, where))
        except csv.Error as error:
            raise BadInput(f"{path} line {rows.line_num}: {error}") from None

    def _number(self, text: str, name: str, where: str) -> float | int:
        number = _number(text, name, where)
        if self._finite and not math.isfinite(number):
            raise BadInput(f"{where}: {name} must be finite, found {text!r}")
        return number


def _places(path: Path, header: list[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise BadInput(f"{path} line 1: the header needs {','.join(NEEDED)}; missing: {', '.join(missing)}")
    return {name: names.index(name) for name in (*NEEDED, *OPTIONAL) if name in names}


def _asset(text: str, where: str) -> str:
    try:
        check_asset(text)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    return text


def _number(text: str, name: str, where: str) -> float | int:
    kind: Callable[[str], float | int] = float if name == "value" else int
    try:
        number = kind(text)
        strange = set(text.strip()) - (_WHOLE if kind is int else _REAL)
        if strange and (kind is int or math.isfinite(number)):  # what is not finite has letters
            raise ValueError
    except ValueError:
        expected = "a number" if kind is float else "a whole number"
        raise BadInput(f"{where}: {name} must be {expected}, found {text!r}") from None
    if kind is int and not -(2**63) <= number < 2**63:
        raise BadInput(f"{where}: {name} must fit in 64 bits, found {text!r}")
    if name == "depth" and number not in DEPTHS:
        raise BadInput(f"{where}: depth must be one of {', '.join(map(str, DEPTHS))}, found {text!r}")
    return number

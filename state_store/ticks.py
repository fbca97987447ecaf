"""Turns the reply of an XREAD into columns, and finds the ticks that cannot be used.

A batch in which every entry has the same fields in the same order, every number is plain and every asset known
takes the columnar way; anything else is looked at tick by tick. Both ways give the same columns. Frames are opened run
by run; a cursor may lie in the middle of one.

The numbers of a small read are read one by one by what Python has built in: arrays are faster from some hundred ticks
on, but they cost a worker that sees few at a time twice as much, since their code is in no cache by then.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import chain, groupby
from math import isfinite
from operator import itemgetter
from typing import cast

import numpy as np
from numpy.typing import NDArray

from state_store.contract import START, Ticks, id_order, joined, tick_fields
from state_store.frames import Opened, is_frame, ticks_in
from state_store.keys import ASSET_BYTES_MAX, asset_fault, partition_of

REQUEST_ID_BYTES_MAX = 256
KNOWN_MAX = 65_536
_INT64 = np.iinfo(np.int64)
_ARRIVAL_MS_MAX = int(_INT64.max) // 1_000_000
_REAL_BYTES = b"0123456789+-.eE"  # float() also takes b"1_0", b" 1", b"nan": none of them is a number here.
_INTEGER_BYTES = b"0123456789+-"
_FEW = 128  # Ticks; the numbers of more are read by arrays.
_NANOSECOND_DIGITS = 19
_MILLISECOND_DIGITS = 13
_POWERS = {n: 10 ** np.arange(n - 1, -1, -1, dtype=np.uint64) for n in (_MILLISECOND_DIGITS, _NANOSECOND_DIGITS)}
_ID, _FIELDS = itemgetter(0), itemgetter(1)


class AssetCheck:
    """Says what is wrong with an asset in this partition's log; remembers those that are fine."""

    def __init__(self, partition: int, partitions: int):
        self.partition = partition
        self.partitions = partitions
        self.known: set[bytes] = set()

    def passes(self, assets: Sequence[bytes]) -> bool:
        """Tells whether all of them have been found fine before."""
        return self.known.issuperset(assets)

    def fault(self, asset: bytes) -> str | None:
        if asset in self.known:
            return None
        fault = asset_fault(asset) or self._misplaced(asset)
        if fault is None:
            if len(self.known) >= KNOWN_MAX:
                self.known.clear()
            self.known.add(asset)
        return fault

    def _misplaced(self, asset: bytes) -> str | None:
        home = partition_of(asset, self.partitions)
        if home == self.partition:
            return None
        return f"asset belongs to partition {home} (crc32 mod {self.partitions}), not {self.partition}"


def parse(entries: list, check: AssetCheck, after: bytes = START, count: int = sys.maxsize) -> Ticks:
    """Turns stream entries `[[id, [name, value, ...]], ...]` into columns: up to `count` ticks after an id.

    There are no more entries than ticks are wanted; a frame that does not fit whole is left out, but never the first.
    """
    ids = list(map(_ID, entries))
    fields = list(map(_FIELDS, entries))
    columns = _alike(fields) if fields else None
    if (columns is None or b"a" not in columns) and any(map(is_frame, fields)):
        return _in_runs(entries, check, after, count)
    arrivals_ns = _arrivals(ids)
    if columns is not None and {b"a", b"y", b"t"} <= columns.keys() and check.passes(columns[b"a"]):
        values, times_ns = _reals(columns[b"y"]), _integers(columns[b"t"])
        requests = cast("list[bytes | None] | None", columns.get(b"r"))
        short = max(map(len, columns.get(b"r", ids))) <= REQUEST_ID_BYTES_MAX
        if values is not None and times_ns is not None and short:
            return Ticks(ids, columns[b"a"], values, times_ns, arrivals_ns, requests, {}, fields)
    return _one_by_one(ids, fields, arrivals_ns, check)


def _in_runs(entries: list, check: AssetCheck, after: bytes, count: int) -> Ticks:
    """Frames and single ticks in turn."""
    whole = np.searchsorted(np.cumsum([ticks_in(fields) for _, fields in entries]), count, side="right")
    parts: list[Ticks] = []
    for framed, run in groupby(entries[: max(1, int(whole))], lambda entry: is_frame(entry[1])):
        some = list(run)
        parts.append(_of_frames(some, check, after) if framed else parse(some, check))
        after = some[-1][0]
    return joined(parts)[:count]


def _of_frames(entries: list, check: AssetCheck, after: bytes) -> Ticks:
    opened, last = Opened(), id_order(after)
    for entry_id, fields in entries:
        opened.add(entry_id, fields, last)
        last = id_order(entry_id)
    values = np.frombuffer(b"".join(opened.values), "<f8").astype(np.float64)
    times_ns = np.frombuffer(b"".join(opened.times), "<i8").astype(np.int64)
    arrivals_ns = np.repeat(_arrivals([entry_id for entry_id, _ in entries]), opened.counts)
    malformed = {} if check.passes(opened.assets) else _faults(opened.assets, check)
    for place in np.flatnonzero(~np.isfinite(values)).tolist():
        malformed.setdefault(place, f"not finite: '{float(values[place])}'")
    sent: list[list[bytes] | None] = [None] * len(values)
    for place in malformed:
        sent[place] = tick_fields(opened.assets[place], values[place], times_ns[place])
    values[list(malformed)] = np.nan
    assets = [asset[:ASSET_BYTES_MAX] for asset in opened.assets] if malformed else opened.assets
    for place, (fields, fault) in opened.broken.items():
        malformed[place], sent[place] = fault, fields
    return Ticks(opened.ids, assets, values, times_ns, arrivals_ns, None, malformed, sent)


def _faults(assets: list[bytes], check: AssetCheck) -> dict[int, str]:
    faults = ((place, check.fault(asset)) for place, asset in enumerate(assets))
    return {place: fault for place, fault in faults if fault is not None}


def _alike(fields: list[list[bytes]]) -> dict[bytes, list[bytes]] | None:
    """Splits entries that name the same fields in the same order into columns, by field."""
    width, count = len(fields[0]), len(fields)
    if set(map(len, fields)) != {width}:
        return None
    flat = list(chain.from_iterable(fields))
    columns = {}
    for place in range(0, width, 2):
        name = flat[place]
        if flat[place::width].count(name) != count:
            return None
        columns[name] = flat[place + 1 :: width]
    return columns


def _reals(texts: list[bytes]) -> NDArray[np.float64] | None:
    if b"".join(texts).translate(None, _REAL_BYTES):
        return None
    try:
        values = list(map(float, texts))
    except ValueError:
        return None
    return np.array(values) if all(map(isfinite, values)) else None


def _integers(texts: list[bytes]) -> NDArray[np.int64] | None:
    if len(texts) > _FEW and set(map(len, texts)) == {_NANOSECOND_DIGITS}:
        numbers = _digits(b"".join(texts), _NANOSECOND_DIGITS)
        if numbers is not None and numbers.max() <= _INT64.max:
            return numbers.astype(np.int64)
    if b"".join(texts).translate(None, _INTEGER_BYTES):
        return None
    try:
        return np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        return None


def _digits(text: bytes, width: int, stride: int | None = None) -> NDArray[np.uint64] | None:
    """Reads decimal numbers of one width from a text, all at once."""
    matrix = np.frombuffer(text, np.uint8).reshape(-1, stride or width)[:, :width] - 48  # Below b"0" wraps above 9.
    if matrix.max() > 9:
        return None
    return matrix.astype(np.uint64) @ _POWERS[width]


def _arrivals(ids: list[bytes]) -> NDArray[np.int64]:
    """Gives the milliseconds of stream ids, in nanoseconds; one beyond 64 bits counts as the last instant."""
    milliseconds = _leading_milliseconds(ids) if len(ids) > _FEW else None
    if milliseconds is None:
        limited = [min(int(entry_id.partition(b"-")[0]), _ARRIVAL_MS_MAX) for entry_id in ids]
    else:
        limited = np.minimum(milliseconds, np.uint64(_ARRIVAL_MS_MAX))
    return np.array(limited, np.int64) * 1_000_000


def _leading_milliseconds(ids: list[bytes]) -> NDArray[np.uint64] | None:
    """The same for ids of this time, which all have as many digits before the dash."""
    stride = _MILLISECOND_DIGITS + 1
    heads = b"".join([entry_id[:stride] for entry_id in ids])
    if len(heads) != stride * len(ids) or heads[_MILLISECOND_DIGITS::stride] != b"-" * len(ids):
        return None
    return _digits(heads, _MILLISECOND_DIGITS, stride)


def _one_by_one(
    ids: list[bytes], fields: list[list[bytes]], arrivals_ns: NDArray[np.int64], check: AssetCheck
) -> Ticks:
    assets, requests, malformed = [], [], {}
    values, times_ns = np.full(len(ids), np.nan), np.zeros(len(ids), np.int64)
    for index, pieces in enumerate(fields):
        named = dict(zip(pieces[0::2], pieces[1::2], strict=False))
        asset, request = named.get(b"a", b""), named.get(b"r")
        assets.append(asset[:ASSET_BYTES_MAX])
        requests.append(request if request is None else request[:REQUEST_ID_BYTES_MAX])
        value, time_ns, fault = read_tick(named, check.fault)
        times_ns[index] = time_ns
        if fault is None:
            values[index] = value
        else:
            malformed[index] = fault
    request_ids = requests if any(request is not None for request in requests) else None
    return Ticks(ids, assets, values, times_ns, arrivals_ns, request_ids, malformed, fields)


def read_tick(
    named: dict[bytes, bytes], asset_fault: Callable[[bytes], str | None]
) -> tuple[float, int, str | None]:
    """Reads one tick slowly: its value, its time and what is wrong with it."""
    missing = next((name for name in (b"a", b"y", b"t") if name not in named), None)
    if missing is not None:
        return np.nan, 0, f"no field {missing.decode()}"
    time_ns, time_fault = _read_time(named[b"t"])
    value, value_fault = _read_value(named[b"y"])
    request_fault = "request id is too long" if len(named.get(b"r", b"")) > REQUEST_ID_BYTES_MAX else None
    return value, time_ns, asset_fault(named[b"a"]) or value_fault or time_fault or request_fault


def _read_value(text: bytes) -> tuple[float, str | None]:
    try:
        value = float(text)
    except ValueError:
        return np.nan, f"not a number: {_shown(text)}"
    if not np.isfinite(value):
        return np.nan, f"not finite: {_shown(text)}"
    if text.translate(None, _REAL_BYTES):
        return np.nan, f"not a number: {_shown(text)}"
    return value, None


def _read_time(text: bytes) -> tuple[int, str | None]:
    fault = f"timestamp is not an integer: {_shown(text)}"
    try:
        time_ns = int(text)
    except ValueError:
        return 0, fault
    if text.translate(None, _INTEGER_BYTES):
        return 0, fault
    if not _INT64.min <= time_ns <= _INT64.max:
        return 0, f"timestamp does not fit 64 bits: {_shown(text)}"
    return time_ns, None


def _shown(text: bytes) -> str:
    """Quotes what was found, cut to a length fit for a log line."""
    return repr(text[:40].decode(errors="backslashreplace"))

"""Tick frames: many ticks of one partition as one entry of its log, for producers that send many at once.

    n    how many ticks, 1 to 256, as text
    f    +---------+----------------+------------------+--------------------------------+
         | version | event times    | values           | assets                         |
         | 1 byte  | n x int64, ns  | n x float64      | names with a byte 255 between  |
         +---------+----------------+------------------+--------------------------------+

Numbers are little-endian; the byte 255 stands in no UTF-8 text. The entry's id is that of its last tick; those before
have the sequence numbers right below, in the same millisecond, so every tick has an id of its own that no other entry
can get. An id is taken once: should a frame begin before the entry in front of it ends, its ticks up to there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack

from state_store.keys import ASSET_BYTES_MAX

FRAME_TICKS_MAX = 256
VERSION = b"\x01"
BETWEEN = b"\xff"
NUMBER_BYTES = 8
FRAME_BYTES_MAX = len(VERSION) + FRAME_TICKS_MAX * (2 * NUMBER_BYTES + ASSET_BYTES_MAX + len(BETWEEN))
_NO_NUMBER = bytes(NUMBER_BYTES)
_NAN = pack("<d", float("nan"))
_SEQUENCES = [b"%d" % number for number in range(4096)]
Order = tuple[int, int]


def encode_frame(assets: Sequence[bytes], values: Sequence[float], times_ns: Sequence[int]) -> bytes:
    """Packs ticks, whose assets must be UTF-8."""
    count = len(assets)
    return VERSION + pack(f"<{count}q", *times_ns) + pack(f"<{count}d", *values) + BETWEEN.join(assets)


def is_frame(fields: Sequence[bytes]) -> bool:
    """Tells a frame's names and values from those of a single tick."""
    return len(fields) == 4 and fields[0] == b"n" and fields[2] == b"f"


def ticks_in(fields: Sequence[bytes]) -> int:
    """How many ticks an entry counts for: what a frame says, broken or not, else 1."""
    return _count(fields[1]) or 1 if is_frame(fields) else 1


def ticks_an_entry(entries: Sequence) -> float:
    """How many ticks entries of a log hold, on average; 1 where neither the first nor the last is a frame."""
    if not entries or not (is_frame(entries[0][1]) or is_frame(entries[-1][1])):
        return 1.0  # So a log without frames, the usual one, is not looked through.
    return sum(ticks_in(fields) for _, fields in entries) / len(entries)


def _count(text: bytes) -> int:
    """The number of ticks, 0 where it is none that a frame may have."""
    count = int(text) if text.isdigit() and len(text) <= len(str(FRAME_TICKS_MAX)) else 0
    return count if count <= FRAME_TICKS_MAX else 0


@dataclass(slots=True)
class Opened:
    """Ticks of frames, still as bytes; `broken` are frames that hold none that one could read, a row each."""

    ids: list[bytes] = field(default_factory=list)
    assets: list[bytes] = field(default_factory=list)
    times: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # Rows of each frame.
    broken: dict[int, tuple[list[bytes], str]] = field(default_factory=dict)  # As it was sent, and what is wrong.

    def add(self, entry_id: bytes, fields: Sequence[bytes], after: Order) -> None:
        """Appends a frame's ticks after an id, or one row with what is wrong."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        last, count, frame = int(sequence), _count(fields[1]), fields[3]
        times_end = len(VERSION) + NUMBER_BYTES * count
        values_end = times_end + NUMBER_BYTES * count
        names = frame[values_end:].split(BETWEEN) if len(frame) <= FRAME_BYTES_MAX else []
        if fault := _fault(count, frame, values_end, len(names), last):
            self.broken[len(self.ids)] = list(fields), fault
            self._row(entry_id)
            return
        skip = max(0, after[1] - (last - count)) if after[0] == int(milliseconds) else 0
        assert skip < count, "an entry's own id comes after those before it"
        self.ids += _ids(milliseconds + b"-", last + 1 - count + skip, last + 1)
        self.assets += names[skip:] if skip else names
        self.times.append(frame[len(VERSION) + NUMBER_BYTES * skip : times_end])
        self.values.append(frame[times_end + NUMBER_BYTES * skip : values_end])
        self.counts.append(count - skip)

    def _row(self, entry_id: bytes) -> None:
        for column, value in ((self.ids, entry_id), (self.assets, b""), (self.times, _NO_NUMBER), (self.values, _NAN)):
            column.append(value)
        self.counts.append(1)


def _fault(count: int, frame: bytes, values_end: int, names: int, last: int) -> str:
    if len(frame) > FRAME_BYTES_MAX:
        return f"frame is longer than {FRAME_BYTES_MAX} bytes"
    if not count:
        return f"frame does not say how many ticks it holds, 1 to {FRAME_TICKS_MAX}"
    if frame[: len(VERSION)] != VERSION:
        return f"frame is not of version {VERSION[0]}"
    if len(frame) < values_end or names != count:
        return f"frame does not hold the {count} ticks that it should"
    return "frame has more ticks than ids were kept free for it" if last + 1 < count else ""


def _ids(opening: bytes, first: int, end: int) -> list[bytes]:
    if end <= len(_SEQUENCES):
        return [opening + text for text in _SEQUENCES[first:end]]
    return [opening + b"%d" % number for number in range(first, end)]

"""Rows as they are stored: checked records, little-endian.

    +--------+-------+--------------------+------------------+-------------------------------+
    | "USP1" | words | layout fingerprint |       row        | xxh3_64 of all that is before |
    |   4    |   4   |         8          | 4 or 8 each word |               8               |
    +--------+-------+--------------------+------------------+-------------------------------+
"""

import struct

import numpy as np
from xxhash import xxh3_64_intdigest

from .errors import CorruptRecord, WrongLayout

MAGIC = b"USP1"
HEADER = struct.Struct("<4sI8s")
CHECKSUM_BYTES = 8
GATHERED_AT_ONCE = 64  # rows; a copy of many would be new memory each time, which costs ten times the copying
WORDS = (np.dtype(np.uint32), np.dtype(np.uint64))
_RESTORE = "Restore it from a backup, or delete it to let the asset start cold."


def record_bytes(words: int, word: np.dtype) -> int:
    return HEADER.size + words * word.itemsize + CHECKSUM_BYTES


def encode_records(rows: np.ndarray, layout_fingerprint: bytes, places: np.ndarray | None = None) -> np.ndarray:
    """The records uint8 [n, record_bytes] of rows [n, words], or of those at some places."""
    places = np.arange(len(rows)) if places is None else places
    words = rows.shape[1]
    records = np.empty((len(places), record_bytes(words, rows.dtype)), np.uint8)
    body = records[:, :-CHECKSUM_BYTES]
    body[:, : HEADER.size] = np.frombuffer(HEADER.pack(MAGIC, words, layout_fingerprint), np.uint8)
    for start in range(0, len(places), GATHERED_AT_ONCE):
        gathered = rows[places[start : start + GATHERED_AT_ONCE]]
        body[start : start + len(gathered), HEADER.size :] = gathered.view(np.uint8)
    sums = np.fromiter(map(xxh3_64_intdigest, body), "<u8", len(places))
    records[:, -CHECKSUM_BYTES:] = sums[:, None].view(np.uint8)
    return records


def decode_record(record: bytes, layout_fingerprint: bytes) -> np.ndarray:
    """The row of one record, read-only; or CorruptRecord, or WrongLayout."""
    words, found = _header(record)
    word = _word(record, words)
    if xxh3_64_intdigest(record[:-CHECKSUM_BYTES]) != int.from_bytes(record[-CHECKSUM_BYTES:], "little"):
        raise CorruptRecord(f"the checksum of this state record does not match its {len(record)} bytes. {_RESTORE}")
    if found != layout_fingerprint:
        raise WrongLayout(
            f"this state record has layout {found.hex()}, the running config and version have "
            f"{layout_fingerprint.hex()}. Run with those that wrote it, or let the asset start cold."
        )
    return np.frombuffer(record, word, words, HEADER.size)


def _header(record: bytes) -> tuple[int, bytes]:
    """The number of words, and the layout fingerprint."""
    least = HEADER.size + CHECKSUM_BYTES
    if len(record) < least:
        raise CorruptRecord(f"a state record has more than {least} bytes, this one has {len(record)}. {_RESTORE}")
    magic, words, layout = HEADER.unpack_from(record)
    if magic != MAGIC:
        raise CorruptRecord(f"a state record starts with {MAGIC!r}, this one with {record[:4]!r}. {_RESTORE}")
    return words, layout


def _word(record: bytes, words: int) -> np.dtype:
    """The dtype of the row: its size follows from the record's."""
    for word in WORDS:
        if words and len(record) == record_bytes(words, word):
            return word
    raise CorruptRecord(f"a state record of {words} words cannot have {len(record)} bytes. {_RESTORE}")

"""Chains audit records by hash, so that a changed, missing or moved record shows.

    link(n) = sha256(link(n-1) + record(n)),  link(-1) = 32 zero bytes
    line    = link(n) in hex, one space, the record, newline

Whoever keeps a link can tell later that nothing up to it was touched.
"""

import hashlib
from collections.abc import Iterable

ROOT = bytes(32)


def link(previous: bytes, record: bytes) -> bytes:
    """The hash that stands for a record and all before it."""
    return hashlib.sha256(previous + record).digest()


def chain(records: Iterable[bytes], head: bytes = ROOT) -> tuple[list[bytes], bytes]:
    """Turns records into lines that continue an archive; returns the lines and the new head."""
    lines = []
    for record in records:
        head = link(head, record)
        lines.append(head.hex().encode() + b" " + record + b"\n")
    return lines, head


def verify(lines: Iterable[bytes], head: bytes = ROOT) -> tuple[int | None, bytes]:
    """Walks an archive: the number of the first line that does not fit (None if all do), and the last good head."""
    for number, line in enumerate(lines):
        found, _, record = line.removesuffix(b"\n").partition(b" ")
        following = link(head, record)
        if found != following.hex().encode():
            return number, head
        head = following
    return None, head

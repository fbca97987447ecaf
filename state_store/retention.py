"""Where a partition's log may be cut: by its own cursor, never by length, so that no unread tick is lost.

A mark remembers which cursor belonged to which count of applied ticks. The marks are stored with the commit, so
a new holder cuts on where the old one stopped.
"""

from functools import lru_cache

MARKS_MAX = 8
Mark = tuple[int, bytes]  # Ticks applied, cursor.


def advance(marks: tuple[Mark, ...], applied: int, cursor: bytes, keep: int) -> tuple[tuple[Mark, ...], bytes | None]:
    """Adds a mark when one is due; gives the id before which ticks may go when it has moved."""
    if marks and applied - marks[-1][0] < max(1, keep // MARKS_MAX):
        return marks, None
    marks = (*marks, (applied, cursor))
    while len(marks) > 1 and applied - marks[1][0] >= keep:
        marks = marks[1:]
    return marks, marks[0][1] if applied - marks[0][0] >= keep else None


def encode_marks(marks: tuple[Mark, ...]) -> bytes:
    """Writes marks as `applied:cursor applied:cursor`."""
    return b" ".join(b"%d:%b" % mark for mark in marks)


@lru_cache(maxsize=4096)  # They change once in many commits.
def decode_marks(text: bytes) -> tuple[Mark, ...]:
    """Reads marks back."""
    pairs = (word.partition(b":") for word in text.split())
    return tuple((int(applied), cursor) for applied, _, cursor in pairs)

"""Finds assets by a part of their names: the server scans, a page at a time, and only what matches travels."""

from dataclasses import dataclass

from state_store.glances import SCAN_BEGIN, Glances

FOUND_MAX = 40
SCANNED_MAX = 2_000_000  # names looked through for one search
PAGE, PAGE_MAX = 200, 4000
TEXT_MAX = 256


@dataclass(frozen=True)
class Found:
    """Names that match, the best first; `all` says whether there are no others."""

    names: list[str]
    all: bool


async def search(glances: Glances, partitions: int, text: str) -> Found:
    """The exact name first, then names that begin so, then names that hold it; letters of either case."""
    found, scanned = set[bytes](), 0
    exact = text.encode()
    if exact and await glances.newest(exact):
        found.add(exact)
    for partition in range(partitions):
        place, page = SCAN_BEGIN, PAGE
        while True:
            place, names = await glances.names(partition, place, pattern(text), page)
            found.update(names)
            scanned += page
            if len(found) > FOUND_MAX or scanned > SCANNED_MAX:
                return _ranked(found, text, False)
            if place == SCAN_BEGIN:
                break
            page = page if names else min(2 * page, PAGE_MAX)  # Where little matches little travels.
    return _ranked(found, text, True)


def pattern(text: str) -> bytes:
    """The text as a pattern of the server, anywhere in a name and in either case."""
    return b"*" + "".join(map(_either, text)).encode() + b"*"


def _either(letter: str) -> str:
    if letter.isascii() and letter.isalpha():
        return f"[{letter.lower()}{letter.upper()}]"
    return f"\\{letter}" if letter in "*?[]\\^-" else letter


def _ranked(found: set[bytes], text: str, whole: bool) -> Found:
    names = [name.decode(errors="backslashreplace") for name in found]
    low = text.lower()
    names.sort(key=lambda name: (name != text, not name.lower().startswith(low), name))
    return Found(names[:FOUND_MAX], whole and len(names) <= FOUND_MAX)

"""Ticks as the bytes of `XADD` commands, made once: what a tick still needs is a copy and the digits of its event time.

    *9 XADD usp:{3}:ticks * a asset-0000012 y 501.27340511 t 1700000000000000000
                              `- all rows have one width -'  `- written last

A partition of two digits takes an asset's name that is one letter shorter, so that every row is as long as the others.
"""

from collections.abc import Callable
from zlib import crc32

import numpy as np

from state_store.keys import Keys
from state_store.wire import encode

ROUNDS = 16  # different values of each asset, used again and again
ROWS_MAX = 400_000  # of many assets fewer values are made
NAME_BYTES = 14  # of asset and partition number together
TIME_BYTES = 19
NO_TIME = b"0" * TIME_BYTES
PARTITIONS_MAX = 100
_POWERS = 10 ** np.arange(TIME_BYTES - 1, -1, -1)

Command = Callable[[int, bytes, bytes, bytes], bytes]


def asset_names(assets: int, partitions: int) -> list[tuple[int, bytes]]:
    """Partition and name of each asset, evenly over the partitions."""
    assert partitions <= PARTITIONS_MAX
    found: list[tuple[int, bytes]] = []
    number = 0
    while len(found) < assets:
        for width in (7, 6):
            name = b"asset-%0*d" % (width, number)
            partition = crc32(name) % partitions
            if len(name) + len(str(partition)) == NAME_BYTES:
                found.append((partition, name))
        number += 1
    return found[:assets]


def digits(numbers: np.ndarray) -> np.ndarray:
    """Decimal digits of numbers with 19 of them, as text: uint8 [n, 19]."""
    return (numbers[:, None] // _POWERS % 10 + ord("0")).astype(np.uint8)


def tick(partition: int, asset: bytes, value: bytes, time: bytes) -> bytes:
    """What any client would send."""
    return encode("XADD", Keys().of(partition).ticks, "*", "a", asset, "y", value, "t", time)


class TickBytes:
    """A ring of ready commands: every asset once, in random order, then every asset again."""

    def __init__(self, assets: int, partitions: int, seed: int = 0, command: Command = tick) -> None:
        rng = np.random.default_rng(seed)
        names = asset_names(assets, partitions)
        rounds = max(1, min(ROUNDS, ROWS_MAX // assets))
        values = np.clip(500 + rng.normal(0, 0.5, (rounds, assets)).cumsum(0), 100, 999)
        rows = [
            command(partition, name, b"%.8f" % values[number, asset], NO_TIME)
            for number in range(rounds)
            for asset, (partition, name) in [(asset, names[asset]) for asset in rng.permutation(assets).tolist()]
        ]
        self._rows = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        self._times = _places(rows[0], NO_TIME)

    def commands(self, first: int, times_ns: np.ndarray) -> bytes:
        """The ticks from number `first` on, one for each time."""
        chosen = np.take(self._rows, np.arange(first, first + len(times_ns)), 0, mode="wrap")
        written = digits(times_ns)
        for place in self._times:
            chosen[:, place : place + TIME_BYTES] = written
        return chosen.tobytes()


def _places(row: bytes, text: bytes) -> list[int]:
    """Where the text stands in the row."""
    found, after = [], 0
    while (place := row.find(text, after)) >= 0:
        found.append(place)
        after = place + len(text)
    return found

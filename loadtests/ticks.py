"""Ticks as the bytes of `XADD` commands, made before the run: sending costs a copy and the digits of the event time.

    *9 XADD usp:{3}:ticks * a asset-0000012 y 501.27340511 t 1700000000000000000
                              `- all rows have one width -'  `- written when sent

A partition of two digits takes an asset's name that is one letter shorter, so that every row is as long as the others.
"""

from zlib import crc32

import numpy as np

from state_store.keys import Keys

ROUNDS = 16  # different values of each asset, used again and again
NAME_BYTES = 14  # of asset and partition number together
TIME_BYTES = 19
PARTITIONS_MAX = 100
_POWERS = 10 ** np.arange(TIME_BYTES - 1, -1, -1)


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


class TickBytes:
    """A ring of ready commands: every asset once, in random order, then every asset again."""

    def __init__(self, assets: int, partitions: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        names = asset_names(assets, partitions)
        heads = [_head(partition, name) for partition, name in names]
        values = np.clip(500 + rng.normal(0, 0.5, (ROUNDS, assets)).cumsum(0), 100, 999)
        rows = [
            b"%b%.8f\r\n$1\r\nt\r\n$19\r\n%019d\r\n" % (heads[asset], values[round_, asset], 0)
            for round_ in range(ROUNDS)
            for asset in rng.permutation(assets)
        ]
        self._rows = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)

    def commands(self, first: int, times_ns: np.ndarray) -> bytes:
        """The ticks from number `first` on, one for each time."""
        chosen = np.take(self._rows, np.arange(first, first + len(times_ns)), 0, mode="wrap")
        chosen[:, -TIME_BYTES - 2 : -2] = digits(times_ns)
        return chosen.tobytes()


def _head(partition: int, name: bytes) -> bytes:
    key = Keys().of(partition).ticks
    head = b"*9\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$1\r\na\r\n" % (len(key), key)
    return head + b"$%d\r\n%b\r\n$1\r\ny\r\n$12\r\n" % (len(name), name)

"""The past of several assets as columns: one row a tick, one column an asset, NaN after an asset's last tick."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BIN = 50  # ticks that are scored together: the blocks of the bootstrap, the stones that folds are made of
INTERVAL_NS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class History:
    """Ticks in the order in which each asset had them."""

    assets: tuple[str, ...]
    values: np.ndarray  # float64 [ticks, assets]
    times_ns: np.ndarray  # int64 [ticks, assets]
    arrivals_ns: np.ndarray  # int64 [ticks, assets]

    @property
    def lengths(self) -> np.ndarray:
        """Ticks of each asset, with those that will be rejected."""
        there = ~np.isnan(self.values)
        return np.where(there.any(0), len(self.values) - np.argmax(there[::-1], 0), 0)

    def only(self, columns: Sequence[int]) -> "History":
        """Some of the assets."""
        chosen = list(columns)
        length = int(self.lengths[chosen].max(initial=0))
        return History(
            tuple(self.assets[column] for column in chosen),
            *(part[:length, chosen] for part in (self.values, self.times_ns, self.arrivals_ns)),
        )

    def identity(self) -> str:
        """Changes with any number in it."""
        digest = hashlib.sha256(repr(self.assets).encode())
        for part in (self.values, self.times_ns, self.arrivals_ns):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def volatility(self) -> np.ndarray:
        """The root mean square move of each asset in each bin: [assets, bins]."""
        moves = np.diff(self.values, axis=0, prepend=self.values[:1])
        return np.sqrt(bins_of(np.where(np.isfinite(moves), moves, 0.0) ** 2).mean(0)).T


def history_of(
    assets: Sequence[str], values: np.ndarray, times_ns: np.ndarray, arrivals_ns: np.ndarray | None = None
) -> History:
    """Ticks of many assets, mixed, as columns; assets in the order of their first tick."""
    names, codes = np.unique(np.asarray(assets, object).astype(str), return_inverse=True)
    first = np.full(len(names), len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    rank = np.argsort(np.argsort(first))
    codes = rank[codes]
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(names))
    nth = np.empty(len(codes), np.intp)
    nth[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (int(counts.max(initial=0)), len(names))
    columns = [np.full(shape, np.nan), np.zeros(shape, np.int64), np.zeros(shape, np.int64)]
    arrivals_ns = times_ns if arrivals_ns is None else arrivals_ns
    for column, given in zip(columns, (values, times_ns, arrivals_ns), strict=True):
        column[nth, codes] = given
    return History(tuple(names[np.argsort(first)]), *columns)


def regular(series: dict[str, np.ndarray]) -> History:
    """Series that tick once a second."""
    length = max(map(len, series.values()))
    values = np.full((length, len(series)), np.nan)
    for column, levels in enumerate(series.values()):
        values[: len(levels), column] = levels
    times = np.broadcast_to((np.arange(length) + 1)[:, None] * INTERVAL_NS, values.shape)
    return History(tuple(series), values, times, times)


def bins_of(rows: np.ndarray) -> np.ndarray:
    """[ticks, ...] as [BIN, bins, ...], nought after the end."""
    padded = np.concatenate([rows, np.zeros((-len(rows) % BIN, *rows.shape[1:]), rows.dtype)])
    return np.moveaxis(padded.reshape(-1, BIN, *rows.shape[1:]), 1, 0)

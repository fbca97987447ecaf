"""A tree of numbers as one flat row of words.

Words are uint32. A wide number (float64, int64) takes two, low half first; with float_precision=64 every number takes
two, and the row is an array of uint64. Wide leaves come first, then the tree's own order. Nothing is converted: NaN
payloads and the last bit of an int64 survive.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Words that turn from lanes into rows at a time: 64 words of 64 lanes stay in the first-level cache.
TILE = 64


@dataclass(frozen=True)
class Leaf:
    """Where one array of a tree lies in the row."""

    name: str
    features: tuple[int, ...]
    dtype: np.dtype
    start: int  # in words
    stride: int  # words per number

    @property
    def stop(self) -> int:
        return self.start + self.stride * int(np.prod(self.features, dtype=int))


@dataclass(frozen=True)
class Layout:
    """The fixed place of every leaf of a tree in a row of `words` uint32 words."""

    leaves: tuple[Leaf, ...]  # in the tree's own order
    tree: Any
    words: int

    def fingerprint(self, *more: object) -> bytes:
        """Eight bytes that differ when a name, a shape, a dtype or a place differs, or anything in `more`."""
        places = [(leaf.name, leaf.features, leaf.dtype.str, leaf.start, leaf.stride) for leaf in self.leaves]
        return hashlib.blake2b(repr((places, self.words, more)).encode(), digest_size=8).digest()


def layout_of(make: Callable[[], Any], every_number_wide: bool = False) -> Layout:
    """The layout of the tree that `make` returns without lanes; `make` is looked at, not run."""
    with jax.enable_x64(True):
        paths, tree = jax.tree_util.tree_flatten_with_path(jax.eval_shape(make))
    leaves: dict[int, Leaf] = {}
    start = 0
    for index in sorted(range(len(paths)), key=lambda index: -paths[index][1].dtype.itemsize):
        path, leaf = paths[index]
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        stride = 2 if every_number_wide or leaf.dtype.itemsize == 8 else 1
        leaves[index] = Leaf(name, leaf.shape, np.dtype(leaf.dtype), start, stride)
        start = leaves[index].stop
    even = start + start % 2  # keeps wide numbers aligned from row to row
    return Layout(tuple(leaves[index] for index in range(len(paths))), tree, even)


def unpack(layout: Layout, words: Array) -> Any:
    """The tree of words [words, lanes], its lanes last. Traced."""
    leaves = [
        from_words(words[leaf.start : leaf.stop], leaf.dtype, leaf.stride).reshape(*leaf.features, words.shape[-1])
        for leaf in layout.leaves
    ]
    return jax.tree.unflatten(layout.tree, leaves)


def pack(layout: Layout, tree: Any) -> Array:
    """The words [words, lanes] of a tree with its lanes last. Traced."""
    values = sorted(zip(layout.leaves, jax.tree.leaves(tree), strict=True), key=lambda leaf: leaf[0].start)
    for leaf, value in values:
        assert value.dtype == leaf.dtype and value.shape[:-1] == leaf.features, (leaf, value.dtype, value.shape)
    words = jnp.concatenate([to_words(value, leaf.stride) for leaf, value in values], 0)
    return jnp.pad(words, ((0, layout.words - len(words)), (0, 0)))


def into_lanes(rows: Array, first: Array, lanes: int) -> Array:
    """The words [words, lanes] of the rows from `first` on. Traced."""
    return lax.dynamic_slice(rows, (first, np.int32(0)), (lanes, rows.shape[1])).T


def into_rows(rows: Array, first: Array, words: Array) -> Array:
    """Writes words [words, lanes] over the rows from `first` on. Traced."""
    for tile in range(0, len(words), TILE):
        rows = lax.dynamic_update_slice(rows, words[tile : tile + TILE].T, (first, np.int32(tile)))
    return rows


def to_words(values: Array, stride: int) -> Array:
    """Numbers [..., lanes] as uint32 words [words, lanes]. Traced."""
    flat = values.reshape(-1, values.shape[-1])
    if flat.dtype.itemsize == 8:
        halves = lax.bitcast_convert_type(flat, jnp.uint32)  # [numbers, lanes, 2], low half first
        return jnp.moveaxis(halves, 2, 1).reshape(-1, flat.shape[-1])
    low = lax.bitcast_convert_type(flat, jnp.uint32)
    return low if stride == 1 else jnp.stack([low, jnp.zeros_like(low)], 1).reshape(-1, flat.shape[-1])


def from_words(words: Array, dtype: np.dtype, stride: int) -> Array:
    """The reverse of to_words: [numbers, lanes]. Traced."""
    low = words[::stride]
    if dtype.itemsize == 4:
        return lax.bitcast_convert_type(low, dtype)
    high = words[1::stride].astype(jnp.uint64)
    return lax.bitcast_convert_type(low.astype(jnp.uint64) | high << jnp.uint64(32), dtype)


def fields_of(layout: Layout, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every leaf by its name as a view [n, features...] of rows: to look at them, or to fill them."""
    words = rows.view(np.uint32)
    return {leaf.name: _field(leaf, words) for leaf in layout.leaves}


def _field(leaf: Leaf, words: np.ndarray) -> np.ndarray:
    step = leaf.stride if leaf.dtype.itemsize == 4 else 1
    return words[:, leaf.start : leaf.stop : step].view(leaf.dtype).reshape(len(words), *leaf.features)


def rows_of(layout: Layout, tree: Any) -> np.ndarray:
    """Rows [n, words] of a tree of NumPy arrays with their lanes last."""
    leaves = jax.tree.leaves(tree)
    rows = np.zeros((leaves[0].shape[-1], layout.words), np.uint32)
    for field, leaf in zip(fields_of(layout, rows).values(), leaves, strict=True):
        field[...] = np.moveaxis(np.asarray(leaf), -1, 0)
    return rows

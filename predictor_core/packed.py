"""A symmetric matrix of odd size n held as its n (n + 1) / 2 distinct numbers, as wrapped diagonals.

    row k, column i  =  A[i, (i + k) mod n],    k = 0 .. (n - 1) / 2

Every operation is elementwise over the diagonals, so trailing axes are lanes that never meet. An even n would hold its
middle diagonal twice.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import summed


def size(n: int) -> tuple[int, int]:
    assert n % 2 == 1, n
    return (n + 1) // 2, n


def identity(n: int) -> np.ndarray:
    diagonals = np.zeros(size(n))
    diagonals[0] = 1.0
    return diagonals


def wrap(vector: Array) -> Array:
    """The vector turned round by 0, 1, ... places: row k lines up with diagonal k.

    Read again and again in rows that are one longer: only indices, where slices joined would be a kernel each.
    """
    rows, n = size(vector.shape[0])
    again = jnp.broadcast_to(vector, (rows + 1, *vector.shape)).reshape(-1, *vector.shape[1:])
    return again[: rows * (n + 1)].reshape(rows, n + 1, *vector.shape[1:])[:, :n]


def times(matrix: Array, vector: Array) -> Array:
    """The product A v: the diagonals as they lie, and their mirror images turned into place."""
    rows, n = size(vector.shape[0])
    mirrored = matrix * vector[None]
    rest = vector.shape[1:]
    twice = jnp.broadcast_to(mirrored[1:, None], (rows - 1, 2, *vector.shape)).reshape(-1, *rest)
    twice = jnp.pad(twice[n - 1 :], ((0, n - rows), *((0, 0) for _ in rest)))
    turned = twice.reshape(rows - 1, 2 * n - 1, *rest)[:, :n]
    return summed(matrix * wrap(vector)) + summed(turned)


def less_outer(matrix: Array, vector: Array, factor: Array) -> Array:
    """A - factor v v'."""
    return matrix - (factor * vector)[None] * wrap(vector)


def scale(matrix: Array, factors: Array) -> Array:
    """D A D with the factors on the diagonal of D."""
    return matrix * factors[None] * wrap(factors)


def unpack(matrix: np.ndarray) -> np.ndarray:
    """The full matrix of one lane, for tests and for reading a state."""
    rows, n = matrix.shape
    full = np.zeros((n, n))
    for k in range(rows):
        for i in range(n):
            full[i, (i + k) % n] = full[(i + k) % n, i] = matrix[k, i]
    return full

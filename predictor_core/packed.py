"""A symmetric matrix of odd size n held as its n (n + 1) / 2 distinct numbers, as wrapped diagonals.

    row k, column i  =  A[i, (i + k) mod n],    k = 0 .. (n - 1) / 2

Every operation is elementwise over the diagonals, so trailing axes are lanes that never meet. An even n would hold its
middle diagonal twice.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array


def size(n: int) -> tuple[int, int]:
    assert n % 2 == 1, n
    return (n + 1) // 2, n


def identity(n: int) -> np.ndarray:
    diagonals = np.zeros(size(n))
    diagonals[0] = 1.0
    return diagonals


def wrap(vector: Array) -> Array:
    """The vector turned round by 0, 1, ... places: row k lines up with diagonal k."""
    n = vector.shape[0]
    twice = jnp.concatenate([vector, vector], 0)
    return jnp.stack([twice[k : k + n] for k in range(size(n)[0])])


def times(matrix: Array, vector: Array) -> Array:
    """The product A v: the diagonals as they lie, and their mirror images turned into place."""
    rows, n = size(vector.shape[0])
    mirrored = matrix * vector[None]
    pieces = [part for k in range(1, rows) for part in (mirrored[k, n - k :], mirrored[k, : n - k])]
    # One long array, summed at once: a chain of additions would be made anew by every reader.
    turned = jnp.concatenate(pieces, 0).reshape((rows - 1, *vector.shape))
    return (matrix * wrap(vector)).sum(0) + turned.sum(0)


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

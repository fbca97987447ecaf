"""Draws the signs of perturbations: ChaCha with 8 rounds, read by position.

The sign of knob i in perturbation k is the top bit of word k*n + i of the stream, so it is a function of (seed, k, i)
alone: no retry, no refusal and no pinned knob can shift it.
"""

import functools

_MASK = 0xFFFFFFFF
_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def signs(seed: int, k: int, n: int) -> tuple[int, ...]:
    """The n signs of perturbation k, each -1 or +1."""
    return tuple(1 if word(seed, k * n + i) >> 31 else -1 for i in range(n))


def word(seed: int, position: int) -> int:
    """The 32-bit word of the stream at a position."""
    return _block(_key(seed), position // 16)[position % 16]


@functools.lru_cache(maxsize=256)
def _key(seed: int) -> tuple[int, ...]:
    """Expands a 64-bit seed to eight words (PCG32)."""
    state, words = seed % 2**64, []
    for _ in range(8):
        state = (state * 6364136223846793005 + 11634580027462260723) % 2**64
        mixed, turn = (((state >> 18) ^ state) >> 27) & _MASK, state >> 59
        words.append((mixed >> turn | mixed << (32 - turn)) & _MASK)
    return tuple(words)


@functools.lru_cache(maxsize=256)
def _block(key: tuple[int, ...], number: int) -> tuple[int, ...]:
    """Sixteen words of the stream: counter of 64 bits, nonce 0."""
    start = (*_CONSTANTS, *key, number & _MASK, number >> 32 & _MASK, 0, 0)
    x = list(start)
    for _ in range(4):
        for a, b, c, d in (*_COLUMNS, *_DIAGONALS):
            x[a] = (x[a] + x[b]) & _MASK
            x[d] = _left(x[d] ^ x[a], 16)
            x[c] = (x[c] + x[d]) & _MASK
            x[b] = _left(x[b] ^ x[c], 12)
            x[a] = (x[a] + x[b]) & _MASK
            x[d] = _left(x[d] ^ x[a], 8)
            x[c] = (x[c] + x[d]) & _MASK
            x[b] = _left(x[b] ^ x[c], 7)
    return tuple((mixed + before) & _MASK for mixed, before in zip(x, start, strict=True))


def _left(value: int, turn: int) -> int:
    return (value << turn | value >> (32 - turn)) & _MASK

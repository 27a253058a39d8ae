"""Random numbers by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

A block of four 32-bit numbers is a function of a 128-bit counter and a 64-bit key, with no state in between. Here the
key is the seed, and the counter holds the split, the task and the number of the block: so every task of every split
has a stream of its own, the same in whatever batch and order, and on whatever device, it is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = {"train": 0, "validation": 1, "test": 2}

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit random numbers for each counter; all arrays are uint64 holding 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(seed: int, split: str, tasks: Array, count: int) -> Array:
    """The first `count` 32-bit numbers of each task's stream: uint64[len(tasks), count].

    Args:
        seed: 0 <= seed < 2^64.
        split: one of `SPLITS`.
        tasks: indices of tasks, 0 <= task < 2^64.

    Raises:
        ValueError: an unknown split, or numbers out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    if tasks.dtype.kind not in "iu" or (tasks.size and int(tasks.min()) < 0):
        raise ValueError(f"tasks must be whole numbers >= 0, got {tasks}")
    index = tasks.astype(np.uint64)[:, None]
    blocks = np.arange(-(-count // 4), dtype=np.uint64)[None, :] | np.uint64(SPLITS[split] << 28)
    shape = (index.shape[0], blocks.shape[1])
    counter = (
        np.broadcast_to(blocks, shape),
        np.zeros(shape, np.uint64),
        np.broadcast_to(index & _LOW, shape),
        np.broadcast_to(index >> _SHIFT, shape),
    )
    found = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(found, axis=-1).reshape(shape[0], -1)[:, :count]


def uniform(seed: int, split: str, tasks: Array, count: int, dtype: Any = np.float32) -> Array:
    """`count` numbers in [0, 1) of each task's stream: [len(tasks), count].

    float32 takes the upper 24 bits of a word, float64 the upper 53 of two: every value is a multiple of 2^-24 or 2^-53.
    """
    if np.dtype(dtype) == np.float32:
        return (words(seed, split, tasks, count) >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    if np.dtype(dtype) == np.float64:
        pairs = words(seed, split, tasks, 2 * count)
        return ((pairs[:, ::2] << np.uint64(21)) | (pairs[:, 1::2] >> np.uint64(11))) * 2.0**-53
    raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")

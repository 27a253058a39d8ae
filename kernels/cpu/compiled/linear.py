"""Products of stacks of matrices: tiles in registers, k in blocks; only a transposed b is packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.compiled.arrays import plain
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute
from tinymaml.kernels.cpu.compiled.tile import tile, transpose
from tinymaml.kernels.cpu.compiled.vectors import BYTES, HEIGHTS, VECTORS, tile_height

Arrays = Sequence[Any]

_VECTOR = 16  # multiplications that count as one operation
_BLOCK = 256  # of k at a time: what a tile's columns of b are then, and rows of a, stays in the nearer caches
_LARGE = 256  # where all three lengths are larger, packing pays, and BLAS does it


@njit(cache=True, nogil=True)
def _stack(a: Any, b: Any, c: Any, out: Any, ta: bool, tb: bool, first: int, last: int) -> None:
    """Tasks first ... last - 1 of out[t] = op(a[t]) op(b[t]) + c[t].

    An array with one entry on a task or row axis serves for all of it.
    """
    size = out.itemsize
    lanes = BYTES // size
    n, o = out.shape[1], out.shape[2]
    k = b.shape[2] if tb else b.shape[1]
    packed = np.empty((k, o) if tb else (0, 0), out.dtype)
    a_row, a_k = (size, a.shape[2] * size) if ta else (a.shape[2] * size, size)
    a_task = a.shape[1] * a.shape[2] * size if a.shape[0] > 1 else 0
    b_task = b.shape[1] * b.shape[2] * size if b.shape[0] > 1 else 0
    c_row = o * size if c.shape[1] > 1 else 0
    c_task = c.shape[1] * o * size if c.shape[0] > 1 else 0
    zero = out.dtype.type(0)
    for t in range(first, last):
        a_at, b_at = a.ctypes.data + t * a_task, b.ctypes.data + t * b_task
        if tb:
            if t == first or b_task:
                transpose(b[t if b_task else 0], packed)
            b_at = packed.ctypes.data
        c_at, out_at = c.ctypes.data + t * c_task, out.ctypes.data + t * n * o * size
        for kk in range(0, max(k, 1), _BLOCK):
            for j in range(0, o, lanes * VECTORS):
                columns = min(o - j, lanes * VECTORS)
                vectors = (columns + lanes - 1) // lanes
                tail = columns - (vectors - 1) * lanes
                tall = tile_height(n, HEIGHTS[vectors - 1])
                for i in range(0, n, tall):
                    there = out_at + (i * o + j) * size
                    tile(
                        zero,
                        min(tall, n - i),
                        vectors,
                        tail,
                        min(k - kk, _BLOCK),
                        a_at + i * a_row + kk * a_k,
                        a_row,
                        a_k,
                        b_at + (kk * o + j) * size,
                        o * size,
                        there if kk else c_at + i * c_row + j * size,
                        o * size if kk else c_row,
                        there,
                        o * size,
                    )


_stack_distributed = distribute(_stack)


@njit(cache=True, nogil=True)
def _stack_parallel(job: Job, *arguments: Any) -> int:
    return _stack_distributed(job, arguments)


_STACK = Kernel(_stack, _stack_parallel)


def linear(outs: Arrays, ins: Arrays, ta: bool, tb: bool) -> Launch | None:
    """op(a) op(b) + c, the last if given."""
    a, b, (out,) = ins[0], ins[1], outs
    c = ins[2] if len(ins) == 3 else np.zeros((1, 1, out.shape[-1]), out.dtype)
    if not (out.ndim == a.ndim == b.ndim == c.ndim == 3 and c.shape[2] == out.shape[2]):
        return None
    k = a.shape[1 if ta else 2]
    if min(*out.shape[1:], k) > _LARGE:
        return None
    if tb and 1 in b.shape[1:]:
        b, tb = b.reshape(b.shape[0], b.shape[2], b.shape[1]), False  # a vector's transpose has the same memory
    work = out.size * k // _VECTOR
    return Launch(len(out), work, _STACK, (plain(a), plain(b), plain(c), out, ta, tb))

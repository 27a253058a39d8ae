"""Batch normalisation in passes over the rows of one task, which stays in the cache from one to the next.

Whatever is to be computed, the first pass adds up sums for each channel, from which follow a few coefficients a
channel; the second makes of them and the inputs, number by number, the result. `centred` is x - mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu import norm as reference
from tinymaml.kernels.cpu.compiled.arrays import plain, whole
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.norm_passes import (
    gradient_rows_pass,
    gradient_sums_pass,
    hessian_rows_pass,
    hessian_sums_pass,
    moments_pass,
    tangent_rows_pass,
    tangent_sums_pass,
    value_pass,
)
from tinymaml.kernels.cpu.compiled.pool import LARGEST, PUT, TAKE, pairs_of_rows
from tinymaml.kernels.cpu.compiled.thread_pool import Job, Kernel, Launch, distribute

Arrays = Sequence[Any]
Given = tuple[bool, ...]
Pair = tuple[int, int]
# Rows after which blocks begin anew, rows of a block, height and width of images: see `_blocks`.
Blocks = tuple[int, int, int, int]

_BLOCK = 128  # rows added up in the arrays' own precision; the blocks are added in double precision
_WIDE = 64  # numbers in a row that vectors can run along: of few channels, several examples side by side

# The kernels, over a range of tasks of x[T, rows, wide] and of parameters [T, C].


@njit(cache=True, nogil=True, error_model="numpy")
def _at(x: Any, t: int) -> int:
    """The address of task t's part."""
    return x.ctypes.data + (t * (x.size // x.shape[0]) * x.itemsize if x.shape[0] > 1 else 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _repeat(cs: Any, channels: int) -> None:
    """What is known for each channel, for all the examples in a row."""
    for k in range(cs.shape[0]):
        for j in range(channels, cs.shape[1]):
            cs[k, j] = cs[k, j - channels]


@njit(cache=True, nogil=True, error_model="numpy")
def _collect(total: Any, sums: Any) -> None:
    """Add a block's sums to those of the channels, and begin them anew."""
    channels = total.shape[1]
    for k in range(total.shape[0]):
        for start in range(0, sums.shape[1], channels):
            for c in range(channels):
                total[k, c] += sums[k, start + c]
    sums[:] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _moments_of(at: int, rows: int, blocks: Blocks, cs: Any, sums: Any, total: Any) -> None:
    """`total`: the sums of x - cs[0] and of its square over some rows."""
    step = cs.shape[1] * cs.itemsize
    _repeat(cs, total.shape[1])
    total[:] = 0
    r = 0
    while r < rows:
        here = _here(r, rows, blocks)
        moments_pass(cs.dtype.type(0), here, cs.shape[1], (at + r * step,), cs.ctypes.data, sums.ctypes.data)
        _collect(total, sums)
        r += here


@njit(cache=True, nogil=True, error_model="numpy")
def _here(r: int, rows: int, blocks: Blocks) -> int:
    """How many rows the block has that begins with row r."""
    period, block = blocks[0], blocks[1]
    return min(block, period - r % period, rows - r)


@njit(cache=True, nogil=True, error_model="numpy")
def _pooled(which: int, zero: Any, buffer: Any, r: int, here: int, wide: int, blocks: Blocks, channels: int,
            y_at: int, at_at: int) -> None:  # fmt: skip
    """LARGEST, TAKE or PUT between the rows of a block, which lie in the buffer, and a task's windows."""
    line = blocks[3] * channels  # numbers of a row of pixels
    pairs_of_rows(which, zero, buffer.itemsize, buffer.ctypes.data, r * wide // line, here * wide // line, blocks[2],
                  blocks[3], channels, y_at, at_at)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _batch_norm(x: Any, gamma: Any, beta: Any, eps: float, rectified: bool, blocks: Blocks, y: Any, pooled: Any,
                places: Any, mean: Any, rstd: Any, first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = y.dtype.type(0), x.shape[1], x.shape[2], gamma.shape[1]
    side, step, pools = wide // channels, wide * y.itemsize, places.size > 0
    sums, cs, total = np.zeros((2, wide), y.dtype), np.empty((4, wide), y.dtype), np.empty((2, channels))
    buffer = np.empty((blocks[1] if pools else 0, wide), y.dtype)
    for t in range(first, last):
        x_at, y_at = _at(x, t), _at(y, t)
        # One pass gives both moments, about a number near the mean, as the square of its distance costs the variance
        # precision: the mean of the first block, about the first example. That of a share p of the examples is never
        # further off than 1 / sqrt(p) standard deviations; and of equal numbers it is that number.
        cs[0, :channels] = x[t if x.shape[0] > 1 else 0, 0, :channels]
        if rows * side > _BLOCK:
            part = _here(0, rows, blocks)
            _moments_of(x_at, part, blocks, cs[:1], sums, total)
            for c in range(channels):
                cs[0, c] += total[0, c] / (part * side)
        _moments_of(x_at, rows, blocks, cs[:1], sums, total)
        per = 1 / (rows * side)
        for c in range(channels):
            shift = total[0, c] * per
            mean[t, c] = cs[0, c] + shift
            rstd[t, c] = 1 / np.sqrt(max(total[1, c] * per - shift * shift, 0.0) + eps)
        for c in range(channels):
            cs[0, c] = mean[t, c]
            cs[1, c] = gamma[t, c] * rstd[t, c]
            cs[2, c] = beta[t, c]
            cs[3, c] = 0 if rectified else -np.inf
        _repeat(cs, channels)
        r = 0
        while r < rows:
            here = _here(r, rows, blocks) if pools else rows
            to = (x_at + r * step, _at(buffer, 0) if pools else y_at)
            value_pass(zero, here, wide, to, cs.ctypes.data, sums.ctypes.data)
            if pools:
                _pooled(LARGEST, zero, buffer, r, here, wide, blocks, channels, _at(pooled, t), _at(places, t))
            r += here


_batch_norm_distributed = distribute(_batch_norm)


@njit(cache=True, nogil=True)
def _batch_norm_parallel(job: Job, *arguments: Any) -> int:
    return _batch_norm_distributed(job, arguments)


_BATCH_NORM = Kernel(_batch_norm, _batch_norm_parallel)


@njit(cache=True, nogil=True, error_model="numpy")
def _gate_of(gamma: Any, beta: Any, mean: Any, rstd: Any, rectified: bool, t: int, cs: Any) -> None:
    """The first three coefficients, with the forward pass's own numbers: the gate opens where y > 0."""
    for c in range(gamma.shape[1]):
        cs[0, c] = mean[t, c]
        cs[1, c] = gamma[t, c] * rstd[t, c] if rectified else 0
        cs[2, c] = beta[t, c] if rectified else 1
    _repeat(cs[:3], gamma.shape[1])


@njit(cache=True, nogil=True, error_model="numpy")
def _gradient(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, g: Any, pooled: Any, places: Any, rectified: bool,
              blocks: Blocks, dx: Any, dgamma: Any, dbeta: Any, first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = dx.dtype.type(0), dx.shape[1], dx.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * dx.itemsize
    sums, cs, total = np.zeros((2, wide), dx.dtype), np.empty((6, wide), dx.dtype), np.empty((2, channels))
    pools = places.size > 0
    buffer = np.empty((blocks[1] if pools else 0, wide), dx.dtype)
    for t in range(first, last):
        x_at, g_at, dx_at, pooled_at, places_at = _at(x, t), _at(g, t), _at(dx, t), _at(pooled, t), _at(places, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        r = 0
        while r < rows:
            here, skip = _here(r, rows, blocks), r * step
            g_rows = g_at + skip
            if pools:
                _pooled(PUT, zero, buffer, r, here, wide, blocks, channels, pooled_at, places_at)
                g_rows = _at(buffer, 0)
            gradient_sums_pass(zero, here, wide, (x_at + skip, g_rows), cs.ctypes.data, sums.ctypes.data)
            _collect(total, sums)
            r += here
        for c in range(channels):
            root = float(rstd[t, c])
            gain = gamma[t, c] * root
            dbeta[t, c], dgamma[t, c] = total[0, c], total[1, c] * root
            cs[3, c], cs[4, c], cs[5, c] = gain, -gain * root * root * total[1, c] / count, -gain * total[0, c] / count
        _repeat(cs[3:], channels)
        r = 0
        while r < rows:
            here, skip = (_here(r, rows, blocks) if pools else rows), r * step
            g_rows = g_at + skip
            if pools:
                _pooled(PUT, zero, buffer, r, here, wide, blocks, channels, pooled_at, places_at)
                g_rows = _at(buffer, 0)
            gradient_rows_pass(zero, here, wide, (x_at + skip, g_rows, dx_at + skip), cs.ctypes.data, sums.ctypes.data)
            r += here


_gradient_distributed = distribute(_gradient)


@njit(cache=True, nogil=True)
def _gradient_parallel(job: Job, *arguments: Any) -> int:
    return _gradient_distributed(job, arguments)


_GRADIENT = Kernel(_gradient, _gradient_parallel)


@njit(cache=True, nogil=True, error_model="numpy")
def _tangent(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, v: Any, vgamma: Any, vbeta: Any, with_v: bool,
             rectified: bool, blocks: Blocks, y: Any, pooled: Any, places: Any,
             first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = y.dtype.type(0), x.shape[1], x.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * y.itemsize
    sums, cs, total = np.zeros((2, wide), y.dtype), np.empty((6, wide), y.dtype), np.empty((2, channels))
    pools = places.size > 0
    buffer = np.empty((blocks[1] if pools else 0, wide), y.dtype)
    for t in range(first, last):
        x_at, v_at, y_at = _at(x, t), _at(v, t), _at(y, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        r = 0 if with_v else rows
        while r < rows:
            here, skip = _here(r, rows, blocks), r * step
            tangent_sums_pass(zero, here, wide, (x_at + skip, v_at + skip), cs.ctypes.data, sums.ctypes.data)
            _collect(total, sums)
            r += here
        for c in range(channels):
            root = float(rstd[t, c])
            gain = gamma[t, c] * root if with_v else 0.0
            cs[3, c] = gain
            cs[4, c] = root * (vgamma[t, c] - gain * root * total[1, c] / count)
            cs[5, c] = vbeta[t, c] - gain * total[0, c] / count
        _repeat(cs[3:], channels)
        r = 0
        while r < rows:
            here, skip = (_here(r, rows, blocks) if pools else rows), r * step
            to = (x_at + skip, v_at + skip, _at(buffer, 0) if pools else y_at)
            tangent_rows_pass(zero, here, wide, to, cs.ctypes.data, sums.ctypes.data)
            if pools:
                _pooled(TAKE, zero, buffer, r, here, wide, blocks, channels, _at(pooled, t), _at(places, t))
            r += here


_tangent_distributed = distribute(_tangent)


@njit(cache=True, nogil=True)
def _tangent_parallel(job: Job, *arguments: Any) -> int:
    return _tangent_distributed(job, arguments)


_TANGENT = Kernel(_tangent, _tangent_parallel)


@njit(cache=True, nogil=True, error_model="numpy")
def _hessian(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, g: Any, v: Any, vgamma: Any, vg: Any,
             with_v: bool, with_vg: bool, pooled: Any, pooled_vg: Any, places: Any, rectified: bool, blocks: Blocks,
             hx: Any, hgamma: Any, hbeta: Any, first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = hx.dtype.type(0), hx.shape[1], hx.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * hx.itemsize
    sums, cs, total = np.zeros((7, wide), hx.dtype), np.empty((8, wide), hx.dtype), np.empty((7, channels))
    pools = places.size > 0
    buffer = np.empty((2, blocks[1] if pools else 0, wide), hx.dtype)
    for t in range(first, last):
        x_at, g_at, v_at, vg_at, hx_at = _at(x, t), _at(g, t), _at(v, t), _at(vg, t), _at(hx, t)
        pooled_at, pooled_vg_at, places_at = _at(pooled, t), _at(pooled_vg, t), _at(places, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        r = 0
        while r < rows:
            here, skip = _here(r, rows, blocks), r * step
            g_rows, vg_rows = g_at + skip, vg_at + skip
            if pools:
                _pooled(PUT, zero, buffer[0], r, here, wide, blocks, channels, pooled_at, places_at)
                _pooled(PUT, zero, buffer[1], r, here, wide, blocks, channels, pooled_vg_at, places_at)
                g_rows, vg_rows = _at(buffer[0], 0), _at(buffer[1], 0)
            at = (x_at + skip, g_rows, v_at + skip, vg_rows)
            hessian_sums_pass(zero, here, wide, at, cs.ctypes.data, sums.ctypes.data)
            _collect(total, sums)
            r += here
        if not with_v:
            total[2:5] = 0
        if not with_vg:
            total[5:] = 0
        for c in range(channels):
            root = float(rstd[t, c])
            gain = gamma[t, c] * root
            # The means of g, v, vg; those of each times the normalised x; and the sum of g times what x moves by.
            g_mean, v_mean, vg_mean = total[0, c] / count, total[2, c] / count, total[5, c] / count
            slope = root / count
            g_slope, v_slope, vg_slope = slope * total[1, c], slope * total[3, c], slope * total[6, c]
            along = root * (total[4, c] - count * (v_mean * g_mean + v_slope * g_slope))
            hgamma[t, c], hbeta[t, c] = along + vg_slope * count, total[5, c]
            by_g = vgamma[t, c] * root - gain * root * v_slope
            by_v = -gain * root * g_slope if with_v else 0.0
            by_vg = gain if with_vg else 0.0
            cs[3, c], cs[4, c], cs[5, c] = by_g, by_v, by_vg
            cs[6, c] = -root * (by_g * g_slope + by_v * v_slope + by_vg * vg_slope + gain * along / count)
            cs[7, c] = -(by_g * g_mean + by_v * v_mean + by_vg * vg_mean)
        _repeat(cs[3:], channels)
        r = 0
        while r < rows:
            here, skip = (_here(r, rows, blocks) if pools else rows), r * step
            g_rows, vg_rows = g_at + skip, vg_at + skip
            if pools:
                _pooled(PUT, zero, buffer[0], r, here, wide, blocks, channels, pooled_at, places_at)
                _pooled(PUT, zero, buffer[1], r, here, wide, blocks, channels, pooled_vg_at, places_at)
                g_rows, vg_rows = _at(buffer[0], 0), _at(buffer[1], 0)
            at5 = (x_at + skip, g_rows, v_at + skip, vg_rows, hx_at + skip)
            hessian_rows_pass(zero, here, wide, at5, cs.ctypes.data, sums.ctypes.data)
            r += here


_hessian_distributed = distribute(_hessian)


@njit(cache=True, nogil=True)
def _hessian_parallel(job: Job, *arguments: Any) -> int:
    return _hessian_distributed(job, arguments)


_HESSIAN = Kernel(_hessian, _hessian_parallel)


def _division(shape: Sequence[int]) -> tuple[int, Blocks]:
    """How many pixels of x[T, ..., C] make a row, and how many rows a block.

    Small images share a block, a large one has blocks of whole pairs of its rows of pixels: so windows of 2 x 2 that do
    not overlap lie in one block, where the sizes allow it.
    """
    count = math.prod(shape[1:-1])
    side = next(n for n in range(max(_WIDE // shape[-1], 1), 0, -1) if count % n == 0)
    rows, block = count // side, _BLOCK
    height, width = (shape[2], shape[3]) if len(shape) == 5 else (1, math.prod(shape[2:-1]))
    image, pair = height * width, 2 * width
    if image % side or image > block * side:
        whole_images = not image % side
        block -= block % (pair // side) if whole_images and not pair % side and pair <= block * side else 0
        return side, (image // side if whole_images else rows, block, height, width)
    return side, (rows, block - block % (image // side), height, width)


def _rows(*arrays: Any) -> tuple[list[Any], Blocks]:
    """[T, ..., C] each -> [T, rows, wide] in C order, without the copies of an axis that was broadcast over tasks."""
    shape = arrays[0].shape
    side, blocks = _division(shape)
    return [plain(x).reshape(-1, math.prod(shape[1:-1]) // side, side * shape[-1]) for x in arrays], blocks


def _whole(*parameters: Any) -> list[Any]:
    """[T, C] each, in C order."""
    return [whole(p) for p in parameters]


def _none(dtype: Any, axes: int = 5) -> Any:
    """In place of an array that there is not."""
    return np.zeros((1,) * (axes - 1) + (0,), dtype)


def can_pool(shape: Sequence[int], window: Pair, stride: Pair, padding: Any) -> bool:
    """Whether there are kernels that pool as they go, for images x[T, N, H, W, C] and these windows."""
    if (window, stride, padding) != ((2, 2), (2, 2), ((0, 0), (0, 0))) or 0 in shape or min(shape[2:4]) < 2:
        return False
    side, (period, block, height, width) = _division(shape)
    return block * side % (height * width if period * side != height * width else 2 * width) == 0


def batch_norm(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """y; mean and rstd of every task's channels."""
    (y, mean, rstd), (x, gamma, beta) = outs, ins
    if y.size == 0:
        return None
    ((x, to), blocks), (gamma, beta) = _rows(x, y), _whole(gamma, beta)
    images = (to, _none(y.dtype), _none(np.int8))
    return Launch(len(y), 3 * y.size, _BATCH_NORM, (x, gamma, beta, eps, rectified, blocks, *images, mean, rstd))


def batch_norm_pool(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """max_pool(y) over windows of 2 x 2 that do not overlap, and their places; mean and rstd."""
    (pooled, places, mean, rstd), (x, gamma, beta) = outs, ins
    ((x_rows,), blocks), (gamma, beta) = _rows(x), _whole(gamma, beta)
    images = (_none(x.dtype, 3), pooled, places)
    return Launch(len(x), 3 * x.size, _BATCH_NORM, (x_rows, gamma, beta, eps, rectified, blocks, *images, mean, rstd))


def batch_norm_tangent(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The derivative of y along those of (vx, vgamma, vbeta) that are given."""
    (y,) = outs
    if y.size == 0:
        return None
    (to,), _ = _rows(y)
    return _tangent_launch((to, _none(y.dtype), _none(np.int8)), ins, given, rectified)


def batch_norm_tangent_pool(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The same at the places that are the last input: the derivative of max_pool(y)."""
    *others, places = ins
    return _tangent_launch((_none(ins[0].dtype, 3), outs[0], plain(places)), others, given, rectified)


def _tangent_launch(images: tuple[Any, ...], ins: Arrays, given: Given, rectified: bool) -> Launch:
    x, per_task, vs = ins[0], _whole(*ins[1:5]), reference.named(given, ins[5:])
    none = np.zeros_like(per_task[0])
    (x, v), blocks = _rows(x, vs.get("x", x))
    vgamma, vbeta = _whole(vs.get("gamma", none), vs.get("beta", none))
    arguments = (x, *per_task, v, vgamma, vbeta, "x" in vs, rectified, blocks, *images)
    return Launch(len(ins[0]), 4 * ins[0].size, _TANGENT, arguments)


def batch_norm_gradient(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """(dx, dgamma, dbeta) of <y, g>."""
    x, gamma, beta, g, mean, rstd = ins
    if x.size == 0:
        return None
    (g,), _ = _rows(g)
    return _gradient_launch(outs, x, (gamma, beta, mean, rstd), (g, _none(x.dtype), _none(np.int8)), rectified)


def batch_norm_gradient_pool(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """The same of <max_pool(y), g>, the places of the windows being the last input."""
    x, gamma, beta, g, mean, rstd, places = ins
    images = (_none(x.dtype, 3), plain(g), plain(places))
    return _gradient_launch(outs, x, (gamma, beta, mean, rstd), images, rectified)


def _gradient_launch(outs: Arrays, x: Any, per_task: Arrays, images: tuple[Any, ...], rectified: bool) -> Launch:
    dx, dgamma, dbeta = outs
    (x_rows, to), blocks = _rows(x, dx)
    arguments = (x_rows, *_whole(*per_task), *images, rectified, blocks, to, dgamma, dbeta)
    return Launch(len(dx), 4 * dx.size, _GRADIENT, arguments)


def batch_norm_hessian(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The derivative of (dx, dgamma, dbeta) along those of (vx, vgamma, vbeta, vg) that are given."""
    x, gamma, beta, g, mean, rstd, *rest = ins
    if x.size == 0:
        return None
    vs = reference.named(given, rest)
    # In place of what is missing something that is read anyway: its coefficients are 0.
    (g, vg), _ = _rows(g, vs.get("g", g))
    none = _none(x.dtype)
    return _hessian_launch(outs, x, (gamma, beta, mean, rstd), vs, (g, vg), (none, none, _none(np.int8)), rectified)


def batch_norm_hessian_pool(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The same for <max_pool(y), g>, the places of the windows being the last input."""
    x, gamma, beta, g, mean, rstd, *rest, places = ins
    vs, none = reference.named(given, rest), _none(x.dtype, 3)
    images = (plain(g), plain(vs.get("g", g)), plain(places))
    return _hessian_launch(outs, x, (gamma, beta, mean, rstd), vs, (none, none), images, rectified)


def _hessian_launch(
    outs: Arrays, x: Any, per_task: Arrays, vs: dict[str, Any], gs: tuple[Any, Any], images: tuple[Any, ...],
    rectified: bool,
) -> Launch:  # fmt: skip
    (hx, hgamma, hbeta), per_task = outs, _whole(*per_task)
    (vgamma,) = _whole(vs.get("gamma", np.zeros_like(per_task[0])))
    (x_rows, v, to), blocks = _rows(x, vs.get("x", x), hx)
    known = ("x" in vs, "g" in vs)
    arguments = (x_rows, *per_task, gs[0], v, vgamma, gs[1], *known, *images, rectified, blocks, to, hgamma, hbeta)
    return Launch(len(hx), 6 * hx.size, _HESSIAN, arguments)

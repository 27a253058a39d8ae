"""Batch normalisation in passes over the rows of one task, which stays in the cache from one to the next.

Whatever is to be computed, the first pass adds up sums for each channel, from which follow a few coefficients a
channel; the second makes of them and the inputs, number by number, the result. `centred` is x - mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from tinymaml.kernels.cpu import norm as reference
from tinymaml.kernels.cpu.compiled.arrays import plain, whole
from tinymaml.kernels.cpu.compiled.crew import Job, Kernel, Launch, hand_out
from tinymaml.kernels.cpu.compiled.rows import row_pass
from tinymaml.kernels.cpu.compiled.vectors import Emitter

Arrays = Sequence[Any]
Given = tuple[bool, ...]
Values = Sequence[ir.Value]

_BLOCK = 128  # rows added up in the arrays' own precision; the blocks are added in double precision
_WIDE = 64  # numbers in a row that vectors can run along: of few channels, several examples side by side

# The passes: number by number, on vectors. The first three coefficients are those of `_gate`.


def _moments(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of x - c and of its square."""
    x = e.builder.fsub(xs[0], cs[0])
    return [], [e.builder.fadd(sums[0], x), e.multiply_add(x, x, sums[1])]


def _value(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """centred gain + shift, not under the lowest; what is not a number stays so."""
    mean, gain, shift, lowest = cs
    z = e.multiply_add(e.builder.fsub(xs[0], mean), gain, shift)
    return [e.builder.select(e.builder.fcmp_ordered("<=", z, lowest), lowest, z)], []


def _gate(e: Emitter, x: ir.Value, cs: Values, *gs: ir.Value) -> list[ir.Value]:
    """(centred, each g where y > 0, else 0); without a ReLU the gain is 0 and the shift 1."""
    mean, gain, shift = cs[:3]
    centred = e.builder.fsub(x, mean)
    is_open = e.builder.fcmp_ordered(">", e.multiply_add(centred, gain, shift), e.zero)
    return [centred, *[e.builder.select(is_open, g, e.zero) for g in gs]]


def _gradient_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of g and of centred g."""
    centred, g = _gate(e, xs[0], cs, xs[1])
    return [], [e.builder.fadd(sums[0], g), e.multiply_add(centred, g, sums[1])]


def _gradient_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_g g + by_x centred + rest."""
    by_g, by_x, rest = cs[3:]
    centred, g = _gate(e, xs[0], cs, xs[1])
    return [e.multiply_add(by_g, g, e.multiply_add(by_x, centred, rest))], []


def _tangent_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of v and of centred v."""
    centred = e.builder.fsub(xs[0], cs[0])
    return [], [e.builder.fadd(sums[0], xs[1]), e.multiply_add(centred, xs[1], sums[1])]


def _tangent_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_v v + by_x centred + rest, through the gate."""
    by_v, by_x, rest = cs[3:]
    centred = e.builder.fsub(xs[0], cs[0])
    moved = e.multiply_add(by_v, xs[1], e.multiply_add(by_x, centred, rest))
    return _gate(e, xs[0], cs, moved)[1:], []


def _hessian_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of g, centred g, v, centred v, g v, vg and centred vg."""
    x, g, v, vg = xs
    centred, g, vg = _gate(e, x, cs, g, vg)
    terms = (g, (centred, g), v, (centred, v), (g, v), vg, (centred, vg))
    return [], [
        e.multiply_add(*term, total) if isinstance(term, tuple) else e.builder.fadd(total, term)
        for term, total in zip(terms, sums, strict=True)
    ]


def _hessian_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_g g + by_v v + by_vg vg + by_x centred + rest."""
    x, g, v, vg = xs
    by_g, by_v, by_vg, by_x, rest = cs[3:]
    centred, g, vg = _gate(e, x, cs, g, vg)
    total = e.multiply_add(by_x, centred, rest)
    for factor, value in ((by_g, g), (by_v, v), (by_vg, vg)):
        total = e.multiply_add(factor, value, total)
    return [total], []


_moments_pass = row_pass(1, 0, 1, 2, _moments)
_value_pass = row_pass(1, 1, 4, 0, _value)
_gradient_sums_pass = row_pass(2, 0, 3, 2, _gradient_sums)
_gradient_rows_pass = row_pass(2, 1, 6, 0, _gradient_rows)
_tangent_sums_pass = row_pass(2, 0, 3, 2, _tangent_sums)
_tangent_rows_pass = row_pass(2, 1, 6, 0, _tangent_rows)
_hessian_sums_pass = row_pass(4, 0, 3, 7, _hessian_sums)
_hessian_rows_pass = row_pass(4, 1, 8, 0, _hessian_rows)

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
def _moments_of(at: int, rows: int, cs: Any, sums: Any, total: Any) -> None:
    """`total`: the sums of x - cs[0] and of its square over some rows."""
    step = cs.shape[1] * cs.itemsize
    _repeat(cs, total.shape[1])
    total[:] = 0
    for r in range(0, rows, _BLOCK):
        _moments_pass(
            cs.dtype.type(0), min(_BLOCK, rows - r), cs.shape[1], (at + r * step,), cs.ctypes.data, sums.ctypes.data
        )
        _collect(total, sums)


@njit(cache=True, nogil=True, error_model="numpy")
def _batch_norm(x: Any, gamma: Any, beta: Any, eps: float, rectified: bool, y: Any, mean: Any, rstd: Any,
                first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = y.dtype.type(0), x.shape[1], x.shape[2], gamma.shape[1]
    side = wide // channels
    sums, cs, total = np.zeros((2, wide), y.dtype), np.empty((4, wide), y.dtype), np.empty((2, channels))
    for t in range(first, last):
        x_at, y_at = _at(x, t), _at(y, t)
        # One pass gives both moments, about a number near the mean, as the square of its distance costs the variance
        # precision: the mean of the first block, about the first example. That of a share p of the examples is never
        # further off than 1 / sqrt(p) standard deviations; and of equal numbers it is that number.
        cs[0, :channels] = x[t if x.shape[0] > 1 else 0, 0, :channels]
        if rows * side > _BLOCK:
            part = min(rows, _BLOCK)
            _moments_of(x_at, part, cs[:1], sums, total)
            for c in range(channels):
                cs[0, c] += total[0, c] / (part * side)
        _moments_of(x_at, rows, cs[:1], sums, total)
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
        _value_pass(zero, rows, wide, (x_at, y_at), cs.ctypes.data, sums.ctypes.data)


_batch_norm_out = hand_out(_batch_norm)


@njit(cache=True, nogil=True)
def _batch_norm_parts(job: Job, *arguments: Any) -> int:
    return _batch_norm_out(job, arguments)


_BATCH_NORM = Kernel(_batch_norm, _batch_norm_parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _gate_of(gamma: Any, beta: Any, mean: Any, rstd: Any, rectified: bool, t: int, cs: Any) -> None:
    """The first three coefficients, with the forward pass's own numbers: the gate opens where y > 0."""
    for c in range(gamma.shape[1]):
        cs[0, c] = mean[t, c]
        cs[1, c] = gamma[t, c] * rstd[t, c] if rectified else 0
        cs[2, c] = beta[t, c] if rectified else 1
    _repeat(cs[:3], gamma.shape[1])


@njit(cache=True, nogil=True, error_model="numpy")
def _gradient(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, g: Any, rectified: bool,
              dx: Any, dgamma: Any, dbeta: Any, first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = dx.dtype.type(0), dx.shape[1], dx.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * dx.itemsize
    sums, cs, total = np.zeros((2, wide), dx.dtype), np.empty((6, wide), dx.dtype), np.empty((2, channels))
    for t in range(first, last):
        x_at, g_at, dx_at = _at(x, t), _at(g, t), _at(dx, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            _gradient_sums_pass(zero, here, wide, (x_at + skip, g_at + skip), cs.ctypes.data, sums.ctypes.data)
            _collect(total, sums)
        for c in range(channels):
            root = float(rstd[t, c])
            gain = gamma[t, c] * root
            dbeta[t, c], dgamma[t, c] = total[0, c], total[1, c] * root
            cs[3, c], cs[4, c], cs[5, c] = gain, -gain * root * root * total[1, c] / count, -gain * total[0, c] / count
        _repeat(cs[3:], channels)
        _gradient_rows_pass(zero, rows, wide, (x_at, g_at, dx_at), cs.ctypes.data, sums.ctypes.data)


_gradient_out = hand_out(_gradient)


@njit(cache=True, nogil=True)
def _gradient_parts(job: Job, *arguments: Any) -> int:
    return _gradient_out(job, arguments)


_GRADIENT = Kernel(_gradient, _gradient_parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _tangent(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, v: Any, vgamma: Any, vbeta: Any, with_v: bool,
             rectified: bool, y: Any, first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = y.dtype.type(0), y.shape[1], y.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * y.itemsize
    sums, cs, total = np.zeros((2, wide), y.dtype), np.empty((6, wide), y.dtype), np.empty((2, channels))
    for t in range(first, last):
        x_at, v_at, y_at = _at(x, t), _at(v, t), _at(y, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows if with_v else 0, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            _tangent_sums_pass(zero, here, wide, (x_at + skip, v_at + skip), cs.ctypes.data, sums.ctypes.data)
            _collect(total, sums)
        for c in range(channels):
            root = float(rstd[t, c])
            gain = gamma[t, c] * root if with_v else 0.0
            cs[3, c] = gain
            cs[4, c] = root * (vgamma[t, c] - gain * root * total[1, c] / count)
            cs[5, c] = vbeta[t, c] - gain * total[0, c] / count
        _repeat(cs[3:], channels)
        _tangent_rows_pass(zero, rows, wide, (x_at, v_at, y_at), cs.ctypes.data, sums.ctypes.data)


_tangent_out = hand_out(_tangent)


@njit(cache=True, nogil=True)
def _tangent_parts(job: Job, *arguments: Any) -> int:
    return _tangent_out(job, arguments)


_TANGENT = Kernel(_tangent, _tangent_parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _hessian(x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, g: Any, v: Any, vgamma: Any, vg: Any,
             with_v: bool, with_vg: bool, rectified: bool, hx: Any, hgamma: Any, hbeta: Any,
             first: int, last: int) -> None:  # fmt: skip
    zero, rows, wide, channels = hx.dtype.type(0), hx.shape[1], hx.shape[2], gamma.shape[1]
    count, step = rows * (wide // channels), wide * hx.itemsize
    sums, cs, total = np.zeros((7, wide), hx.dtype), np.empty((8, wide), hx.dtype), np.empty((7, channels))
    for t in range(first, last):
        x_at, g_at, v_at, vg_at, hx_at = _at(x, t), _at(g, t), _at(v, t), _at(vg, t), _at(hx, t)
        _gate_of(gamma, beta, mean, rstd, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            _hessian_sums_pass(
                zero, here, wide, (x_at + skip, g_at + skip, v_at + skip, vg_at + skip),
                cs.ctypes.data, sums.ctypes.data,
            )  # fmt: skip
            _collect(total, sums)
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
        _hessian_rows_pass(zero, rows, wide, (x_at, g_at, v_at, vg_at, hx_at), cs.ctypes.data, sums.ctypes.data)


_hessian_out = hand_out(_hessian)


@njit(cache=True, nogil=True)
def _hessian_parts(job: Job, *arguments: Any) -> int:
    return _hessian_out(job, arguments)


_HESSIAN = Kernel(_hessian, _hessian_parts)


def _rows(*arrays: Any) -> list[Any]:
    """[T, ..., C] each -> [T, rows, wide] in C order, without the copies of an axis that was broadcast over tasks."""
    channels, count = arrays[0].shape[-1], math.prod(arrays[0].shape[1:-1])
    side = next(n for n in range(max(_WIDE // channels, 1), 0, -1) if count % n == 0)
    return [plain(x).reshape(-1, count // side, side * channels) for x in arrays]


def _whole(*parameters: Any) -> list[Any]:
    """[T, C] each, in C order."""
    return [whole(p) for p in parameters]


def batch_norm(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """y; mean and rstd of every task's channels."""
    (y, mean, rstd), (x, gamma, beta) = outs, ins
    if y.size == 0:
        return None
    (x, to), (gamma, beta) = _rows(x, y), _whole(gamma, beta)
    return Launch(len(y), 3 * y.size, _BATCH_NORM, (x, gamma, beta, eps, rectified, to, mean, rstd))


def batch_norm_tangent(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The derivative of y along those of (vx, vgamma, vbeta) that are given."""
    (y,), x, per_task, vs = outs, ins[0], _whole(*ins[1:5]), reference.named(given, ins[5:])
    if y.size == 0:
        return None
    none = np.zeros_like(per_task[0])
    x, v, to = _rows(x, vs.get("x", x), y)
    vgamma, vbeta = _whole(vs.get("gamma", none), vs.get("beta", none))
    arguments = (x, *per_task, v, vgamma, vbeta, "x" in vs, rectified, to)
    return Launch(len(y), 4 * y.size, _TANGENT, arguments)


def batch_norm_gradient(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> Launch | None:
    """(dx, dgamma, dbeta) of <y, g>."""
    (dx, dgamma, dbeta), (x, gamma, beta, g, mean, rstd) = outs, ins
    if dx.size == 0:
        return None
    (x, g, to), per_task = _rows(x, g, dx), _whole(gamma, beta, mean, rstd)
    return Launch(len(dx), 4 * dx.size, _GRADIENT, (x, *per_task, g, rectified, to, dgamma, dbeta))


def batch_norm_hessian(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> Launch | None:
    """The derivative of (dx, dgamma, dbeta) along those of (vx, vgamma, vbeta, vg) that are given."""
    (hx, hgamma, hbeta), (x, gamma, beta, g, mean, rstd, *rest) = outs, ins
    if hx.size == 0:
        return None
    vs, per_task = reference.named(given, rest), _whole(gamma, beta, mean, rstd)
    (vgamma,) = _whole(vs.get("gamma", np.zeros_like(per_task[0])))
    # In place of what is missing something that is read anyway: its coefficients are 0.
    x, g, v, vg, to = _rows(x, g, vs.get("x", x), vs.get("g", g), hx)
    arguments = (x, *per_task, g, v, vgamma, vg, "x" in vs, "g" in vs, rectified, to, hgamma, hbeta)
    return Launch(len(hx), 6 * hx.size, _HESSIAN, arguments)

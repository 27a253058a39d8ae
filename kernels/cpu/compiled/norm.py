"""Batch normalisation in passes over the rows of one task, which stays in the cache from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from tinymaml.kernels.cpu import norm as reference
from tinymaml.kernels.cpu.compiled.rows import WIDEST, row_pass
from tinymaml.kernels.cpu.compiled.vectors import BYTES, Emitter
from tinymaml.kernels.cpu.threads import over_tasks

Arrays = Sequence[Any]
Values = Sequence[ir.Value]

_BLOCK = 256  # rows added up in the arrays' own precision; the blocks are added in double precision


def _unit(e: Emitter, x: ir.Value, average: ir.Value, scale: ir.Value) -> ir.Value:
    return e.builder.fmul(e.builder.fsub(x, average), scale)


def _gated(e: Emitter, unit: ir.Value, gain: ir.Value, shift: ir.Value, *gs: ir.Value) -> list[ir.Value]:
    """Each g where unit gain + shift > 0, else 0. Without a ReLU the gain is 0 and the shift infinite."""
    is_open = e.builder.fcmp_ordered(">", e.multiply_add(unit, gain, shift), e.zero)
    return [e.builder.select(is_open, g, e.zero) for g in gs]


def _sum(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    return [], [e.builder.fadd(sums[0], xs[0])]


def _squares(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    centred = e.builder.fsub(xs[0], cs[0])
    return [], [e.multiply_add(centred, centred, sums[0])]


def _value(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """(x - average) gain + shift, not under the lowest; what is not a number stays so."""
    average, gain, shift, lowest = cs
    z = e.multiply_add(e.builder.fsub(xs[0], average), gain, shift)
    return [e.builder.select(e.builder.fcmp_ordered("<=", z, lowest), lowest, z)], []


def _gradient_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """The sums of g and of unit g."""
    unit = _unit(e, xs[0], cs[0], cs[1])
    (g,) = _gated(e, unit, cs[2], cs[3], xs[1])
    return [], [e.builder.fadd(sums[0], g), e.multiply_add(unit, g, sums[1])]


def _gradient_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """by_g g + by_unit unit + rest."""
    by_g, by_unit, rest = cs[4:]
    unit = _unit(e, xs[0], cs[0], cs[1])
    (g,) = _gated(e, unit, cs[2], cs[3], xs[1])
    return [e.multiply_add(by_g, g, e.multiply_add(by_unit, unit, rest))], []


def _tangent_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """The sums of v and of unit v."""
    unit = _unit(e, xs[0], cs[0], cs[1])
    return [], [e.builder.fadd(sums[0], xs[1]), e.multiply_add(unit, xs[1], sums[1])]


def _tangent_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """by_v v + by_unit unit + rest, through the gate."""
    by_v, by_unit, rest = cs[4:]
    unit = _unit(e, xs[0], cs[0], cs[1])
    return _gated(e, unit, cs[2], cs[3], e.multiply_add(by_v, xs[1], e.multiply_add(by_unit, unit, rest))), []


def _hessian_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """The sums of g, unit g, v, unit v, g v, vg, unit vg."""
    unit = _unit(e, xs[0], cs[0], cs[1])
    v = xs[2]
    g, vg = _gated(e, unit, cs[2], cs[3], xs[1], xs[3])
    plain = [e.builder.fadd(total, term) for total, term in ((sums[0], g), (sums[2], v), (sums[5], vg))]
    pairs = ((sums[1], unit, g), (sums[3], unit, v), (sums[4], g, v), (sums[6], unit, vg))
    products = [e.multiply_add(a, b, total) for total, a, b in pairs]
    return [], [plain[0], products[0], plain[1], products[1], products[2], plain[2], products[3]]


def _hessian_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> Any:
    """by_g g + by_v v + by_vg vg + by_unit unit + rest."""
    by_g, by_v, by_vg, by_unit, rest = cs[4:]
    unit = _unit(e, xs[0], cs[0], cs[1])
    g, vg = _gated(e, unit, cs[2], cs[3], xs[1], xs[3])
    total = e.multiply_add(by_unit, unit, rest)
    for factor, value in ((by_g, g), (by_v, xs[2]), (by_vg, vg)):
        total = e.multiply_add(factor, value, total)
    return [total], []


_sum_pass = row_pass(1, 0, 0, 1, _sum)
_squares_pass = row_pass(1, 0, 1, 1, _squares)
_value_pass = row_pass(1, 1, 4, 0, _value)
_gradient_sums_pass = row_pass(2, 0, 4, 2, _gradient_sums)
_gradient_rows_pass = row_pass(2, 1, 7, 0, _gradient_rows)
_tangent_sums_pass = row_pass(2, 0, 4, 2, _tangent_sums)
_tangent_rows_pass = row_pass(2, 1, 7, 0, _tangent_rows)
_hessian_sums_pass = row_pass(4, 0, 4, 7, _hessian_sums)
_hessian_rows_pass = row_pass(4, 1, 9, 0, _hessian_rows)


@njit(cache=True, nogil=True)
def _columns(channel: int, channels: int, size: int) -> tuple[int, int]:
    """(vectors, lanes of the last one) of the columns from this channel on."""
    lanes = BYTES // size
    wide = min(channels - channel, lanes * WIDEST)
    vectors = (wide + lanes - 1) // lanes
    return vectors, wide - (vectors - 1) * lanes


@njit(cache=True, nogil=True)
def _at(x: Any, t: int) -> int:
    """The address of task t's part."""
    return x.ctypes.data + (t * (x.size // x.shape[0]) * x.itemsize if x.shape[0] > 1 else 0)


@njit(cache=True, nogil=True)
def _gate_of(gamma: Any, beta: Any, rectified: bool, t: int, cs: Any) -> None:
    """Coefficients 2 and 3, the gate's."""
    for c in range(cs.shape[1]):
        cs[2, c] = gamma[t, c] if rectified else 0
        cs[3, c] = beta[t, c] if rectified else np.inf


@njit(cache=True, nogil=True)
def _batch_norm(x: Any, gamma: Any, beta: Any, eps: float, rectified: bool, y: Any, average: Any, scale: Any,
                first: int, last: int) -> None:  # fmt: skip
    zero, size = y.dtype.type(0), y.itemsize
    rows, channels = x.shape[1], x.shape[2]
    step = channels * size
    sums = np.empty(channels, y.dtype)
    cs = np.empty((4, channels), y.dtype)
    total = np.empty(channels, np.float64)
    for t in range(first, last):
        x_at, y_at = _at(x, t), _at(y, t)
        for k in range(2):
            total[:] = 0
            for r in range(0, rows, _BLOCK):
                here = min(_BLOCK, rows - r)
                for c in range(0, channels, BYTES // size * WIDEST):
                    vectors, tail = _columns(c, channels, size)
                    own = x_at + r * step + c * size
                    if k == 0:
                        _sum_pass(zero, vectors, tail, here, step, (own, sums.ctypes.data + c * size))
                    else:
                        _squares_pass(
                            zero, vectors, tail, here, step,
                            (own, cs.ctypes.data + c * size, sums.ctypes.data + c * size),
                        )  # fmt: skip
                for c in range(channels):
                    total[c] += sums[c]
            for c in range(channels):
                if k == 0:
                    average[t, c] = total[c] / rows
                    cs[0, c] = average[t, c]
                else:
                    scale[t, c] = 1 / np.sqrt(total[c] / rows + eps)
        for c in range(channels):
            cs[1, c] = gamma[t, c] * scale[t, c]
            cs[2, c] = beta[t, c]
            cs[3, c] = 0 if rectified else -np.inf
        for c in range(0, channels, BYTES // size * WIDEST):
            vectors, tail = _columns(c, channels, size)
            k_at = cs.ctypes.data + c * size
            _value_pass(
                zero, vectors, tail, rows, step,
                (x_at + c * size, y_at + c * size, k_at, k_at + step, k_at + 2 * step, k_at + 3 * step),
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _gradient(x: Any, gamma: Any, beta: Any, g: Any, average: Any, scale: Any, rectified: bool,
              dx: Any, dgamma: Any, dbeta: Any, first: int, last: int) -> None:  # fmt: skip
    zero, size = dx.dtype.type(0), dx.itemsize
    rows, channels = x.shape[1], x.shape[2]
    step = channels * size
    sums = np.empty((2, channels), dx.dtype)
    cs = np.empty((7, channels), dx.dtype)
    total = np.empty((2, channels), np.float64)
    k_at, s_at = cs.ctypes.data, sums.ctypes.data
    for t in range(first, last):
        x_at, g_at, dx_at = _at(x, t), _at(g, t), _at(dx, t)
        cs[0], cs[1] = average[t], scale[t]
        _gate_of(gamma, beta, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            for c in range(0, channels, BYTES // size * WIDEST):
                vectors, tail = _columns(c, channels, size)
                o = c * size
                _gradient_sums_pass(
                    zero, vectors, tail, here, step,
                    (x_at + skip + o, g_at + skip + o, k_at + o, k_at + step + o, k_at + 2 * step + o,
                     k_at + 3 * step + o, s_at + o, s_at + step + o),
                )  # fmt: skip
            total += sums
        for c in range(channels):
            dbeta[t, c], dgamma[t, c] = total[0, c], total[1, c]
            gain = float(gamma[t, c]) * scale[t, c]
            cs[4, c] = gain
            cs[5, c] = -gain * total[1, c] / rows
            cs[6, c] = -gain * total[0, c] / rows
        for c in range(0, channels, BYTES // size * WIDEST):
            vectors, tail = _columns(c, channels, size)
            o = c * size
            _gradient_rows_pass(
                zero, vectors, tail, rows, step,
                (x_at + o, g_at + o, dx_at + o, k_at + o, k_at + step + o, k_at + 2 * step + o, k_at + 3 * step + o,
                 k_at + 4 * step + o, k_at + 5 * step + o, k_at + 6 * step + o),
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _tangent(x: Any, gamma: Any, beta: Any, average: Any, scale: Any, v: Any, vgamma: Any, vbeta: Any, with_v: bool,
             rectified: bool, y: Any, first: int, last: int) -> None:  # fmt: skip
    zero, size = y.dtype.type(0), y.itemsize
    rows, channels = x.shape[1], x.shape[2]
    step = channels * size
    sums = np.empty((2, channels), y.dtype)
    cs = np.empty((7, channels), y.dtype)
    total = np.zeros((2, channels), np.float64)
    k_at, s_at = cs.ctypes.data, sums.ctypes.data
    for t in range(first, last):
        x_at, v_at, y_at = _at(x, t), _at(v, t), _at(y, t)
        cs[0], cs[1] = average[t], scale[t]
        _gate_of(gamma, beta, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows if with_v else 0, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            for c in range(0, channels, BYTES // size * WIDEST):
                vectors, tail = _columns(c, channels, size)
                o = c * size
                _tangent_sums_pass(
                    zero, vectors, tail, here, step,
                    (x_at + skip + o, v_at + skip + o, k_at + o, k_at + step + o, k_at + 2 * step + o,
                     k_at + 3 * step + o, s_at + o, s_at + step + o),
                )  # fmt: skip
            total += sums
        for c in range(channels):
            gain = float(gamma[t, c]) * scale[t, c] if with_v else 0.0
            cs[4, c] = gain
            cs[5, c] = vgamma[t, c] - gain * total[1, c] / rows
            cs[6, c] = vbeta[t, c] - gain * total[0, c] / rows
        for c in range(0, channels, BYTES // size * WIDEST):
            vectors, tail = _columns(c, channels, size)
            o = c * size
            _tangent_rows_pass(
                zero, vectors, tail, rows, step,
                (x_at + o, v_at + o, y_at + o, k_at + o, k_at + step + o, k_at + 2 * step + o, k_at + 3 * step + o,
                 k_at + 4 * step + o, k_at + 5 * step + o, k_at + 6 * step + o),
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _hessian(x: Any, gamma: Any, beta: Any, g: Any, average: Any, scale: Any, v: Any, vgamma: Any, vg: Any,
             with_v: bool, with_vg: bool, rectified: bool, hx: Any, hgamma: Any, hbeta: Any,
             first: int, last: int) -> None:  # fmt: skip
    zero, size = hx.dtype.type(0), hx.itemsize
    rows, channels = x.shape[1], x.shape[2]
    step = channels * size
    sums = np.empty((7, channels), hx.dtype)
    cs = np.empty((9, channels), hx.dtype)
    total = np.empty((7, channels), np.float64)
    k_at, s_at = cs.ctypes.data, sums.ctypes.data
    for t in range(first, last):
        x_at, g_at, v_at, vg_at, hx_at = _at(x, t), _at(g, t), _at(v, t), _at(vg, t), _at(hx, t)
        cs[0], cs[1] = average[t], scale[t]
        _gate_of(gamma, beta, rectified, t, cs)
        total[:] = 0
        for r in range(0, rows, _BLOCK):
            here, skip = min(_BLOCK, rows - r), r * step
            for c in range(0, channels, BYTES // size * WIDEST):
                vectors, tail = _columns(c, channels, size)
                o = c * size
                _hessian_sums_pass(
                    zero, vectors, tail, here, step,
                    (x_at + skip + o, g_at + skip + o, v_at + skip + o, vg_at + skip + o,
                     k_at + o, k_at + step + o, k_at + 2 * step + o, k_at + 3 * step + o,
                     s_at + o, s_at + step + o, s_at + 2 * step + o, s_at + 3 * step + o, s_at + 4 * step + o,
                     s_at + 5 * step + o, s_at + 6 * step + o),
                )  # fmt: skip
            total += sums
        for c in range(channels):
            r, own = float(scale[t, c]), float(gamma[t, c])
            gain, more = own * r, float(vgamma[t, c])
            g_mean, g_slope = total[0, c] / rows, total[1, c] / rows
            v_mean, v_slope, along = 0.0, 0.0, 0.0
            if with_v:
                v_mean, v_slope = total[2, c] / rows, total[3, c] / rows
                along = r * (total[4, c] - v_mean * total[0, c] - v_slope * total[1, c])
            by_g = more * r - gain * r * v_slope
            by_v = -gain * r * g_slope if with_v else 0.0
            by_vg, vg_mean, vg_slope = 0.0, 0.0, 0.0
            if with_vg:
                by_vg, vg_mean, vg_slope = gain, total[5, c] / rows, total[6, c] / rows
            cs[4, c], cs[5, c], cs[6, c] = by_g, by_v, by_vg
            cs[7, c] = -by_g * g_slope - by_v * v_slope - gain * along / rows - by_vg * vg_slope
            cs[8, c] = -by_g * g_mean - by_v * v_mean - by_vg * vg_mean
            hgamma[t, c] = along + vg_slope * rows
            hbeta[t, c] = vg_mean * rows
        for c in range(0, channels, BYTES // size * WIDEST):
            vectors, tail = _columns(c, channels, size)
            o = c * size
            _hessian_rows_pass(
                zero, vectors, tail, rows, step,
                (x_at + o, g_at + o, v_at + o, vg_at + o, hx_at + o,
                 k_at + o, k_at + step + o, k_at + 2 * step + o, k_at + 3 * step + o, k_at + 4 * step + o,
                 k_at + 5 * step + o, k_at + 6 * step + o, k_at + 7 * step + o, k_at + 8 * step + o),
            )  # fmt: skip


def _rows(x: Any) -> Any:
    """[T, ..., C] -> [T, M, C] in C order, without the copies of an axis that was broadcast over tasks."""
    if not x.flags.c_contiguous:
        x = np.ascontiguousarray(x[:1] if x.strides[0] == 0 else x)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _plain(*parameters: Any) -> list[Any]:
    """[T, C] each, in C order."""
    return [np.ascontiguousarray(p) for p in parameters]


def batch_norm(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """y; the mean and 1/std of every task's channels."""
    (y, average, scale), (x, gamma, beta) = outs, ins
    if y.size == 0:
        reference.batch_norm(outs, ins, eps, rectified)
        return
    x, to, (gamma, beta) = _rows(x), _rows(y), _plain(gamma, beta)
    over_tasks(
        len(y),
        3 * y.size,
        lambda first, last: _batch_norm(x, gamma, beta, eps, rectified, to, average, scale, first, last),
    )


def batch_norm_gradient(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """dx, dgamma, dbeta of <y, g>."""
    (dx, dgamma, dbeta), (x, gamma, beta, g, average, scale) = outs, ins
    if dx.size == 0:
        reference.batch_norm_gradient(outs, ins, eps, rectified)
        return
    x, g, to, (gamma, beta) = _rows(x), _rows(g), _rows(dx), _plain(gamma, beta)

    def run(first: int, last: int) -> None:
        _gradient(x, gamma, beta, g, average, scale, rectified, to, dgamma, dbeta, first, last)

    over_tasks(len(dx), 4 * dx.size, run)


def batch_norm_tangent(outs: Arrays, ins: Arrays, given: tuple[bool, ...], eps: float, rectified: bool) -> None:
    """The derivative of y along (vx, vgamma, vbeta)."""
    (y,), (x, gamma, beta, average, scale, *vs) = outs, ins
    if y.size == 0:
        reference.batch_norm_tangent(outs, ins, given, eps, rectified)
        return
    x, to, rest, none = _rows(x), _rows(y), iter(vs), np.zeros_like(average)
    v, vgamma, vbeta = (
        next(rest) if is_there else other for is_there, other in zip(given, (x, none, none), strict=True)
    )
    v = _rows(v)
    gamma, beta, vgamma, vbeta = _plain(gamma, beta, vgamma, vbeta)

    def run(first: int, last: int) -> None:
        _tangent(x, gamma, beta, average, scale, v, vgamma, vbeta, given[0], rectified, to, first, last)

    over_tasks(len(y), 4 * y.size, run)


def batch_norm_hessian(outs: Arrays, ins: Arrays, given: tuple[bool, ...], eps: float, rectified: bool) -> None:
    """The derivative of (dx, dgamma, dbeta) along (vx, vgamma, vbeta, vg)."""
    (hx, hgamma, hbeta), (x, gamma, beta, g, average, scale, *vs) = outs, ins
    if hx.size == 0:
        reference.batch_norm_hessian(outs, ins, given, eps, rectified)
        return
    x, g, to, rest = _rows(x), _rows(g), _rows(hx), iter(vs)
    none = np.zeros_like(average)
    others = (x, none, none, g)
    v, vgamma, _, vg = (next(rest) if is_there else other for is_there, other in zip(given, others, strict=True))
    v, vg = _rows(v), _rows(vg)
    gamma, beta, vgamma = _plain(gamma, beta, vgamma)

    def run(first: int, last: int) -> None:
        _hessian(
            x, gamma, beta, g, average, scale, v, vgamma, vg, given[0], given[3], rectified,
            to, hgamma, hbeta, first, last,
        )  # fmt: skip

    over_tasks(len(hx), 6 * hx.size, run)

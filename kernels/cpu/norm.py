"""Batch normalisation, with a ReLU if `rectified`: value, gradient, tangent, Hessian product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def _rows(x: Any) -> Any:
    """[T, ..., C] -> [T, M, C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _unit(x: Any, average: Any, scale: Any) -> Any:
    return (_rows(x) - average[:, None]) * scale[:, None]


def _gate(unit: Any, gamma: Any, beta: Any, rectified: bool) -> Any:
    """Which of the results the ReLU lets through."""
    return unit * gamma[:, None] + beta[:, None] > 0 if rectified else np.True_


def _along(v: Any, unit: Any, scale: Any) -> tuple[Any, Any]:
    """The mean of unit v, [T, 1, C], and the tangent of `unit` along v."""
    slope = (unit * v).mean(1, keepdims=True)
    return slope, scale[:, None] * (v - v.mean(1, keepdims=True) - unit * slope)


def batch_norm(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """y; the mean and 1/std of every task's channels."""
    (y, average, scale), (x, gamma, beta) = outs, ins
    rows = _rows(x)
    rows.mean(1, out=average)
    np.divide(1, np.sqrt(np.square(rows - average[:, None]).mean(1) + x.dtype.type(eps)), out=scale)
    z = _unit(x, average, scale) * gamma[:, None] + beta[:, None]
    y[...] = (np.maximum(z, 0) if rectified else z).reshape(y.shape)


def _gradient(x: Any, gamma: Any, beta: Any, g: Any, average: Any, scale: Any, rectified: bool) -> tuple[Any, ...]:
    unit = _unit(x, average, scale)
    g = np.where(_gate(unit, gamma, beta, rectified), _rows(g), 0)
    dbeta, dgamma = g.sum(1), (g * unit).sum(1)
    rest = g - (dbeta[:, None] + unit * dgamma[:, None]) / g.dtype.type(g.shape[1])
    return (gamma * scale)[:, None] * rest, dgamma, dbeta, unit, g, rest


def batch_norm_gradient(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """dx, dgamma, dbeta of <y, g>."""
    for out, found in zip(outs, _gradient(*ins, rectified=rectified), strict=False):
        out[...] = found.reshape(out.shape)


def batch_norm_tangent(outs: Arrays, ins: Arrays, given: tuple[bool, ...], eps: float, rectified: bool) -> None:
    """The derivative of y along (vx, vgamma, vbeta)."""
    x, gamma, beta, average, scale, *vs = ins
    rest = iter(vs)
    unit = _unit(x, average, scale)
    total = np.zeros_like(unit)
    if given[0]:
        total += gamma[:, None] * _along(_rows(next(rest)), unit, scale)[1]
    if given[1]:
        total += unit * next(rest)[:, None]
    if given[2]:
        total += next(rest)[:, None]
    outs[0][...] = np.where(_gate(unit, gamma, beta, rectified), total, 0).reshape(outs[0].shape)


def batch_norm_hessian(outs: Arrays, ins: Arrays, given: tuple[bool, ...], eps: float, rectified: bool) -> None:
    """The derivative of (dx, dgamma, dbeta) along (vx, vgamma, vbeta, vg)."""
    x, gamma, beta, g, average, scale, *vs = ins
    hx, hgamma, hbeta = outs
    rest = iter(vs)
    _, dgamma, _, unit, g, remainder = _gradient(x, gamma, beta, g, average, scale, rectified)
    total = np.zeros_like(unit)
    hgamma[...], hbeta[...] = 0, 0
    gain = (gamma * scale)[:, None]
    if given[0]:
        slope, moved = _along(_rows(next(rest)), unit, scale)
        along = (g * moved).sum(1)
        m = g.dtype.type(g.shape[1])
        total -= gain * (scale[:, None] * slope * remainder + (moved * dgamma[:, None] + unit * along[:, None]) / m)
        hgamma += along
    if given[1]:
        total += (next(rest) * scale)[:, None] * remainder
    if given[2]:
        next(rest)
    if given[3]:
        dx, more_gamma, more_beta, *_ = _gradient(x, gamma, beta, next(rest), average, scale, rectified)
        total += dx
        hgamma += more_gamma
        hbeta += more_beta
    hx[...] = total.reshape(hx.shape)

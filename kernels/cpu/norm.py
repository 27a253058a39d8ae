"""Batch normalisation, with a ReLU if `rectified`: value, tangent, gradient, Hessian product.

The derivatives take what x was normalised with, mean and rstd = 1 / sqrt(variance + eps), and have no use for eps.
`normal` is x normalised, (x - mean) rstd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.cpu import pool

Arrays = Sequence[Any]
Given = tuple[bool, ...]


def _rows(x: Any) -> Any:
    """[T, ..., C] -> [T, M, C]."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def named(given: Given, tangents: Arrays) -> dict[str, Any]:
    """The tangents that are given, by whose they are."""
    names = [name for name, is_there in zip(("x", "gamma", "beta", "g"), given, strict=False) if is_there]
    return dict(zip(names, tangents, strict=True))


def _sum(x: Any) -> Any:
    """[T, M, C] -> [T, C], added up in double precision."""
    return x.sum(1, dtype=np.float64).astype(x.dtype)


def _mean(x: Any) -> Any:
    """[T, M, C] -> [T, 1, C]."""
    return x.mean(1, dtype=np.float64, keepdims=True).astype(x.dtype)


def batch_norm(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """y; mean and rstd of every task's channels."""
    (y, mean, rstd), (x, gamma, beta) = outs, ins
    x = _rows(x)
    # Less the first example: the mean of equal numbers is then that number, and they come out as beta, exactly.
    mean[...] = x[:, 0] + (x - x[:, :1]).mean(1, dtype=np.float64)
    centred = x - mean[:, None]
    rstd[...] = 1 / np.sqrt(np.square(centred).mean(1, dtype=np.float64) + eps)
    z = centred * (gamma * rstd)[:, None] + beta[:, None]
    y[...] = (np.maximum(z, 0) if rectified else z).reshape(y.shape)


class _Point:
    """What the derivatives have in common: everything is [T, M, C] or [T, 1, C]."""

    def __init__(self, x: Any, *per_task: Any, rectified: bool) -> None:
        self.gamma, beta, mean, self.rstd = (p[:, None] for p in per_task)
        centred = _rows(x) - mean
        self.normal = centred * self.rstd
        self.open = centred * (self.gamma * self.rstd) + beta > 0 if rectified else np.True_

    def gated(self, g: Any) -> Any:
        """g where the ReLU lets it through, else 0."""
        return np.where(self.open, g, g.dtype.type(0))

    def moved(self, v: Any) -> Any:
        """How `normal` moves along v; its adjoint is itself."""
        return self.rstd * (v - _mean(v) - self.normal * _mean(self.normal * v))


def batch_norm_tangent(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of y along those of (vx, vgamma, vbeta) that are given."""
    f, vs = _Point(*ins[:5], rectified=rectified), named(given, ins[5:])
    total = np.zeros_like(f.normal)
    if "x" in vs:
        total += f.gamma * f.moved(_rows(vs["x"]))
    if "gamma" in vs:
        total += f.normal * vs["gamma"][:, None]
    if "beta" in vs:
        total += vs["beta"][:, None]
    outs[0][...] = f.gated(total).reshape(outs[0].shape)


def batch_norm_gradient(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """(dx, dgamma, dbeta) of <y, g>."""
    (dx, dgamma, dbeta), (x, gamma, beta, g, mean, rstd) = outs, ins
    f = _Point(x, gamma, beta, mean, rstd, rectified=rectified)
    g = f.gated(_rows(g))
    dx[...] = (f.gamma * f.moved(g)).reshape(dx.shape)
    dgamma[...], dbeta[...] = _sum(g * f.normal), _sum(g)


def batch_norm_hessian(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of (dx, dgamma, dbeta) along those of (vx, vgamma, vbeta, vg) that are given."""
    (hx, hgamma, hbeta), (x, gamma, beta, g, mean, rstd, *rest) = outs, ins
    f, vs = _Point(x, gamma, beta, mean, rstd, rectified=rectified), named(given, rest)
    g = f.gated(_rows(g))
    total = np.zeros_like(f.normal)
    hgamma[...], hbeta[...] = 0, 0
    if "x" in vs:
        v = _rows(vs["x"])
        moved = f.moved(v)
        along = moved * _mean(g * f.normal) + f.normal * _mean(g * moved)
        # rstd itself moves by -rstd^2 times the mean of normal v.
        total -= f.gamma * f.rstd * (f.moved(g) * _mean(f.normal * v) + along)
        hgamma += _sum(g * moved)
    if "gamma" in vs:
        total += vs["gamma"][:, None] * f.moved(g)
    if "g" in vs:
        vg = f.gated(_rows(vs["g"]))
        total += f.gamma * f.moved(vg)
        hgamma += _sum(vg * f.normal)
        hbeta += _sum(vg)
    hx[...] = total.reshape(hx.shape)


# The same followed by max-pooling with windows of 2 x 2 that do not overlap; `places` is what max_pool gives.

_WINDOWS: dict[str, Any] = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}


def _put(like: Any, g: Any, places: Any) -> Any:
    """The cotangent of y from that of the pooled y."""
    cotangent = np.empty_like(like)
    pool.pool_put([cotangent], [g, places], **_WINDOWS, size=like.shape[2:4])
    return cotangent


def batch_norm_pool(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """max_pool(y) and its places; mean and rstd."""
    y = np.empty_like(ins[0])
    batch_norm([y, *outs[2:]], ins, eps, rectified)
    pool.max_pool(outs[:2], [y], **_WINDOWS)


def batch_norm_tangent_pool(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of max_pool(y); the last input are the places."""
    *others, places = ins
    y = np.empty_like(ins[0])
    batch_norm_tangent([y], others, given, eps, rectified)
    pool.pool_take(outs, [y, places], **_WINDOWS, size=y.shape[2:4])


def batch_norm_gradient_pool(outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """(dx, dgamma, dbeta) of <max_pool(y), g>; the last input are the places."""
    x, gamma, beta, g, mean, rstd, places = ins
    batch_norm_gradient(outs, [x, gamma, beta, _put(x, g, places), mean, rstd], eps, rectified)


def batch_norm_hessian_pool(outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of these; the last input are the places."""
    x, gamma, beta, g, mean, rstd, *vs, places = ins
    if given[3]:
        vs[-1] = _put(x, vs[-1], places)
    batch_norm_hessian(outs, [x, gamma, beta, _put(x, g, places), mean, rstd, *vs], given, eps, rectified)

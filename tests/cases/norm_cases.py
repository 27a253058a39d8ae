"""Cases of normalisation, as primitive_cases has them: odd sizes, one example, one task, gamma = 0, constant channels.

What the derivatives are is found by complex steps through the definition: exact, without a formula for them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tinymaml as tm
from tests.cases.primitive_cases import Case, Source, case
from tinymaml.autodiff.primitive import REGISTRY


def over(p: Any, x: Any) -> Any:
    """[T or 1, C] with as many axes as x."""
    return p.reshape(p.shape[0], *[1] * (x.ndim - 2), p.shape[-1])


def normal_of(x: Any, eps: float) -> tuple[Any, Any]:
    """x normalised, and 1/std; of complex x too."""
    middle = tuple(range(1, x.ndim - 1))
    centred = x - x.mean(middle, keepdims=True)
    rstd = ((centred * centred).mean(middle, keepdims=True) + eps) ** -0.5
    return centred * rstd, rstd


def value(x: Any, gamma: Any, beta: Any, eps: float, rectified: bool) -> Any:
    """The definition."""
    z = normal_of(x, eps)[0] * over(gamma, x) + over(beta, x)
    return np.where(z.real > 0, z, 0) if rectified else z


def gradient(x: Any, gamma: Any, beta: Any, g: Any, eps: float, rectified: bool) -> tuple[Any, ...]:
    """Of <value, g>: (dx, dgamma, dbeta)."""
    middle = tuple(range(1, x.ndim - 1))
    normal, rstd = normal_of(x, eps)
    if rectified:
        g = np.where(value(x, gamma, beta, eps, False).real > 0, g, 0)
    rest = g - g.mean(middle, keepdims=True) - normal * (normal * g).mean(middle, keepdims=True)
    return over(gamma, x) * rstd * rest, (g * normal).sum(middle), g.sum(middle)


def along(function: Any, points: Any, directions: Any) -> Any:
    """The derivative of a function of arrays along directions; None is 0."""
    h = 1e-30
    steps = [p + 1j * h * (0 if v is None else v.astype(np.float64)) for p, v in zip(points, directions, strict=True)]
    found = function(*steps)
    return tuple(y.imag / h for y in found) if isinstance(found, tuple) else found.imag / h


def off_kinks(s: Source, x: Any, gamma: Any, eps: float) -> Any:
    """A beta, for all tasks, such that nothing is near the kink: y is 0 in the middle of one of the widest gaps."""
    z = (normal_of(x.astype(np.float64), eps)[0] * over(gamma, x)).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    beta = np.zeros((1, x.shape[-1]))
    for c in range(x.shape[-1] if len(z) else 0):
        points = np.sort(z[:, c])
        points = np.concatenate([[points[0] - 1], points, [points[-1] + 1]])
        wide = np.argsort(np.diff(points))[-s.pick(1, 2) :][0]
        beta[0, c] = -(points[wide] + points[wide + 1]) / 2
    return beta.astype(s.dtype)


class _Draw:
    """Arrays that fit together."""

    def __init__(self, s: Source) -> None:
        tasks, channels, middle = s.side(), s.side(), s.shape(1, 3, side=1)
        if max(s.sides) > 3:  # kernels are compared: all widths of vectors, several blocks of rows
            tasks, channels = s.pick(0, 1, 3), s.pick(0, 1, 3, 7, 17, 33, 64, 100)
            middle = s.pick((1,), (3, 5), (7, 11, 2), (300,), (37, 14), (512,))
        self.shape = (tasks, *middle, channels)
        self.static = {"eps": s.pick(0.3, 1.0), "rectified": s.pick(True, False)}
        self.x = s.normal(self.shape)
        if s.pick(True, False, False, False):
            self.x = self.x.copy()
            self.x[..., : (channels + 1) // 2] = s.dtype.type(0.7)
        gamma = s.rng.standard_normal((tasks, channels))
        gamma[:, :: s.pick(2, 5)] *= s.pick(0, 1)
        self.gamma = s.lay(gamma)
        self.beta = np.broadcast_to(off_kinks(s, self.x, self.gamma, self.static["eps"]), (tasks, channels))
        self.point = (self.x, self.gamma, self.beta)

    def tangents(self, s: Source, *names: str) -> list[Any]:
        """One of them or more, None for the others."""
        given = [s.pick(True, False) for _ in names]
        given[s.integer(0, len(names) - 1)] = True
        shapes = [self.shape if name in ("x", "g") else self.gamma.shape for name in names]
        return [s.normal(shape) if is_there else None for shape, is_there in zip(shapes, given, strict=True)]


def there(vs: list[Any]) -> dict[str, Any]:
    return {"given": tuple(v is not None for v in vs)}


def spread(like: list[Any], vs: Any) -> list[Any]:
    """The given ones in their places."""
    rest = iter(vs)
    return [None if v is None else next(rest) for v in like]


def statistics(x: Any, gamma: Any, beta: Any, static: dict[str, Any]) -> Any:
    """The residuals, for the primitives that take them."""
    return REGISTRY["batch_norm"](x, gamma, beta, **static)[1:]


@case
def _batch_norm(s: Source) -> Case:
    d = _Draw(s)
    return Case(lambda *xs: REGISTRY["batch_norm"](*xs, **d.static)[0], d.point, lambda *xs: value(*xs, **d.static))


@case
def _batch_norm_tangent(s: Source) -> Case:
    d = _Draw(s)
    vs = d.tangents(s, "x", "gamma", "beta")

    def function(*xs: Any) -> Any:
        own = statistics(*xs[:3], d.static)
        return REGISTRY["batch_norm_tangent"](*xs[:3], *own, *xs[3:], **there(vs), **d.static)

    def reference(*xs: Any) -> Any:
        return along(lambda *ps: value(*ps, **d.static), xs[:3], spread(vs, xs[3:]))

    return Case(function, (*d.point, *[v for v in vs if v is not None]), reference, order=2)


@case
def _batch_norm_gradient(s: Source) -> Case:
    d = _Draw(s)

    def function(*xs: Any) -> Any:
        return REGISTRY["batch_norm_gradient"](*xs, *statistics(*xs[:3], d.static), **d.static)

    return Case(function, (*d.point, s.normal(d.shape)), lambda *xs: gradient(*xs, **d.static), order=2)


@case
def _batch_norm_hessian(s: Source) -> Case:
    d = _Draw(s)
    vs = d.tangents(s, "x", "gamma", "beta", "g")

    def function(*xs: Any) -> Any:
        own = statistics(*xs[:3], d.static)
        return REGISTRY["batch_norm_hessian"](*xs[:4], *own, *xs[4:], **there(vs), **d.static)

    def reference(*xs: Any) -> Any:
        return along(lambda *ps: gradient(*ps, **d.static), xs[:4], spread(vs, xs[4:]))

    return Case(function, (*d.point, s.normal(d.shape), *[v for v in vs if v is not None]), reference, order=2)


# Public functions, for composite_cases.


def _batch_norm_relu(s: Source) -> Case:
    """With and without parameters, shared or not, with and without statistics."""
    d = _Draw(s)
    eps, tasks = d.static["eps"], s.pick(1, len(d.x))
    gamma = d.gamma[:tasks] if len(d.x) else d.gamma
    beta = off_kinks(s, d.x, gamma, eps)
    if s.pick(True, False):
        return Case(lambda *xs: tm.batch_norm_relu(*xs, eps=eps), (d.x, gamma, beta), lambda *xs: value(*xs, eps, True))
    # Statistics of their own, near the batch's: then the kink is far as well.
    moments = [np.asarray(m.data, s.dtype) for m in tm.batch_statistics(d.x.astype(np.float64))]
    if not len(d.x):
        moments = [m.reshape(0, d.shape[-1]) for m in moments]

    def function(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        return tm.batch_norm_relu(x, gamma, beta, eps=eps, statistics=(mean, variance))

    def reference(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        z = (x - over(mean, x)) / np.sqrt(over(variance, x) + eps) * over(gamma, x) + over(beta, x)
        return np.maximum(z, 0)

    return Case(function, (d.x, gamma, beta, *moments), reference)


def _batch_statistics(s: Source) -> Case:
    x = s.normal((s.side(), *s.shape(1, 3, side=1), s.side()))
    middle = tuple(range(1, x.ndim - 1))
    return Case(tm.batch_statistics, (x,), lambda x: (x.mean(middle), x.var(middle)))


def _layer_norm(s: Source) -> Case:
    x = s.normal((s.side(), *s.shape(0, 2), s.side(1)))
    eps, shape = s.pick(0.3, 1.0), (s.pick(1, len(x)), x.shape[-1])
    kept = s.pick((), ("gamma",), ("beta",), ("gamma", "beta"))

    def reference(x: Any, *rest: Any) -> Any:
        own = dict(zip(kept, rest, strict=True))
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + x.dtype.type(eps))
        y = y * over(own["gamma"], x) if "gamma" in own else y
        return y + over(own["beta"], x) if "beta" in own else y

    def function(x: Any, *rest: Any) -> Any:
        return tm.layer_norm(x, **dict(zip(kept, rest, strict=True)), eps=eps)

    return Case(function, (x, *[s.normal(shape) for _ in kept]), reference)


COMPOSITES = {
    "batch_norm_relu": _batch_norm_relu,
    "batch_statistics": _batch_statistics,
    "layer_norm": _layer_norm,
}

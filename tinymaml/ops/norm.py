"""Batch normalisation of every task's own batch, with or without a ReLU after it: a potential with one Hessian kernel.

Of y = f(x, gamma, beta) and a cotangent g take the potential phi = <f(x, gamma, beta), g>. Four primitives are enough:

    batch_norm           f, with the mean and 1/std of every channel as residuals
    batch_norm_gradient  phi's partial derivatives (dx, dgamma, dbeta): the vjp of f
    batch_norm_tangent   f's derivative along (vx, vgamma, vbeta): the jvp of f, and the vjp of the gradient by g
    batch_norm_hessian   phi's Hessian applied to (vx, vgamma, vbeta): as it is symmetric, in (x, gamma, beta) both the
                         jvp and the vjp of the gradient, and the vjp of the tangent; with the gradient at a tangent of
                         g added, all of the gradient's jvp in one pass

The mean and 1/std are functions of x, which every rule takes into account in full: that is how a primitive may read
them. What lies beyond, the derivatives of the Hessian product and the second derivative along two tangents, is made of
plain ops, in `_plain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinymaml.device import kernel
from tinymaml.ops.elementwise import add, as_tensor, divide, identity, multiply, power, relu, sqrt, subtract
from tinymaml.ops.reduce import mean
from tinymaml.ops.shape import broadcast_to, reshape
from tinymaml.primitive import Primitive, Spec, Tangent
from tinymaml.sweeps import pull, push
from tinymaml.tensor import CONSTANT, Array, Tensor, constant

Given = tuple[bool, ...]


def _per_channel(p: Tensor, x: Tensor) -> Tensor:
    """[T or 1, C] with as many axes as x."""
    return reshape(p, (p.shape[0], *[1] * (x.ndim - 2), p.shape[1]))


def _plain(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, rectified: bool) -> Tensor:
    """The function in plain ops."""
    middle = tuple(range(1, x.ndim - 1))
    centred = subtract(x, mean(x, middle, keepdims=True))
    variance = mean(multiply(centred, centred), middle, keepdims=True)
    unit = multiply(centred, power(add(variance, eps), -0.5))
    y = add(multiply(unit, _per_channel(gamma, x)), _per_channel(beta, x))
    return relu(y) if rectified else y


def _variable(x: Tensor) -> Tensor:
    return identity(x) if x.node.root != CONSTANT else Tensor(x.data)


def _plain_tangent(
    x: Tensor, gamma: Tensor, beta: Tensor, *vs: Tensor, given: Given, eps: float, rectified: bool
) -> Sequence[Tangent]:
    inputs = [_variable(p) for p in (x, gamma, beta)]
    return push([_plain(*inputs, eps, rectified)], inputs, _spread(vs, given))


def _plain_hessian(
    x: Tensor, gamma: Tensor, beta: Tensor, g: Tensor, *vs: Tensor, given: Given, eps: float, rectified: bool
) -> Sequence[Tangent]:
    inputs = [_variable(p) for p in (x, gamma, beta, g)]
    grads = pull([_plain(*inputs[:3], eps, rectified)], inputs[:3], [inputs[3]])
    return push([p for p in grads if p is not None], inputs, _spread(vs, given))


def _spread(vs: Sequence[Tensor], given: Given) -> list[Tangent]:
    """Tangents in their places, None where there is none."""
    rest = iter(vs)
    return [next(rest) if is_there else None for is_there in given]


def _packed(tangents: Sequence[Tangent]) -> tuple[list[Tensor], Given]:
    return [v for v in tangents if v is not None], tuple([v is not None for v in tangents])


def _through(plain: Callable[..., Sequence[Tangent]], skip: tuple[int, int]) -> tuple[Any, Any]:
    """(vjp, jvp) of a primitive from the same in plain ops, which takes no residuals: those at positions `skip`."""

    def without(items: Sequence[Any]) -> list[Any]:
        return [item for i, item in enumerate(items) if i not in skip]

    def vjp(wanted: Sequence[bool], gs: Any, ys: Any, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
        variables = [_variable(x) for x in without(inputs)]
        outputs = plain(*variables, **static)
        pairs = [(y, g) for y, g in zip(outputs, _tuple(gs), strict=True) if y is not None and g is not None]
        found = iter(pull([y for y, _ in pairs], variables, [g for _, g in pairs]))
        return [None if i in skip else next(found) for i in range(len(inputs))]

    def jvp(tangents: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any) -> Any:
        variables = [_variable(x) for x in without(inputs)]
        outputs = plain(*variables, **static)
        pushed = iter(push([y for y in outputs if y is not None], variables, without(tangents)))
        found = tuple([None if y is None else next(pushed) for y in outputs])
        return found if len(found) > 1 else found[0]

    return vjp, jvp


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


# f.


def _specs(x: Array, gamma: Array, beta: Array, *, eps: float, rectified: bool) -> Sequence[Spec]:
    statistics = ((x.shape[0], x.shape[-1]), x.dtype)
    return (x.shape, x.dtype), statistics, statistics


def _vjp(
    wanted: Sequence[bool], g: Tensor, ys: Any, x: Tensor, gamma: Tensor, beta: Tensor, **static: Any
) -> Sequence[Tangent]:
    return _gradient(x, gamma, beta, g, *ys[1:], **static)


def _jvp(
    tangents: Sequence[Tangent], ys: Any, x: Tensor, gamma: Tensor, beta: Tensor, **static: Any
) -> tuple[Tangent, ...]:
    vs, given = _packed(tangents)
    return (_tangent(x, gamma, beta, *ys[1:], *vs, given=given, **static),)


_batch_norm: Primitive = Primitive("batch_norm", kernel("norm.batch_norm"), _specs, _vjp, _jvp, outputs=1)


# The gradient (dx, dgamma, dbeta), with dgamma and dbeta of every task.


def _gradient_specs(x: Array, *rest: Array, **static: Any) -> Sequence[Spec]:
    per_task = ((x.shape[0], x.shape[-1]), x.dtype)
    return (x.shape, x.dtype), per_task, per_task


def _gradient_vjp(
    wanted: Sequence[bool],
    us: Any,
    ys: Any,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    g: Tensor,
    average: Tensor,
    scale: Tensor,
    **static: Any,
) -> Sequence[Tangent]:
    vs, given = _packed(us)
    hx, hgamma, hbeta, hg = None, None, None, None
    if any(wanted[:3]):
        hx, hgamma, hbeta = _hessian(x, gamma, beta, g, average, scale, *vs, given=(*given, False), **static)
    if wanted[3]:
        hg = _tangent(x, gamma, beta, average, scale, *vs, given=given, **static)
    return hx, hgamma, hbeta, hg, None, None


def _gradient_jvp(
    tangents: Sequence[Tangent],
    ys: Any,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    g: Tensor,
    average: Tensor,
    scale: Tensor,
    **static: Any,
) -> tuple[Tangent, ...]:
    vs, given = _packed(tangents[:4])
    if not vs:
        return None, None, None
    if given == (False, False, False, True):
        return _gradient(x, gamma, beta, vs[0], average, scale, **static)
    return _hessian(x, gamma, beta, g, average, scale, *vs, given=given, **static)


_gradient: Primitive = Primitive(
    "batch_norm_gradient",
    kernel("norm.batch_norm_gradient"),
    _gradient_specs,
    _gradient_vjp,
    _gradient_jvp,
    outputs=3,
    residual_inputs=(4, 5),
)


# The tangent of y along (vx, vgamma, vbeta), those of them that are given.


def _tangent_vjp(
    wanted: Sequence[bool],
    h: Tensor,
    y: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    average: Tensor,
    scale: Tensor,
    *vs: Tensor,
    given: Given,
    **static: Any,
) -> Sequence[Tangent]:
    by_x = by_gamma = by_beta = None
    if any(wanted[:3]):
        by_x, by_gamma, by_beta = _hessian(x, gamma, beta, h, average, scale, *vs, given=(*given, False), **static)
    by_vs: list[Tangent] = [None] * len(vs)
    if any(wanted[5:]):
        grads = _gradient(x, gamma, beta, h, average, scale, **static)
        by_vs = [d for d, is_there in zip(grads, given, strict=True) if is_there]
    return by_x, by_gamma, by_beta, None, None, *by_vs


_, _tangent_jvp = _through(_plain_tangent, skip=(3, 4))
_tangent: Primitive = Primitive(
    "batch_norm_tangent",
    kernel("norm.batch_norm_tangent"),
    lambda x, *rest, **static: ((x.shape, x.dtype),),
    _tangent_vjp,
    _tangent_jvp,
    residual_inputs=(3, 4),
)

# The Hessian product in (vx, vgamma, vbeta), and the gradient at vg added, those of them that are given.
_hessian_vjp, _hessian_jvp = _through(_plain_hessian, skip=(4, 5))
_hessian: Primitive = Primitive(
    "batch_norm_hessian",
    kernel("norm.batch_norm_hessian"),
    _gradient_specs,
    _hessian_vjp,
    _hessian_jvp,
    outputs=3,
    residual_inputs=(4, 5),
)


# What people call.


def _parameter(name: str, p: Any, x: Tensor, default: float) -> Tensor:
    """[T, C], a view."""
    p = broadcast_to(constant(default, x.dtype), (1, x.shape[-1])) if p is None else as_tensor(p)
    if p.ndim != 2 or p.shape[0] not in (1, x.shape[0]) or p.shape[1] != x.shape[-1]:
        expected = f"[1, {x.shape[-1]}] or [{x.shape[0]}, {x.shape[-1]}]"
        raise ValueError(f"normalisation: {name} must be {expected} for x {x.shape}, got {p.shape}")
    return broadcast_to(p, (x.shape[0], x.shape[-1]))


def _check(x: Tensor, eps: float) -> None:
    if x.ndim < 3:
        raise ValueError(f"normalisation: x must be [tasks, examples, ..., channels], got {x.shape}")
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"normalisation: eps must be a positive number, got {eps!r}")


def _normalised(x: Any, gamma: Any, beta: Any, eps: float, statistics: Any, rectified: bool) -> Tensor:
    x = as_tensor(x)
    _check(x, eps)
    per_task = [as_tensor(p) for p in (gamma, beta, *(statistics or ())) if p is not None]
    tasks = max([x.shape[0], *[p.shape[0] for p in per_task if p.ndim]])
    if x.shape[0] == 1 < tasks:
        x = broadcast_to(x, (tasks, *x.shape[1:]))
    gamma, beta = _parameter("gamma", gamma, x, 1), _parameter("beta", beta, x, 0)
    if statistics is None:
        if math.prod(x.shape[1:-1]) == 0:
            raise ValueError(f"batch_norm: no examples to normalise over in {x.shape}")
        return _batch_norm(x, gamma, beta, eps=float(eps), rectified=rectified)[0]
    average, variance = (_parameter(n, p, x, 0) for n, p in zip(("mean", "variance"), statistics, strict=True))
    scale = divide(gamma, sqrt(add(variance, eps)))
    y = add(multiply(subtract(x, _per_channel(average, x)), _per_channel(scale, x)), _per_channel(beta, x))
    return relu(y) if rectified else y


def batch_norm(x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-3, statistics: Any = None) -> Tensor:
    """gamma (x - mean) / sqrt(variance + eps) + beta, channel by channel (Ioffe & Szegedy 2015).

    Args:
        x: [T, ..., C]. Each task is a batch of its own: mean and (biased) variance are over all axes but the first and
            the last.
        gamma, beta: [1, C], or [T, C] for each task; 1 and 0 if left out.
        eps: added to the variance; .001 is the authors' (cbfinn/maml).
        statistics: (mean, variance), each [1, C] or [T, C], to use instead of the batch's; see `batch_statistics`.

    Returns:
        A tensor like x.

    Raises:
        ValueError: shapes that do not fit, eps not positive, no examples.
    """
    return _normalised(x, gamma, beta, eps, statistics, rectified=False)


def batch_norm_relu(
    x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-3, statistics: Any = None
) -> Tensor:
    """max(batch_norm(x, ...), 0) as one primitive; arguments as for `batch_norm`."""
    return _normalised(x, gamma, beta, eps, statistics, rectified=True)


def batch_statistics(x: Any) -> tuple[Tensor, Tensor]:
    """(mean, biased variance) of every task's batch: x[T, ..., C] -> two of [T, C].

    Raises:
        ValueError: fewer than three axes, or no examples.
    """
    x = as_tensor(x)
    _check(x, 1.0)
    middle = tuple(range(1, x.ndim - 1))
    average = mean(x, middle, keepdims=True)
    centred = subtract(x, average)
    return reshape(average, (x.shape[0], x.shape[-1])), mean(multiply(centred, centred), middle)


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5) -> Tensor:
    """As `batch_norm`, but every example over its own channels: the last axis (Ba, Kiros & Hinton 2016).

    Args:
        x: [T, ..., C].
        gamma, beta: [1, C] or [T, C]; 1 and 0 if left out.
        eps: added to the variance.

    Returns:
        A tensor like x.

    Raises:
        ValueError: shapes that do not fit, eps not positive, no channels.
    """
    x = as_tensor(x)
    _check(x, eps)
    centred = subtract(x, mean(x, -1, keepdims=True))
    unit = divide(centred, sqrt(add(mean(multiply(centred, centred), -1, keepdims=True), eps)))
    if gamma is not None:
        unit = multiply(unit, _per_channel(_parameter("gamma", gamma, x, 1), x))
    return unit if beta is None else add(unit, _per_channel(_parameter("beta", beta, x, 0), x))

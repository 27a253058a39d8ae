"""Normalisation. Batch norm, with or without a ReLU after it, is a potential with one Hessian kernel.

Of y = f(x, gamma, beta) and a cotangent g take the potential phi = <f(x, gamma, beta), g>. Four primitives are enough:

    batch_norm           f, with the mean and 1/std of every channel as residuals
    batch_norm_tangent   f's derivative along (vx, vgamma, vbeta): the jvp of f, and the vjp of the gradient by g
    batch_norm_gradient  phi's partial derivatives (dx, dgamma, dbeta): the vjp of f
    batch_norm_hessian   phi's Hessian applied to (vx, vgamma): as it is symmetric, in (x, gamma) both the jvp and the
                         vjp of the gradient, and the vjp of the tangent; with the gradient at a tangent of g added, all
                         of the gradient's jvp in one pass. By beta all of the Hessian is 0.

The mean and 1/std are never differentiated: a primitive that reads them takes x as well, and its rules are total in x.
What lies beyond, the derivatives of the Hessian product and the second derivative along two tangents, is made of plain
ops, by sweeps over `_plain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.sweeps import pull, push
from tinymaml.autodiff.tensor import CONSTANT, Array, Tensor, as_tensor, constant
from tinymaml.ops.elementwise import add, identity, multiply, power, relu, subtract
from tinymaml.ops.reduce import sum as sum_over
from tinymaml.ops.shape import broadcast_to, reshape

Given = tuple[bool, ...]  # which of its last inputs, all optional, a primitive has
Plain = Callable[..., Sequence[Tangent]]

# Where the residuals come in: behind x, gamma and beta in the tangent, and behind g as well in the others.
_IN_TANGENT, _IN_OTHERS = (3, 4), (4, 5)


def _packed(*tangents: Tangent) -> tuple[list[Tensor], Given]:
    """Those that are not missing, and which they are."""
    return [v for v in tangents if v is not None], tuple([v is not None for v in tangents])


def _spread(vs: Sequence[Tensor], given: Given) -> list[Tangent]:
    """Each in its place, None where there is none."""
    rest = iter(vs)
    return [next(rest) if is_there else None for is_there in given]


# f. Its gamma and beta are [T, C]; so are the parts of the gradients by them.


def _y_specs(x: Array, gamma: Array, beta: Array, *, eps: float, rectified: bool) -> Sequence[Spec]:
    statistics = ((x.shape[0], x.shape[-1]), x.dtype)
    return (x.shape, x.dtype), statistics, statistics


def _y_vjp(wanted: Sequence[bool], g: Tensor, ys: Any, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
    return _gradient(*inputs, g, *ys[1:], **static)


def _y_jvp(tangents: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any) -> Tangent:
    vs, given = _packed(*tangents)
    return _tangent(*inputs, *ys[1:], *vs, given=given, **static)


# Its first derivatives.


def _tangent_vjp(
    wanted: Sequence[bool], h: Tensor, y: Tensor, *inputs: Tensor, given: Given, **static: Any
) -> Sequence[Tangent]:
    point = (*inputs[:3], h, *inputs[3:5])
    vx, vgamma, _ = _spread(inputs[5:], given)
    hx, hgamma = _hessian_product(wanted, point, vx, vgamma, static)
    by_v = _gradient(*point, **static) if any(wanted[5:]) else (None, None, None)
    return hx, hgamma, None, None, None, *[d for d, is_there in zip(by_v, given, strict=True) if is_there]


def _gradient_vjp(
    wanted: Sequence[bool], cotangents: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any
) -> Sequence[Tangent]:
    hx, hgamma = _hessian_product(wanted, inputs, cotangents[0], cotangents[1], static)
    hg = None
    if wanted[3]:
        vs, given = _packed(*cotangents)
        hg = _tangent(*inputs[:3], *inputs[4:], *vs, given=given, **static)
    return hx, hgamma, None, hg, None, None


def _hessian_product(
    wanted: Sequence[bool], point: Sequence[Tensor], vx: Tangent, vgamma: Tangent, static: dict[str, Any]
) -> tuple[Tangent, Tangent]:
    """By x and gamma."""
    vs, given = _packed(vx, vgamma, None, None)
    if not vs or not (wanted[0] or wanted[1]):
        return None, None
    hx, hgamma, _ = _hessian(*point, *vs, given=given, **static)
    return hx, None if vx is None else hgamma


def _gradient_jvp(tangents: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
    vx, vgamma, _, vg = tangents[:4]
    if vx is None and vgamma is None:
        return (None, None, None) if vg is None else _gradient(*inputs[:3], vg, *inputs[4:], **static)
    vs, given = _packed(vx, vgamma, None, vg)
    hx, hgamma, hbeta = _hessian(*inputs, *vs, given=given, **static)
    return hx, None if vx is None and vg is None else hgamma, None if vg is None else hbeta


def _gradient_specs(x: Array, *rest: Array, **static: Any) -> Sequence[Spec]:
    per_task = ((x.shape[0], x.shape[-1]), x.dtype)
    return (x.shape, x.dtype), per_task, per_task


# What is left to plain ops.


def _plain(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, rectified: bool) -> Tensor:
    normal = _normal(x, range(1, x.ndim - 1), eps)
    y = add(multiply(normal, _over(gamma, x)), _over(beta, x))
    return relu(y) if rectified else y


def _normal(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """x normalised over some axes."""
    centred = subtract(x, _mean(x, axes))
    return multiply(centred, power(add(_mean(multiply(centred, centred), axes), eps), -0.5))


def _mean(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Over some axes, which are kept; of no tasks or no channels too."""
    return multiply(sum_over(x, axes, keepdims=True), 1 / math.prod(x.shape[axis] for axis in axes))


def _plain_tangent(*inputs: Tensor, given: Given, eps: float, rectified: bool) -> Sequence[Tangent]:
    x, gamma, beta = (_variable(x) for x in inputs[:3])
    return push([_plain(x, gamma, beta, eps, rectified)], [x, gamma, beta], _spread(inputs[5:], given))


def _plain_hessian(*inputs: Tensor, given: Given, eps: float, rectified: bool) -> Sequence[Tangent]:
    x, gamma, beta, g = (_variable(x) for x in inputs[:4])
    gradient = pull([_plain(x, gamma, beta, eps, rectified)], [x, gamma, beta], [g])
    return push([d for d in gradient if d is not None], [x, gamma, beta, g], _spread(inputs[6:], given))


def _over(parameter: Tensor, x: Tensor) -> Tensor:
    """[T or 1, C] with as many axes as x."""
    return reshape(parameter, (parameter.shape[0], *[1] * (x.ndim - 2), parameter.shape[1]))


def _variable(x: Tensor) -> Tensor:
    return identity(x) if x.node.root != CONSTANT else Tensor(x.data)


def _chosen(inputs: Sequence[Tensor], choice: Sequence[bool], residuals: Sequence[int]) -> tuple[Any, list[int]]:
    """The inputs, with those chosen made fresh variables, and where they are. A residual never is one."""
    places = [i for i, chosen in enumerate(choice) if chosen and i not in residuals]
    return [identity(x) if i in places else x for i, x in enumerate(inputs)], places


def _vjp_by(plain: Plain, residuals: Sequence[int]) -> Callable[..., Sequence[Tangent]]:
    """The vjp rule of the primitive that does what `plain` does."""

    def vjp(wanted: Sequence[bool], g: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
        variables, places = _chosen(inputs, wanted, residuals)
        given = [(y, c) for y, c in zip(plain(*variables, **static), g, strict=True) if y is not None and c is not None]
        cotangents = pull([y for y, _ in given], [variables[i] for i in places], [c for _, c in given])
        by_place = dict(zip(places, cotangents, strict=True))
        return [by_place.get(i) for i in range(len(inputs))]

    return vjp


def _jvp_by(plain: Plain, residuals: Sequence[int]) -> Callable[..., Sequence[Tangent]]:
    """The jvp rule of the primitive that does what `plain` does."""

    def jvp(tangents: Sequence[Tangent], ys: Any, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
        variables, places = _chosen(inputs, [t is not None for t in tangents], residuals)
        outputs = plain(*variables, **static)
        there = [y for y in outputs if y is not None]
        pushed = iter(push(there, [variables[i] for i in places], [tangents[i] for i in places]))
        return tuple([None if y is None else next(pushed) for y in outputs])

    return jvp


_batch_norm: Primitive = Primitive("batch_norm", kernel("norm", "batch_norm"), _y_specs, _y_vjp, _y_jvp)
_tangent: Primitive = Primitive(
    "batch_norm_tangent",
    kernel("norm", "batch_norm_tangent"),
    lambda x, *rest, **static: ((x.shape, x.dtype),),
    _tangent_vjp,
    _jvp_by(_plain_tangent, _IN_TANGENT),
    residual_inputs=_IN_TANGENT,
)
_gradient: Primitive = Primitive(
    "batch_norm_gradient",
    kernel("norm", "batch_norm_gradient"),
    _gradient_specs,
    _gradient_vjp,
    _gradient_jvp,
    outputs=3,
    residual_inputs=_IN_OTHERS,
)
# It has a place for vbeta, which changes nothing, so that all take their tangents in one order.
_hessian: Primitive = Primitive(
    "batch_norm_hessian",
    kernel("norm", "batch_norm_hessian"),
    _gradient_specs,
    _vjp_by(_plain_hessian, _IN_OTHERS),
    _jvp_by(_plain_hessian, _IN_OTHERS),
    outputs=3,
    residual_inputs=_IN_OTHERS,
)


# What people call.


def _check_eps(name: str, eps: Any) -> None:
    if isinstance(eps, bool) or not isinstance(eps, int | float | np.number) or not 0 < eps < math.inf:
        raise ValueError(f"{name}: eps must be a positive number, got {eps!r}")


def _check_examples(name: str, x: Tensor) -> None:
    if x.ndim < 3:
        raise ValueError(f"{name}: x must be [tasks, examples, ..., channels], got {x.shape}")
    if math.prod(x.shape[1:-1]) == 0:
        raise ValueError(f"{name}: no examples to normalise over in {x.shape}")


def _fit(name: str, x: Tensor, **parameters: Any) -> tuple[Tensor, list[Tensor]]:
    """(x, parameters), all on one task axis, as views."""
    tensors = {what: as_tensor(p) for what, p in parameters.items()}
    tasks = max([len(p) for p in tensors.values() if p.ndim], default=1)
    if len(x) == 1 < tasks:
        x = broadcast_to(x, (tasks, *x.shape[1:]))
    tasks, channels = x.shape[0], x.shape[-1]
    for what, p in tensors.items():
        if p.shape not in ((1, channels), (tasks, channels)):
            raise ValueError(
                f"{name}: {what} must be [1, {channels}] or [{tasks}, {channels}] for x {x.shape}, got {p.shape}"
            )
    return x, [broadcast_to(p, (tasks, channels)) for p in tensors.values()]


def _apply(x: Any, gamma: Any, beta: Any, eps: float, statistics: Any, rectified: bool) -> Tensor:
    name = "batch_norm_relu" if rectified else "batch_norm"
    _check_eps(name, eps)
    x = as_tensor(x)
    _check_examples(name, x)
    gamma = broadcast_to(constant(1, x.dtype), (1, x.shape[-1])) if gamma is None else gamma
    beta = broadcast_to(constant(0, x.dtype), (1, x.shape[-1])) if beta is None else beta
    if statistics is None:
        x, parameters = _fit(name, x, gamma=gamma, beta=beta)
        return _batch_norm(x, *parameters, eps=float(eps), rectified=rectified)[0]
    if not isinstance(statistics, Sequence) or len(statistics) != 2:
        raise ValueError(f"{name}: statistics must be (mean, variance), got {statistics!r}")
    mean, variance = statistics
    x, (gamma, beta, mean, variance) = _fit(name, x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    factor = multiply(gamma, power(add(variance, float(eps)), -0.5))
    y = add(multiply(subtract(x, _over(mean, x)), _over(factor, x)), _over(beta, x))
    return relu(y) if rectified else y


def batch_norm(
    x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-3, statistics: tuple[Any, Any] | None = None
) -> Tensor:
    """gamma (x - mean) / sqrt(variance + eps) + beta, channel by channel (Ioffe & Szegedy 2015).

    Each task is a batch. MAML keeps no running averages: without `statistics` they are the batch's, in
    training and in testing (transductive). With those of the support set every query is normalised by itself.

    Args:
        x: [T, ..., C]. Mean and (biased) variance are over all axes but the first and the last.
        gamma, beta: [1, C] shared by the tasks, or [T, C]; 1 and 0 if None.
        eps: added to the variance; .001 is the authors' (cbfinn/maml).
        statistics: (mean, variance), each [1, C] or [T, C], to use instead of the batch's; see `batch_statistics`.

    Returns:
        A tensor like x; with the task axis of the others if x is of one task.

    Raises:
        ValueError: shapes that do not fit, no examples, eps not positive.
        TypeError: dtypes that differ.
    """
    return _apply(x, gamma, beta, eps, statistics, rectified=False)


def batch_norm_relu(
    x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-3, statistics: tuple[Any, Any] | None = None
) -> Tensor:
    """relu(batch_norm(x, ...)) as one primitive; arguments and errors as for `batch_norm`."""
    return _apply(x, gamma, beta, eps, statistics, rectified=True)


def batch_statistics(x: Any) -> tuple[Tensor, Tensor]:
    """(mean, biased variance) of every task's batch: x[T, ..., C] -> two of [T, C].

    Raises:
        ValueError: fewer than three axes, or no examples.
    """
    x = as_tensor(x)
    _check_examples("batch_statistics", x)
    middle, shape = range(1, x.ndim - 1), (x.shape[0], x.shape[-1])
    mean = _mean(x, middle)
    centred = subtract(x, mean)
    return reshape(mean, shape), reshape(_mean(multiply(centred, centred), middle), shape)


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5) -> Tensor:
    """As `batch_norm`, but every example over its own channels: the last axis (Ba, Kiros & Hinton 2016).

    Args:
        x: [T, ..., C].
        gamma, beta: [1, C] or [T, C]; 1 and 0 if None.
        eps: added to the variance.

    Returns:
        A tensor like x; with the task axis of gamma and beta if x is of one task.

    Raises:
        ValueError: shapes that do not fit, no channels, eps not positive.
        TypeError: dtypes that differ.
    """
    _check_eps("layer_norm", eps)
    x = as_tensor(x)
    if x.ndim < 2 or x.shape[-1] == 0:
        raise ValueError(f"layer_norm: x must be [tasks, ..., channels] with channels, got {x.shape}")
    parameters = {name: p for name, p in (("gamma", gamma), ("beta", beta)) if p is not None}
    x, scales = _fit("layer_norm", x, **parameters)
    by_name = dict(zip(parameters, scales, strict=True))
    y = _normal(x, [x.ndim - 1], float(eps))
    if gamma is not None:
        y = multiply(y, _over(by_name["gamma"], x))
    return add(y, _over(by_name["beta"], x)) if beta is not None else y

"""Losses: one number a task, the mean over everything but the task axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent
from tinymaml.autodiff.tensor import Array, Tensor, as_tensor
from tinymaml.ops.elementwise import add, add_tangents, multiply, negative, softplus, stop_gradient, subtract
from tinymaml.ops.indices import check_labels
from tinymaml.ops.reduce import max as largest
from tinymaml.ops.reduce import softmax
from tinymaml.ops.reduce import sum as sum_over
from tinymaml.ops.shape import ones_like, reshape, sum_to


def _mse_specs(prediction: Array, target: Array) -> Sequence[Spec]:
    if prediction.shape != target.shape or prediction.ndim < 1:
        raise ValueError(f"mse: prediction {prediction.shape} and target {target.shape} must have one shape")
    if math.prod(prediction.shape[1:]) == 0:
        raise ValueError(f"mse: no examples in {prediction.shape}")
    return ((prediction.shape[:1], prediction.dtype),)


def _along(g: Tensor, x: Tensor) -> Tensor:
    """One number a task, with as many axes as x."""
    return reshape(g, (g.shape[0], *[1] * (x.ndim - 1)))


def _scale(x: Tensor) -> float:
    return 2.0 / math.prod(x.shape[1:])


def _mse_vjp(wanted: Sequence[bool], g: Tensor, y: Tensor, prediction: Tensor, target: Tensor) -> Sequence[Tangent]:
    dp = _scaled_difference(prediction, target, g, scale=_scale(prediction))
    return dp, negative(dp) if wanted[1] else None


def _mse_jvp(tangents: Sequence[Tangent], y: Tensor, prediction: Tensor, target: Tensor) -> Tangent:
    dp, dt = tangents
    tangent = subtract(dp, dt) if dp is not None and dt is not None else negative(dt) if dp is None else dp
    return multiply(sum_per_task(multiply(tangent, subtract(prediction, target))), _scale(prediction))


_mse: Primitive = Primitive("mse", kernel("losses", "mse"), _mse_specs, _mse_vjp, _mse_jvp)


def _difference_vjp(
    wanted: Sequence[bool], g: Tensor, z: Tensor, p: Tensor, t: Tensor, h: Tensor, scale: float
) -> Sequence[Tangent]:
    dp = multiply(multiply(g, scale), _along(h, p)) if wanted[0] or wanted[1] else None
    dt = negative(dp) if dp is not None and wanted[1] else None
    dh = multiply(sum_per_task(multiply(g, subtract(p, t))), scale) if wanted[2] else None
    return dp, dt, dh


def _difference_jvp(tangents: Sequence[Tangent], z: Tensor, p: Tensor, t: Tensor, h: Tensor, scale: float) -> Tangent:
    dp, dt, dh = tangents
    total = None if dh is None else _scaled_difference(p, t, dh, scale=scale)
    if dp is not None and dt is not None:
        return add_tangents(total, _scaled_difference(dp, dt, h, scale=scale))
    for tangent, signed in ((dp, scale), (dt, -scale)):
        if tangent is not None:
            total = add_tangents(total, multiply(multiply(tangent, _along(h, p)), signed))
    return total


# The gradient of mse, in one pass: scale h (p - t), with one h a task.
_scaled_difference: Primitive = Primitive(
    "scaled_difference",
    kernel("losses", "scaled_difference"),
    lambda p, t, h, scale: ((p.shape, p.dtype),),
    _difference_vjp,
    _difference_jvp,
)


def sum_per_task(x: Tensor) -> Tensor:
    """[T, ...] -> [T]."""
    return reshape(sum_to(x, (x.shape[0], *[1] * (x.ndim - 1))), (x.shape[0],))


def mse(prediction: Any, target: Any) -> Tensor:
    """Mean squared error of each task: prediction[T, N, ...], target of the same shape -> [T] (paper, equation 2).

    The paper's equation sums over the examples; its figures, and this, are of the mean.

    Raises:
        ValueError: the shapes differ, or there are no examples.
    """
    return _mse(prediction, target)


# Cross-entropy: the value, its gradient, and the Hessian product, which is symmetric and so the gradient's rule in both
# modes. The third derivative, symmetric in its three directions, is made of plain ops.


def _examples(logits: Array) -> int:
    return math.prod(logits.shape[1:-1])


def _entropy_vjp(wanted: Sequence[bool], g: Tensor, y: Tensor, logits: Tensor, labels: Tensor) -> Sequence[Tangent]:
    return _entropy_gradient(logits, labels, g), None


def _entropy_jvp(tangents: Sequence[Tangent], y: Tensor, logits: Tensor, labels: Tensor) -> Tangent:
    return sum_per_task(multiply(_entropy_gradient(logits, labels, ones_like(y)), tangents[0]))


_cross_entropy: Primitive = Primitive(
    "cross_entropy",
    kernel("losses", "cross_entropy"),
    lambda logits, labels: ((logits.shape[:1], logits.dtype),),
    _entropy_vjp,
    _entropy_jvp,
    integer_inputs=(1,),
)


def _entropy_gradient_vjp(
    wanted: Sequence[bool], u: Tensor, y: Tensor, logits: Tensor, labels: Tensor, h: Tensor
) -> Sequence[Tangent]:
    by_logits = _entropy_hessian(logits, h, u) if wanted[0] else None
    by_h = sum_per_task(multiply(_entropy_gradient(logits, labels, ones_like(h)), u)) if wanted[2] else None
    return by_logits, None, by_h


def _entropy_gradient_jvp(tangents: Sequence[Tangent], y: Tensor, logits: Tensor, labels: Tensor, h: Tensor) -> Tangent:
    v, _, dh = tangents
    return add_tangents(
        None if v is None else _entropy_hessian(logits, h, v),
        None if dh is None else _entropy_gradient(logits, labels, dh),
    )


# h / N (softmax - onehot), with one h a task.
_entropy_gradient: Primitive = Primitive(
    "cross_entropy_gradient",
    kernel("losses", "cross_entropy_gradient"),
    lambda logits, labels, h: ((logits.shape, logits.dtype),),
    _entropy_gradient_vjp,
    _entropy_gradient_jvp,
    integer_inputs=(1,),
)


def _entropy_third(logits: Tensor, h: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The derivative of the Hessian product with v along w."""
    p = softmax(subtract(logits, stop_gradient(largest(logits, -1, keepdims=True))), -1)  # the same, exact for any size

    def slope(x: Tensor, y: Tensor) -> Tensor:
        return sum_over(multiply(x, y), -1, keepdims=True)

    dp = multiply(p, subtract(w, slope(p, w)))
    by_example = subtract(multiply(dp, subtract(v, slope(p, v))), multiply(p, slope(dp, v)))
    return multiply(by_example, multiply(_along(h, logits), 1 / _examples(logits.data)))


def _entropy_hessian_vjp(
    wanted: Sequence[bool], u: Tensor, y: Tensor, logits: Tensor, h: Tensor, v: Tensor
) -> Sequence[Tangent]:
    by_logits = _entropy_third(logits, h, v, u) if wanted[0] else None
    by_h = sum_per_task(multiply(_entropy_hessian(logits, ones_like(h), v), u)) if wanted[1] else None
    return by_logits, by_h, _entropy_hessian(logits, h, u) if wanted[2] else None


def _entropy_hessian_jvp(tangents: Sequence[Tangent], y: Tensor, logits: Tensor, h: Tensor, v: Tensor) -> Tangent:
    w, dh, dv = tangents
    total = None if w is None else _entropy_third(logits, h, v, w)
    total = add_tangents(total, None if dh is None else _entropy_hessian(logits, dh, v))
    return add_tangents(total, None if dv is None else _entropy_hessian(logits, h, dv))


# h / N (p v - p <p, v>) with p the softmax.
_entropy_hessian: Primitive = Primitive(
    "cross_entropy_hessian",
    kernel("losses", "cross_entropy_hessian"),
    lambda logits, h, v: ((logits.shape, logits.dtype),),
    _entropy_hessian_vjp,
    _entropy_hessian_jvp,
)


def softmax_cross_entropy(logits: Any, labels: Any) -> Tensor:
    """Mean cross-entropy of each task (paper, equation 3): logits[T, N, C], integer labels[T, N] -> [T].

    Safe for logits of any size: the largest is taken out before exponentials are.

    Raises:
        ValueError: the shapes do not fit, there are no examples, or a label is not in [0, C).
        TypeError: labels that are not integers.
    """
    logits, labels = as_tensor(logits), as_tensor(labels)
    if logits.ndim < 2 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"softmax_cross_entropy: logits [T, N, C] and labels [T, N] expected, got {logits.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"softmax_cross_entropy: labels must be integers, got {labels.dtype}")
    if 0 in labels.shape[1:]:
        raise ValueError(f"softmax_cross_entropy: no examples in {logits.shape}")
    check_labels("softmax_cross_entropy", labels.data, logits.shape[-1])
    return _cross_entropy(logits, labels)


def sigmoid_cross_entropy(logits: Any, targets: Any) -> Tensor:
    """Mean cross-entropy of each task's independent yes-or-no answers: logits[T, N, ...], targets of the same shape and
    dtype -> [T].

    A target is the probability of yes, in [0, 1]. With t for it and z for the logit, the sum of
    t softplus(-z) + (1 - t) softplus(z): both terms are positive, so that no digits are lost for logits of any size.

    Raises:
        ValueError: the shapes differ, or there are no examples.
    """
    logits, targets = as_tensor(logits), as_tensor(targets)
    if logits.shape != targets.shape or logits.ndim < 1:
        raise ValueError(
            f"sigmoid_cross_entropy: logits {logits.shape} and targets {targets.shape} must have one shape"
        )
    count = math.prod(logits.shape[1:])
    if count == 0:
        raise ValueError(f"sigmoid_cross_entropy: no examples in {logits.shape}")
    yes, no = multiply(targets, softplus(negative(logits))), multiply(subtract(1.0, targets), softplus(logits))
    return multiply(sum_per_task(add(yes, no)), 1 / count)

"""Elementwise primitives, with NumPy's broadcasting.

Most are declared by their partial derivatives alone, from which both rules follow: the tangent of the output is the
sum of tangent x partial, the cotangent of an input is cotangent x partial, summed over the axes along which it was
broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel, view
from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.primitive import Primitive, Spec, Tangent, each
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, as_tensor, constant, joined
from tinymaml.ops.shape import broadcast_to, ones_like, sum_to

Partial = Callable[..., Any]


@lru_cache(maxsize=4096)
def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's, remembered: it is asked for on every call."""
    return np.broadcast_shapes(*shapes)


def _specs(name: str, result: Any = None) -> Callable[..., Sequence[Spec]]:
    """All inputs broadcast together; the output has the dtype of the last of them (or `result`)."""

    def specs(*arrays: Array, **static: Any) -> Sequence[Spec]:
        shape = arrays[0].shape
        for array in arrays:
            if array.shape != shape:
                shapes = [array.shape for array in arrays]
                try:
                    shape = broadcast_shapes(*shapes)
                except ValueError:
                    text = ", ".join(map(str, shapes))
                    raise ValueError(f"{public_name(name)}: shapes {text} do not broadcast together") from None
                break
        return ((shape, result or arrays[-1].dtype),)

    return specs


def add_tangents(one: Tangent, other: Tangent) -> Tangent:
    """The sum, where a missing one is zero."""
    if one is None or other is None:
        return other if one is None else one
    return add(one, other)


def _fit(tangent: Tangent, y: Tensor) -> Tangent:
    """A tangent broadcast to the output, as the input was."""
    return tangent if tangent is None or tangent.shape == y.shape else broadcast_to(tangent, y.shape)


def from_partials(name: str, *partials: Partial | None) -> Primitive:
    """A primitive from one function an input, `partial(y, *inputs, **static)`: the derivative of y by it, or None."""

    def vjp(wanted: Sequence[bool], g: Tensor, y: Tensor, *inputs: Tensor, **static: Any) -> Sequence[Tangent]:
        return [
            sum_to(multiply(g, partial(y, *inputs, **static)), x.shape) if want and partial is not None else None
            for want, partial, x in zip(wanted, partials, inputs, strict=True)
        ]

    def jvp(tangents: Sequence[Tangent], y: Tensor, *inputs: Tensor, **static: Any) -> Tangent:
        total: Tangent = None
        for tangent, partial in zip(tangents, partials, strict=True):
            if tangent is not None and partial is not None:
                total = add_tangents(total, multiply(tangent, partial(y, *inputs, **static)))
        return _fit(total, y)

    return Primitive(name, kernel("elementwise", name), _specs(name), vjp, jvp)


def _linear_jvp(combine: Callable[..., Tangent]) -> Callable[..., Tangent]:
    return lambda tangents, y, *inputs, **static: _fit(combine(*tangents), y)


# Arithmetic.

add: Primitive = Primitive(
    "add",
    kernel("elementwise", "add"),
    _specs("add"),
    vjp=each(lambda g, y, a, b: sum_to(g, a.shape), lambda g, y, a, b: sum_to(g, b.shape)),
    jvp=_linear_jvp(add_tangents),
)
negative: Primitive = Primitive(
    "negative",
    kernel("elementwise", "negative"),
    _specs("negative"),
    vjp=each(lambda g, y, a: negative(g)),
    jvp=lambda tangents, y, a: negative(tangents[0]),
)


def _subtract_tangents(one: Tangent, other: Tangent) -> Tangent:
    if other is None:
        return one
    return negative(other) if one is None else subtract(one, other)


subtract: Primitive = Primitive(
    "subtract",
    kernel("elementwise", "subtract"),
    _specs("subtract"),
    vjp=each(lambda g, y, a, b: sum_to(g, a.shape), lambda g, y, a, b: sum_to(negative(g), b.shape)),
    jvp=_linear_jvp(_subtract_tangents),
)
multiply: Primitive = from_partials("multiply", lambda y, a, b: b, lambda y, a, b: a)
divide: Primitive = from_partials("divide", lambda y, a, b: divide(1.0, b), lambda y, a, b: negative(divide(y, b)))


def _descend_jvp(tangents: Sequence[Tangent], y: Tensor, x: Tensor, rate: Tensor, g: Tensor) -> Tangent:
    dx, drate, dg = tangents
    moved = add_tangents(None if drate is None else multiply(drate, g), None if dg is None else multiply(rate, dg))
    return _fit(_subtract_tangents(dx, moved), y) if dx is not None or moved is not None else None


# descend(x, rate, g) = x - rate g in one pass: a step of gradient descent.
descend: Primitive = Primitive(
    "descend",
    kernel("elementwise", "descend"),
    _specs("descend"),
    vjp=each(
        lambda h, y, x, rate, g: sum_to(h, x.shape),
        lambda h, y, x, rate, g: sum_to(negative(multiply(h, g)), rate.shape),
        lambda h, y, x, rate, g: sum_to(negative(multiply(h, rate)), g.shape),
    ),
    jvp=_descend_jvp,
)

# Powers. A constant exponent n gives n xⁿ⁻¹, which is right at 0 and below it; a variable one needs a logarithm.

_power_of: Primitive = from_partials(
    "power_of",
    lambda y, x, exponent: multiply(power(x, exponent - 1), float(exponent)),
)
_power: Primitive = from_partials(
    "power",
    lambda y, x, n: multiply(n, _power(x, where(equal(n, 0.0), 1.0, subtract(n, 1.0)))),
    lambda y, x, n: multiply(y, log(where(equal(x, 0.0), 1.0, x))),
)


def power(x: Any, exponent: Any) -> Tensor:
    """x to the power of `exponent`, a number or a tensor; with a tensor exponent x must not be negative."""
    if isinstance(exponent, int | float):
        if exponent == 0:
            return ones_like(as_tensor(x))
        return as_tensor(x) if exponent == 1 else _power_of(x, exponent=exponent)
    return _power(x, exponent)


# Functions of one argument.

exp: Primitive = from_partials("exp", lambda y, x: y)
expm1: Primitive = from_partials("expm1", lambda y, x: add(y, 1.0))
log: Primitive = from_partials("log", lambda y, x: divide(1.0, x))
log1p: Primitive = from_partials("log1p", lambda y, x: divide(1.0, add(x, 1.0)))
sqrt: Primitive = from_partials("sqrt", lambda y, x: divide(0.5, y))
sin: Primitive = from_partials("sin", lambda y, x: cos(x))
cos: Primitive = from_partials("cos", lambda y, x: negative(sin(x)))
tanh: Primitive = from_partials("tanh", lambda y, x: subtract(1.0, multiply(y, y)))
sigmoid: Primitive = from_partials("sigmoid", lambda y, x: multiply(y, subtract(1.0, y)))
softplus: Primitive = from_partials("softplus", lambda y, x: sigmoid(x))
abs: Primitive = from_partials("abs", lambda y, x: sign(x))  # noqa: A001


# Locally constant: comparisons and the sign.


def _locally_constant(name: str, result: Any = np.bool_) -> Primitive:
    return Primitive(name, kernel("elementwise", name), _specs(name, result), vjp=None, jvp=None)


greater: Primitive = _locally_constant("greater")
greater_equal: Primitive = _locally_constant("greater_equal")
less: Primitive = _locally_constant("less")
less_equal: Primitive = _locally_constant("less_equal")
equal: Primitive = _locally_constant("equal")
not_equal: Primitive = _locally_constant("not_equal")
# Which of two is the larger, or the smaller: the first if they are equal, and what is not a number before what is.
_first_is_larger: Primitive = _locally_constant("first_is_larger")
_first_is_smaller: Primitive = _locally_constant("first_is_smaller")
sign: Primitive = _locally_constant("sign", None)


# Piecewise linear: a choice that is locally constant, and linear given it.


def _where_jvp(tangents: Sequence[Tangent], y: Tensor, condition: Tensor, a: Tensor, b: Tensor) -> Tangent:
    _, ta, tb = tangents
    if ta is None and tb is None:
        return None
    return _fit(where(condition, 0.0 if ta is None else ta, 0.0 if tb is None else tb), y)


where: Primitive = Primitive(
    "where",
    kernel("elementwise", "where"),
    _specs("where"),
    vjp=each(
        None,
        lambda g, y, condition, a, b: sum_to(where(condition, g, 0.0), a.shape),
        lambda g, y, condition, a, b: sum_to(where(condition, 0.0, g), b.shape),
    ),
    jvp=_where_jvp,
    integer_inputs=(0,),
)

# gate(g, y): g where y > 0, else 0. It is ReLU's derivative applied, by the sign of ReLU's own output.
gate: Primitive = Primitive(
    "gate",
    kernel("elementwise", "gate"),
    _specs("gate"),
    vjp=each(lambda g, z, h, y: sum_to(gate(g, y), h.shape), None),
    jvp=lambda tangents, z, h, y: None if tangents[0] is None else _fit(gate(tangents[0], y), z),
)
relu: Primitive = Primitive(
    "relu",
    kernel("elementwise", "relu"),
    _specs("relu"),
    vjp=each(lambda g, y, x: gate(g, y)),
    jvp=lambda tangents, y, x: gate(tangents[0], y),
)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger, elementwise, or what is not a number; where they are equal the derivative goes to the first."""
    a, b = joined(a), joined(b)
    return where(_first_is_larger(a, b), a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller, elementwise, or what is not a number; where they are equal the derivative goes to the first."""
    a, b = joined(a), joined(b)
    return where(_first_is_smaller(a, b), a, b)


def clip(x: Any, low: Any, high: Any) -> Tensor:
    """x between two bounds, numbers or arrays (None: no bound); what is not a number stays. On a bound the derivative
    by x is 1, beyond it 0."""
    x = as_tensor(x)
    if isinstance(low, Real) and isinstance(high, Real) and low > high:
        raise ValueError(f"clip: the lower bound {low} is above the upper bound {high}")
    if low is not None:
        x = maximum(x, low)
    return x if high is None else minimum(x, high)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha (exp(x) - 1) below (Clevert et al. 2016). At 0 the derivatives are those from below."""
    x = as_tensor(x)
    below = expm1(minimum(x, 0.0))  # of nothing above 0, where it would overflow
    return add(relu(x), below if alpha == 1 else multiply(below, float(alpha)))


def dropout(x: Any, uniform: Any, keep: float) -> Tensor:
    """x / keep where a number is kept, else 0 (Srivastava et al. 2014). The random numbers are given, so that a step
    can be recorded and repeated.

    Args:
        uniform: numbers drawn uniformly from [0, 1), of which those below `keep` keep theirs; or booleans, which say
            what is kept. Their shape broadcasts to that of x: a channel or an example may be dropped as a whole.
        keep: the probability to be kept, in (0, 1].

    Raises:
        ValueError: a `keep` that is no probability, or shapes that do not fit.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"dropout: keep must be in (0, 1], got {keep}")
    x, uniform = as_tensor(x), as_tensor(uniform)
    kept = uniform if uniform.dtype == np.bool_ else less(uniform, float(keep))
    result = where(kept, multiply(x, 1 / keep), 0.0)
    if result.shape != x.shape:
        raise ValueError(f"dropout: random numbers of shape {uniform.shape} do not broadcast to x {x.shape}")
    return result


# Identities.

# A fresh node with the same values: where a transform starts, so that its input is a separate variable.
identity: Primitive = Primitive(
    "identity",
    view("shape", "identity"),
    None,
    vjp=each(lambda g, y, x: g),
    jvp=lambda tangents, y, x: tangents[0],
)
stop_gradient: Primitive = Primitive("stop_gradient", view("shape", "identity"), None, vjp=None, jvp=None)
_astype: Primitive = Primitive(
    "astype",
    kernel("elementwise", "astype"),
    lambda x, dtype: ((x.shape, dtype),),
    vjp=each(lambda g, y, x, dtype: _astype(g, dtype=x.dtype)),
    jvp=lambda tangents, y, x, dtype: _astype(tangents[0], dtype=dtype),
)


def astype(x: Any, dtype: Any) -> Tensor:
    """x in another floating dtype; the derivative comes back in x's own."""
    dtype = np.dtype(dtype)
    if dtype not in FLOATS:
        raise TypeError(f"astype: expected float32 or float64, got {dtype}")
    x = as_tensor(x)
    if x.dtype == dtype:
        return x
    return _astype(x, dtype=dtype) if x.dtype in FLOATS else constant(x.data.astype(dtype))

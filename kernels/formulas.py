"""What elementwise kernels compute of one number, written once for all devices.

A formula is a function of a writer and of values: the writer turns it into the language of a device. `Group` is what
the writers' callers make kernels of: several elementwise kernels over one shape, in one pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

FLOATS: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
_WHOLE = [np.dtype(f"{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)]
KINDS: tuple[np.dtype[Any], ...] = (*FLOATS, np.dtype(np.bool_), *_WHOLE)


class Writer(Protocol):
    """The operations that formulas are made of, on values of some language."""

    def number(self, value: float, like: Any) -> Any:
        """A constant of the type of another value."""

    def arithmetic(self, sign: str, x: Any, y: Any) -> Any:
        """x + y, x - y, x * y or x / y."""

    def negative(self, x: Any) -> Any:
        """-x."""

    def compare(self, sign: str, x: Any, y: Any, otherwise: bool = False) -> Any:
        """Whether x < y, x <= y, ...; `otherwise` if one of them is not a number."""

    def select(self, condition: Any, x: Any, y: Any) -> Any:
        """x where the condition holds, else y."""

    def truth(self, x: Any) -> Any:
        """Whether a boolean or whole number is not 0."""

    def call(self, name: str, *xs: Any) -> Any:
        """A function of the library: exp, fabs, sqrt, ..."""

    def cast(self, x: Any, dtype: Any) -> Any:
        """The same number as another floating type."""


Formula = Callable[..., Any]


def _arithmetic(sign: str) -> Formula:
    return lambda w, x, y: w.arithmetic(sign, x, y)


def _compare(sign: str, otherwise: bool = False) -> Formula:
    return lambda w, x, y: w.compare(sign, x, y, otherwise)


def _call(name: str) -> Formula:
    return lambda w, *xs: w.call(name, *xs)


def _first(sign: str) -> Formula:
    """Whether the first is the larger (>=) or the smaller (<=) of two, or not a number."""

    def formula(w: Writer, x: Any, y: Any) -> Any:
        no_number = w.compare("!=", x, x, otherwise=True)
        return w.select(no_number, no_number, w.compare(sign, x, y))

    return formula


def _sign(w: Writer, x: Any) -> Any:
    one, zero = w.number(1, x), w.number(0, x)
    below = w.select(w.compare("<", x, zero), w.number(-1, x), zero)
    magnitude = w.select(w.compare(">", x, zero), one, below)
    return w.select(w.compare("!=", x, x, otherwise=True), x, magnitude)


def _small(w: Writer, x: Any) -> Any:
    """exp(-|x|), which does not overflow."""
    return w.call("exp", w.negative(w.call("fabs", x)))


def _sigmoid(w: Writer, x: Any) -> Any:
    small, one = _small(w, x), w.number(1, x)
    above = w.select(w.compare(">=", x, w.number(0, x)), one, small)
    return w.arithmetic("/", above, w.arithmetic("+", one, small))


def _relu(w: Writer, x: Any) -> Any:
    zero = w.number(0, x)
    return w.select(w.compare(">", x, zero, otherwise=True), x, zero)  # what is not a number stays


def _softplus(w: Writer, x: Any) -> Any:
    return w.arithmetic("+", _relu(w, x), w.call("log1p", _small(w, x)))


def _power_of(w: Writer, x: Any, exponent: float) -> Any:
    if exponent == 2:
        return w.arithmetic("*", x, x)
    if exponent == -1:
        return w.arithmetic("/", w.number(1, x), x)
    return w.call("sqrt", x) if exponent == 0.5 else w.call("pow", x, w.number(exponent, x))


def _gate(w: Writer, g: Any, y: Any) -> Any:
    return w.select(w.compare(">", y, w.number(0, y)), g, w.number(0, g))


FORMULAS: dict[str, Formula] = {
    "add": _arithmetic("+"),
    "subtract": _arithmetic("-"),
    "multiply": _arithmetic("*"),
    "divide": _arithmetic("/"),
    "negative": lambda w, x: w.negative(x),
    "abs": _call("fabs"),
    **{name: _call(name) for name in ("sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh")},
    "power": _call("pow"),
    "power_of": _power_of,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "sign": _sign,
    "greater": _compare(">"),
    "greater_equal": _compare(">="),
    "less": _compare("<"),
    "less_equal": _compare("<="),
    "equal": _compare("=="),
    "not_equal": _compare("!=", otherwise=True),
    "first_is_larger": _first(">="),
    "first_is_smaller": _first("<="),
    "relu": _relu,
    "gate": _gate,
    "where": lambda w, condition, x, y: w.select(w.truth(condition), x, y),
    "descend": lambda w, x, rate, g: w.arithmetic("-", x, w.arithmetic("*", rate, g)),
    "copy": lambda w, x: x,
    "astype": lambda w, x, dtype: w.cast(x, np.dtype(dtype)),
}


def supported(name: str, dtypes: Sequence[Any]) -> bool:
    """Whether there is a formula for the kernel on operands of these dtypes."""
    if name not in FORMULAS or any(dtype not in KINDS for dtype in dtypes):
        return False
    numbers = dtypes[1:] if name == "where" else () if name == "copy" else dtypes
    return all(dtype in FLOATS for dtype in numbers) and len({*numbers}) <= 1 + (name == "astype")


class Operand(NamedTuple):
    """An array that a group reads, with the bytes to the next entry along each axis of its shape, 0 where broadcast."""

    dtype: np.dtype[Any]
    strides: tuple[int, ...]


class Step(NamedTuple):
    """An elementwise kernel by its name. Its operands are values: first come the group's operands, then the results of
    the steps before."""

    name: str
    operands: tuple[int, ...]
    dtype: np.dtype[Any]  # of the result
    static: tuple[tuple[str, Any], ...] = ()


class Group(NamedTuple):
    """Steps over one shape. The results that are kept are written in C order."""

    shape: tuple[int, ...]
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]  # values

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Of all values."""
        return [operand.dtype for operand in self.operands] + [step.dtype for step in self.steps]


def collapsed(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """(length, bytes to the next entry of each array) of the axes, neighbours as one where they can be for all arrays.

    Args:
        strides: of each array, for each axis.
    """
    merged: list[tuple[int, list[int]]] = []
    for axis in range(len(shape) - 1, -1, -1):
        length, steps = shape[axis], [of_array[axis] for of_array in strides]
        if length == 1:
            continue
        if merged and all(s == merged[-1][0] * inner for s, inner in zip(steps, merged[-1][1], strict=True)):
            merged[-1] = (merged[-1][0] * length, merged[-1][1])
        else:
            merged.append((length, steps))
    return merged[::-1]


def broadcast_strides(x: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Of an array, broadcast to a shape."""
    lead = len(shape) - x.ndim
    inner = [0 if n == 1 != m else s for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True)]
    return (*[0] * lead, *inner)


def in_order(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """The strides of an array in C order."""
    return tuple([size * int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))])


def write(writer: Writer, group: Group, operands: Sequence[Any]) -> list[Any]:
    """The values of a group: its operands as given, and the results of its steps."""
    values = list(operands)
    for step in group.steps:
        values.append(FORMULAS[step.name](writer, *[values[i] for i in step.operands], **dict(step.static)))
    return values

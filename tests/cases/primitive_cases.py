"""For every primitive, how to draw an example and what NumPy says its value is; see also composite_cases.

A case is a function of a `Source`, which draws shapes, layouts and values, and returns a `Case`. Values are drawn away
from kinks and poles, as derivatives are compared with differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml.autodiff.primitive import REGISTRY

LAYOUTS = ("C", "Fortran", "strided", "reversed", "stride-0")


class Case(NamedTuple):
    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    reference: Callable[..., Any]  # the same in NumPy
    order: int = 3  # of the derivatives to check; less for what is itself a derivative of another primitive


class Source:
    """Draws what a case asks for, by Hypothesis."""

    def __init__(self, data: Any, dtype: Any, sides: tuple[int, ...] = (1, 2, 3, 0)) -> None:
        self.data = data
        self.sides = sides
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))

    def pick(self, *choices: Any) -> Any:
        return self.data.draw(st.sampled_from(choices))

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def side(self, least: int = 0) -> int:
        return self.pick(*[n for n in self.sides if n >= least])

    def shape(self, least: int = 0, most: int = 3, side: int = 0) -> tuple[int, ...]:
        return tuple(self.side(side) for _ in range(self.integer(least, most)))

    def narrowed(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts to this one."""
        lead = self.integer(0, len(shape))
        return tuple(1 if self.pick(False, True) else n for n in shape[lead:])

    def lay(self, values: Any) -> Any:
        """The values in some layout of memory, and in the dtype."""
        values = np.asarray(values, self.dtype)
        layout = self.pick(*LAYOUTS)
        if values.ndim == 0 or layout == "C":
            return values
        if layout == "Fortran":
            return np.asfortranarray(values)
        if layout == "strided":
            spread = np.full([2 * n for n in values.shape], np.nan, self.dtype)
            found = spread[tuple(slice(0, 2 * n, 2) for n in values.shape)]
            found[...] = values
            return found
        if layout == "reversed":
            return values[::-1].copy()[::-1]
        return np.broadcast_to(values[:1], values.shape)

    def normal(self, shape: tuple[int, ...]) -> Any:
        return self.lay(self.rng.standard_normal(shape))

    def away(self, shape: tuple[int, ...]) -> Any:
        """Not within .2 of 0."""
        x = self.rng.standard_normal(shape)
        return self.lay(np.where(x < 0, x - 0.2, x + 0.2))

    def positive(self, shape: tuple[int, ...]) -> Any:
        return self.lay(self.rng.uniform(0.5, 2.5, shape))

    def distinct(self, shape: tuple[int, ...]) -> Any:
        """No two values within .1 of each other."""
        count = int(np.prod(shape))
        return np.asarray((self.rng.permutation(count) - count / 2 + 0.3).reshape(shape) / 5, self.dtype)

    def axis(self, ndim: int) -> int:
        return self.integer(-ndim, ndim - 1)


CASES: dict[str, Callable[[Source], Case]] = {}  # one for every primitive that has derivatives
CONSTANT: dict[str, Callable[..., Any]] = {  # no derivative passes these
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "first_is_larger": lambda x, y: (x >= y) | np.isnan(x),
    "first_is_smaller": lambda x, y: (x <= y) | np.isnan(x),
    "sign": np.sign,
    "stop_gradient": np.asarray,
    "top_last": lambda x: np.argsort(-x, -1, kind="stable")[..., :2],
}


def case(function: Callable[[Source], Case]) -> Callable[[Source], Case]:
    """The case of the primitive that has this name (an underscore in front is left out)."""
    CASES[function.__name__.strip("_")] = function
    return function


# Elementwise.


def _one(name: str, reference: Callable[..., Any], values: str = "normal") -> None:
    CASES[name] = lambda s: Case(REGISTRY[name], (getattr(s, values)(s.shape()),), reference)


def _two(name: str, reference: Callable[..., Any], first: str, second: str) -> None:
    def draw(s: Source) -> Case:
        shape = s.shape()
        narrow = s.narrowed(shape)
        shapes = (shape, narrow) if s.pick(True, False) else (narrow, shape)
        return Case(REGISTRY[name], (getattr(s, first)(shapes[0]), getattr(s, second)(shapes[1])), reference)

    CASES[name] = draw


for _name, _values in {"log": "positive", "sqrt": "positive", "abs": "away"}.items():
    _one(_name, getattr(np, _name), _values)
for _name in ("negative", "exp", "expm1", "sin", "cos", "tanh"):
    _one(_name, getattr(np, _name))
_one("log1p", np.log1p, "positive")
_one("sigmoid", lambda x: 1 / (1 + np.exp(-x)))
_one("softplus", lambda x: np.logaddexp(x, 0))
_one("relu", lambda x: np.maximum(x, 0), "away")
_one("identity", np.asarray)
_two("add", np.add, "normal", "normal")
_two("subtract", np.subtract, "normal", "normal")
_two("multiply", np.multiply, "normal", "normal")
_two("divide", np.divide, "normal", "positive")
_two("power", np.power, "positive", "normal")
_two("gate", lambda g, y: np.where(y > 0, g, 0), "normal", "away")


@case
def descend(s: Source) -> Case:
    shape = s.shape()
    shapes = [s.narrowed(shape), s.narrowed(shape), s.narrowed(shape)]
    shapes[s.integer(0, 2)] = shape
    return Case(REGISTRY["descend"], tuple(s.normal(n) for n in shapes), lambda x, rate, g: x - rate * g)


@case
def power_of(s: Source) -> Case:
    exponent = s.pick(2, 3, -1, 0.5, 1.5, -2, 2.0)
    return Case(lambda x: REGISTRY["power_of"](x, exponent=exponent), (s.positive(s.shape()),), lambda x: x**exponent)


@case
def _where(s: Source) -> Case:
    shape = s.shape()
    condition = np.asarray(s.rng.uniform(size=s.narrowed(shape)) < 0.5)
    a, b = s.normal(shape), s.normal(s.narrowed(shape))
    if s.pick(True, False):
        a, b = b, a
    return Case(tm.where, (condition, a, b), np.where)


@case
def astype(s: Source) -> Case:
    # To the other precision and back: the values are those that float32 has as well.
    other = np.float64 if s.dtype == np.float32 else np.float32
    x = s.normal(s.shape()).astype(np.float32).astype(s.dtype)
    if s.dtype == np.float64:  # differences of float32 values would be too coarse
        return Case(lambda x: REGISTRY["astype"](x, dtype=np.dtype(np.float64)), (x,), np.asarray)
    return Case(lambda x: tm.astype(tm.astype(x, other) * 3.0, x.dtype), (x,), lambda x: x * s.dtype.type(3))


# Shape.


@case
def _reshape(s: Source) -> Case:
    x = s.normal(s.shape())
    shape = s.pick((x.size,), (1, x.size, 1), x.shape[::-1], (-1,) if x.size else (0, 7))
    return Case(lambda x: tm.reshape(x, shape), (x,), lambda x: x.reshape(shape))


@case
def _transpose(s: Source) -> Case:
    x = s.normal(s.shape())
    axes = tuple(int(a) - s.pick(0, x.ndim) for a in s.rng.permutation(x.ndim))
    return Case(lambda x: tm.transpose(x, axes), (x,), lambda x: x.transpose(axes))


@case
def _broadcast_to(s: Source) -> Case:
    shape = s.shape()
    x = s.normal(s.narrowed(shape))
    return Case(lambda x: tm.broadcast_to(x, shape), (x,), lambda x: np.broadcast_to(x, shape))


@case
def _sum_to(s: Source) -> Case:
    shape = s.shape()
    narrow = s.narrowed(shape)

    def reference(x: Any) -> Any:
        lead = x.ndim - len(narrow)
        axes = tuple(i for i in range(x.ndim) if i < lead or narrow[i - lead] == 1)
        return x.sum(axes, keepdims=True).reshape(narrow)

    return Case(lambda x: REGISTRY["sum_to"](x, shape=narrow), (s.normal(shape),), reference)


def _index(s: Source, n: int, *, slices_only: bool) -> Any:
    """An index along an axis of n entries."""
    choices = [slice(None), slice(0, n // 2), slice(None, None, -1), slice(1, None, 2), slice(n, n)]
    return s.pick(*choices, *([] if slices_only or not n else [n - 1, -n]))


@case
def _slice(s: Source) -> Case:
    x = s.normal(s.shape())
    index: list[Any] = [_index(s, n, slices_only=False) for n in x.shape[: s.integer(0, x.ndim)]]
    index.insert(len(index) if len(index) < x.ndim else s.integer(0, len(index)), s.pick(None, Ellipsis))
    return Case(lambda x: tm.getitem(x, tuple(index)), (x,), lambda x: x[tuple(index)])


def _arrays_index(s: Source, shape: tuple[int, ...]) -> Any:
    """An index with one or two arrays of integers, with repeated and negative entries, or a mask."""
    n = shape[0]
    some = s.rng.integers(-n, n, s.pick((4,), (2, 3), (0,), ())) if n else np.zeros(0, np.intp)
    kind = s.pick("one", "list", "mask", "whole mask", "with slice", "two", "apart")
    if kind == "list":
        return [int(i) for i in some.ravel()]
    if kind == "mask":
        return s.rng.uniform(size=n) < 0.5
    if kind == "whole mask":
        return s.rng.uniform(size=shape) < 0.5
    if kind == "with slice" and len(shape) > 1:
        return (some, slice(None, None, 2))
    if kind == "two" and len(shape) > 1 and shape[1]:
        return (some, s.rng.integers(0, shape[1], some.shape))
    if kind == "apart" and len(shape) > 2 and shape[2]:
        return (some, slice(None), s.rng.integers(0, shape[2], some.shape))
    return some


@case
def gather(s: Source) -> Case:
    x = s.normal(s.shape(1))
    index = _arrays_index(s, x.shape)
    return Case(lambda x: tm.getitem(x, index), (x,), lambda x: x[index])


@case
def scatter(s: Source) -> Case:
    x = s.normal(s.shape(1))
    index = s.pick(slice(None, None, -1), slice(0, 2)) if s.pick(False, True) else _arrays_index(s, x.shape)
    updates = s.normal(x[index].shape)

    def reference(x: Any, updates: Any) -> Any:
        total = x.copy()
        np.add.at(total, index, updates)
        return total

    return Case(lambda x, updates: tm.scatter_add(x, index, updates), (x, updates), reference)


@case
def _concatenate(s: Source) -> Case:
    shape = s.shape(1)
    axis = s.axis(len(shape))
    parts = []
    for _ in range(s.integer(1, 3)):
        own = list(shape)
        own[axis] = s.side()
        parts.append(s.normal(tuple(own)))
    return Case(lambda *xs: tm.concatenate(xs, axis), tuple(parts), lambda *xs: np.concatenate(xs, axis))


@case
def _split(s: Source) -> Case:
    x = s.normal(s.shape(1))
    axis = s.axis(x.ndim)
    n = x.shape[axis]
    sections = s.pick(1, max(n, 1), [n // 2], [0, n // 2, n])

    def ours(x: Any) -> Any:
        parts = tm.split(x, sections, axis)
        return [*parts[:1], *[y * y for y in parts[2:]]]  # the second is not used

    def theirs(x: Any) -> Any:
        parts = np.split(x, sections, axis)
        return (*parts[:1], *[y * y for y in parts[2:]])

    return Case(ours, (x,), theirs)


# Products, reductions, losses.


@case
def _linear(s: Source) -> Case:
    lead = s.shape(0, 2)
    n, k, o = s.side(), s.side(), s.side()
    ta, tb = s.pick(False, True), s.pick(False, True)
    a = s.normal((*s.narrowed(lead), *((k, n) if ta else (n, k))))
    b = s.normal((*s.narrowed(lead), *((o, k) if tb else (k, o))))
    full = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), n, o)
    c = (s.normal(s.narrowed(full)),) if s.pick(True, False) else ()

    def reference(a: Any, b: Any, c: Any = 0) -> Any:
        return np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b) + c

    return Case(lambda *xs: tm.linear(*xs, ta=ta, tb=tb), (a, b, *c), reference)


@case
def max_last(s: Source) -> Case:
    x = s.distinct((*s.shape(0, 2), s.side(1)))
    return Case(REGISTRY["max_last"], (x,), lambda x: (x.max(-1, keepdims=True), x.argmax(-1, keepdims=True)))


@case
def _cumsum(s: Source) -> Case:
    x, reverse = s.normal(s.shape(1)), s.pick(False, True)
    axis = s.integer(0, x.ndim - 1)
    order = (*[slice(None)] * axis, slice(None, None, -1 if reverse else 1))
    return Case(
        lambda x: REGISTRY["cumsum"](x, axis=axis, reverse=reverse), (x,), lambda x: np.cumsum(x[order], axis)[order]
    )


def axes_of(s: Source, ndim: int) -> Any:
    return s.pick(None, (), *range(-ndim, ndim), *[(i, j) for i in range(ndim) for j in range(i)])


def logsumexp_of(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.log(np.sum(np.exp(x), axis, keepdims=keepdims))


@case
def _logsumexp(s: Source) -> Case:
    x = s.normal(s.shape(side=1))
    axis, keep = axes_of(s, x.ndim), s.pick(False, True)
    return Case(lambda x: tm.logsumexp(x, axis, keep), (x,), lambda x: logsumexp_of(x, axis, keep))


def _batch(s: Source) -> tuple[int, ...]:
    return (s.side(), s.side(1), *s.shape(0, 1, side=1))


@case
def _mse(s: Source) -> Case:
    shape = _batch(s)
    rest = tuple(range(1, len(shape)))
    return Case(tm.mse, (s.normal(shape), s.normal(shape)), lambda p, t: ((p - t) ** 2).mean(rest))


@case
def scaled_difference(s: Source) -> Case:
    shape = _batch(s)
    arrays = (s.normal(shape), s.normal(shape), s.normal(shape[:1]))
    return Case(
        lambda p, t, h: REGISTRY["scaled_difference"](p, t, h, scale=0.7),
        arrays,
        lambda p, t, h: (p - t) * (h * p.dtype.type(0.7)).reshape(-1, *[1] * (p.ndim - 1)),
    )


def _entropy(s: Source) -> tuple[Any, Any]:
    shape = (s.side(), s.side(1), *s.shape(0, 1, side=1), s.side(1))
    return s.normal(shape), s.rng.integers(0, shape[-1], shape[:-1])


def _softmax(logits: Any) -> Any:
    e = np.exp(logits)
    return e / e.sum(-1, keepdims=True)


def _share(h: Any, logits: Any) -> Any:
    count = np.prod(logits.shape[1:-1], dtype=logits.dtype)
    return h.reshape(-1, *[1] * (logits.ndim - 1)) / count


@case
def cross_entropy(s: Source) -> Case:
    logits, labels = _entropy(s)

    def reference(logits: Any, labels: Any) -> Any:
        losses = -np.log(np.take_along_axis(_softmax(logits), labels[..., None], -1))
        return losses.reshape(len(logits), -1).mean(1) if len(logits) else np.zeros(0, logits.dtype)

    return Case(REGISTRY["cross_entropy"], (logits, labels), reference)


@case
def cross_entropy_gradient(s: Source) -> Case:
    logits, labels = _entropy(s)

    def reference(logits: Any, labels: Any, h: Any) -> Any:
        return _share(h, logits) * (_softmax(logits) - np.eye(logits.shape[-1], dtype=logits.dtype)[labels])

    return Case(REGISTRY["cross_entropy_gradient"], (logits, labels, s.normal(logits.shape[:1])), reference)


@case
def cross_entropy_hessian(s: Source) -> Case:
    logits, _ = _entropy(s)

    def reference(logits: Any, h: Any, v: Any) -> Any:
        p = _softmax(logits)
        return _share(h, logits) * (p * v - p * (p * v).sum(-1, keepdims=True))

    arrays = (logits, s.normal(logits.shape[:1]), s.normal(logits.shape))
    return Case(REGISTRY["cross_entropy_hessian"], arrays, reference)


# The families that have files of their own; they import this one, hence last.
from tests.cases import conv_cases, norm_cases, pool_cases  # noqa: E402, F401

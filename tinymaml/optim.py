"""Optimisers as pairs of pure functions, and schedules of the learning rate.

`init(params) -> state` and `update(grads, state, params) -> (params, state)`; nothing given is changed. A learning
rate is a number or a schedule, a function from the iteration (0, 1, ...) to a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.dispatch import alike, kernel, zeros
from tinymaml.autodiff.interop import lost
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, adopt, as_tensor, constant, is_array
from tinymaml.autodiff.tree import Tree
from tinymaml.ops import add, astype, multiply
from tinymaml.ops.elementwise import descend

Schedule = Callable[[int], float]


class Optimiser(NamedTuple):
    """`init(params) -> state`, a pytree of arrays; `update(grads, state, params) -> (params, state)`.

    A step to be recorded cannot ask for the iteration. It is given what depends on it, and leaves it alone:
    `numbers(iteration) -> array`, outside, and `move(grads, moments, params, numbers) -> (params, moments)`, where
    `moments` is the state without its "iteration".
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    numbers: Callable[[int], Array]
    move: Callable[[Tree, Tree, Tree, Any], tuple[Tree, Tree]]


Arrays = Sequence[Array]


def _optimiser(
    names: Sequence[str],
    numbers: Callable[[int], Sequence[float]],
    step: Callable[[Arrays, Arrays, Sequence[Arrays], Array], tuple[Arrays, Sequence[Arrays]]],
) -> Optimiser:
    """From the names of the moments, and step(params, grads, moments, numbers) -> (params, moments) on lists."""

    def init(params: Tree) -> Tree:
        _check_parameters(params)
        moments = {name: tree.map(lambda x: zeros(x.shape, x), params) for name in names}
        return {"iteration": np.zeros((), np.int64), **moments}

    def move(grads: Tree, moments: Tree, params: Tree, numbers: Any) -> tuple[Tree, Tree]:
        xs, gs, structure = _gradients(grads, params)
        olds = [[_array(m) for m in tree.leaves(moments[name])] for name in names]
        moved, news = step(xs, gs, olds, alike(_array(numbers), xs[0]) if xs else _array(numbers))
        recorded = isinstance(numbers, Tensor)
        columns = [[constant(x) for x in column] if recorded else column for column in (moved, *news)]
        trees = [tree.unflatten(structure, column) for column in columns]
        return trees[0], dict(zip(names, trees[1:], strict=True))

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        moments = {name: state[name] for name in names}
        params, moments = move(grads, moments, params, at(int(state["iteration"])))
        return params, {"iteration": np.asarray(state["iteration"] + 1), **moments}

    def at(iteration: int) -> Array:
        return np.array(numbers(iteration))

    return Optimiser(init, update, at, move)


def _positive(name: str, value: Any) -> Any:
    if not isinstance(value, Real) or not (math.isfinite(value) and float(value) > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return value


def _schedule(learning_rate: float | Schedule) -> Schedule:
    """The schedule, checked whenever it is asked."""
    if not callable(learning_rate):
        rate = _positive("learning_rate (a number, or a function of the iteration)", learning_rate)
        return lambda iteration: rate
    schedule = learning_rate

    def checked(iteration: int) -> float:
        rate = schedule(iteration)
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"learning_rate: the schedule gave {rate} at iteration {iteration}")
        return rate

    return checked


def _fraction(name: str, value: float) -> float:
    if not isinstance(value, Real) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return value


def _check_parameters(params: Tree) -> None:
    for i, x in enumerate(tree.leaves(params)):
        if not is_array(x) or adopt(x).dtype not in FLOATS:
            kind = x.dtype if is_array(x) else type(x).__name__
            raise TypeError(f"{tree.place('params', params, i)} must be an array of float32 or float64, got {kind}")


def _array(x: Any) -> Array:
    """The value. Raises TypeError for a tensor with history: no derivative passes an optimiser."""
    if isinstance(x, Tensor):
        if x.has_history:
            raise TypeError(lost("an optimiser's step"))
        return x.data
    return adopt(x) if is_array(x) else x


def _gradients(grads: Tree, params: Tree) -> tuple[list[Array], list[Array], tree.Structure]:
    """The leaves of params and of grads, when they fit, and their structure."""
    raw, structure = tree.flatten(params)
    xs, gs = [_array(x) for x in raw], [_array(g) for g in tree.leaves_like(structure, grads, "grads")]
    for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
        if not is_array(x) or not is_array(g) or x.shape != g.shape or x.dtype != g.dtype:
            expected, got = [f"{y.shape} {y.dtype}" if is_array(y) else type(y).__name__ for y in (x, g)]
            raise ValueError(
                f"{tree.place('grads', grads, i)} must be an array like its parameter, {expected}; got {got}"
            )
    return xs, gs, structure


def _descend(xs: Arrays, numbers: Array, directions: Arrays) -> Arrays:
    rates = {dtype: astype(as_tensor(numbers)[0], dtype) for dtype in {x.dtype for x in xs}}
    return [descend(x, rates[x.dtype], u).data for x, u in zip(xs, directions, strict=True)]


def sgd(learning_rate: float | Schedule) -> Optimiser:
    """Gradient descent: x <- x - rate g."""
    rate = _schedule(learning_rate)
    return _optimiser([], lambda i: [rate(i)], lambda xs, gs, moments, numbers: (_descend(xs, numbers, gs), []))


def momentum(learning_rate: float | Schedule, decay: float = 0.9, nesterov: bool = False) -> Optimiser:
    """Gradient descent along u <- decay u + g (Nesterov: along decay u + g with the new u)."""
    rate, decay = _schedule(learning_rate), _fraction("decay", decay)

    def ahead(us: Arrays, gs: Arrays) -> Arrays:
        return [add(multiply(u, decay), g).data for u, g in zip(us, gs, strict=True)]

    def step(xs: Arrays, gs: Arrays, moments: Sequence[Arrays], numbers: Array) -> Any:
        us = ahead(moments[0], gs)
        return _descend(xs, numbers, ahead(us, gs) if nesterov else us), [us]

    return _optimiser(["velocity"], lambda i: [rate(i)], step)


_adam = kernel("optim", "adam")


def adam(
    learning_rate: float | Schedule = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1)."""
    rate = _schedule(learning_rate)
    static = {
        "beta1": _fraction("beta1", beta1),
        "beta2": _fraction("beta2", beta2),
        "epsilon": float(_positive("epsilon", epsilon)),
    }

    def numbers(done: int) -> Sequence[float]:
        return rate(done) / (1 - beta1 ** (done + 1)), 1 / (1 - beta2 ** (done + 1))

    def step(xs: Arrays, gs: Arrays, moments: Sequence[Arrays], numbers: Array) -> Any:
        moved = [
            _adam(((x.shape, x.dtype),) * 3, (x, g, m, v, numbers), static)
            for x, g, m, v in zip(xs, gs, *moments, strict=True)
        ]
        x2, *rest = zip(*moved, strict=True)
        return x2, rest

    return _optimiser(["m", "v"], numbers, step)


def cosine(start: float, iterations: int, end: float = 0.0) -> Schedule:
    """From `start` to `end` along half a cosine, then `end`."""
    _positive("iterations", iterations)
    return lambda i: end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(i / iterations, 1.0)))


def exponential(start: float, factor: float, every: int = 1) -> Schedule:
    """`start` times `factor` for each `every` iterations, smoothly."""
    _positive("every", every)
    return lambda i: start * factor ** (i / every)


def warmup(schedule: float | Schedule, iterations: int) -> Schedule:
    """A schedule that is reached linearly over the first iterations."""
    after = _schedule(schedule)
    _positive("iterations", iterations)
    return lambda i: after(i) * min((i + 1) / iterations, 1.0)

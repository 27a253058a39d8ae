"""Optimisers as pairs of pure functions, and schedules of the learning rate.

`init(params) -> state` and `update(grads, state, params) -> (params, state)`; nothing given is changed. All that an
update depends on is in the state, the iteration too, as an array: so an update is the same eagerly and in a recorded
step. A learning rate is a number or a schedule: a function of the iteration (0, 1, ..., a float64 tensor without axes)
made of tinymaml's functions.
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
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, adopt, as_tensor, constant, is_array, known
from tinymaml.autodiff.tracing import when_known
from tinymaml.autodiff.tree import Tree
from tinymaml.ops import add, astype, cos, minimum, multiply, power, stack, where
from tinymaml.ops.elementwise import descend

Schedule = Callable[[Any], Any]
Arrays = Sequence[Array]


class Optimiser(NamedTuple):
    """`init(params) -> state`, a pytree of arrays; `update(grads, state, params) -> (params, state)`, which gives
    arrays, or tensors while a step is recorded.

    The state is a dict: "iteration", an int64 array without axes, and moments, trees like the parameters.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


# step(params, grads, moments, rate, iteration) -> (params, moments), on lists of arrays; the last two are float64 ().
_Step = Callable[[Arrays, Arrays, Sequence[Arrays], Tensor, Tensor], tuple[Arrays, Sequence[Arrays]]]
_next_iteration = kernel("optim", "next_iteration")


def _optimiser(moments: Sequence[str], learning_rate: float | Schedule, step: _Step) -> Optimiser:
    """From the names of the moments, and what moves the parameters and them."""
    rate = _rate(learning_rate)

    def init(params: Tree) -> Tree:
        _check_parameters(params)
        start = {name: tree.map(lambda x: zeros(x.shape, x), params) for name in moments}
        return {"iteration": np.zeros((), np.int64), **start}

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        xs, gs, structure = _gradients(grads, params)
        before = [[_array(m) for m in tree.leaves(state[name])] for name in moments]
        specs = (((), np.dtype(np.int64)), ((), np.dtype(np.float64)))
        after, at = map(constant, _next_iteration(specs, (_iteration(state),), {}))
        leaves, columns = step(xs, gs, before, rate(at), at)
        params, *trees = [
            tree.unflatten(structure, [known(constant(x)) for x in column]) for column in (leaves, *columns)
        ]
        return params, {"iteration": known(after), **dict(zip(moments, trees, strict=True))}

    return Optimiser(init, update)


def _iteration(state: Tree) -> Array:
    """The state's iteration. Raises ValueError if it is no whole number."""
    iteration = _array(state["iteration"])
    iteration = iteration if is_array(iteration) else np.asarray(iteration)
    if iteration.shape or iteration.dtype != np.int64:
        raise ValueError(
            f"the optimiser's state['iteration'] must be an int64 array without axes, got {iteration.shape} "
            f"{iteration.dtype}"
        )
    return iteration


def _positive(name: str, value: Any) -> Any:
    if not isinstance(value, Real) or not (math.isfinite(value) and float(value) > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return value


def _rate(learning_rate: float | Schedule) -> Callable[[Tensor], Tensor]:
    """The rate, float64 (), as a function of the iteration. What a schedule gives is checked; where a step is recorded,
    at each replay.
    """
    if not callable(learning_rate):
        value = _positive("learning_rate (a number, or a function of the iteration)", learning_rate)
        fixed = constant(np.array(value, np.float64))
        return lambda iteration: fixed
    schedule = learning_rate

    def scheduled(iteration: Tensor) -> Tensor:
        given = as_tensor(schedule(iteration))
        if given.shape:
            raise ValueError(f"learning_rate: the schedule gave an array of shape {given.shape}, expected one number")
        given = astype(constant(_array(given)), np.float64)
        rate = where(given >= 0, given, math.nan)
        when_known(stack([rate, given, iteration]).data, _check_rate)
        return rate

    return scheduled


def _check_rate(values: Array) -> None:
    """Of (rate, what the schedule gave, iteration)."""
    rate, given, iteration = values.tolist()
    if not math.isfinite(rate):
        raise ValueError(
            f"learning_rate: the schedule gave {given} at iteration {iteration:.0f}, expected a number >= 0"
        )


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


def _descend(xs: Arrays, rate: Tensor, directions: Arrays) -> Arrays:
    rates = {dtype: astype(rate, dtype) for dtype in {x.dtype for x in xs}}
    return [descend(x, rates[x.dtype], u).data for x, u in zip(xs, directions, strict=True)]


def sgd(learning_rate: float | Schedule) -> Optimiser:
    """Gradient descent: x <- x - rate g."""
    return _optimiser([], learning_rate, lambda xs, gs, moments, rate, iteration: (_descend(xs, rate, gs), []))


def momentum(learning_rate: float | Schedule, decay: float = 0.9, nesterov: bool = False) -> Optimiser:
    """Gradient descent along u <- decay u + g (Nesterov: along decay u + g with the new u)."""
    decay = _fraction("decay", decay)

    def ahead(us: Arrays, gs: Arrays) -> Arrays:
        return [add(multiply(u, decay), g).data for u, g in zip(us, gs, strict=True)]

    def step(xs: Arrays, gs: Arrays, moments: Sequence[Arrays], rate: Tensor, iteration: Tensor) -> Any:
        us = ahead(moments[0], gs)
        return _descend(xs, rate, ahead(us, gs) if nesterov else us), [us]

    return _optimiser(["velocity"], learning_rate, step)


_bias_correction, _adam = kernel("optim", "bias_correction"), kernel("optim", "adam")


def adam(
    learning_rate: float | Schedule = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1)."""
    betas = {"beta1": _fraction("beta1", beta1), "beta2": _fraction("beta2", beta2)}
    static = {**betas, "epsilon": float(_positive("epsilon", epsilon))}

    def step(xs: Arrays, gs: Arrays, moments: Sequence[Arrays], rate: Tensor, iteration: Tensor) -> Any:
        (scales,) = _bias_correction((((2,), np.dtype(np.float64)),), (iteration.data, rate.data), betas)
        scales = alike(scales, xs[0]) if xs else scales
        moved = [
            _adam(((x.shape, x.dtype),) * 3, (x, g, m, v, scales), static)
            for x, g, m, v in zip(xs, gs, *moments, strict=True)
        ]
        return [x for x, _, _ in moved], [[m for _, m, _ in moved], [v for _, _, v in moved]]

    return _optimiser(["m", "v"], learning_rate, step)


# Schedules. They take the iteration as a number or as a float64 tensor.


def _of_iteration(schedule: Callable[[Tensor], Tensor]) -> Schedule:
    return lambda iteration: schedule(astype(as_tensor(iteration), np.float64))


def cosine(start: float, iterations: int, end: float = 0.0) -> Schedule:
    """From `start` to `end` along half a cosine, then `end`."""
    _positive("iterations", iterations)
    return _of_iteration(lambda i: end + (start - end) * 0.5 * (1.0 + cos(math.pi * minimum(i / iterations, 1.0))))


def exponential(start: float, factor: float, every: int = 1) -> Schedule:
    """`start` times `factor` for each `every` iterations, smoothly."""
    _positive("every", every)
    return _of_iteration(lambda i: start * power(factor, i / every))


def warmup(schedule: float | Schedule, iterations: int) -> Schedule:
    """A schedule that is reached linearly over the first iterations."""
    after = _rate(schedule)
    _positive("iterations", iterations)
    return _of_iteration(lambda i: after(i) * minimum((i + 1.0) / iterations, 1.0))

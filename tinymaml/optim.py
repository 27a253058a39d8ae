"""Optimisers as pairs of pure functions, and schedules of the learning rate.

`init(params) -> state` and `update(grads, state, params) -> (params, state)`; nothing given is changed. A learning
rate is a number or a schedule, a function from the iteration (0, 1, ...) to a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from tinymaml import tree
from tinymaml.device import kernel
from tinymaml.tensor import FLOATS, is_array
from tinymaml.tree import Tree

Schedule = Callable[[int], float]


class Optimiser(NamedTuple):
    """`init(params) -> state`, a pytree of arrays; `update(grads, state, params) -> (params, state)`."""

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


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


def _start() -> Any:
    return np.zeros((), np.int64)


def _next(state: Tree) -> Any:
    return np.asarray(state["iteration"] + 1)


def _zeros(params: Tree) -> Tree:
    """Zeros like the parameters, which have to be arrays."""
    for i, x in enumerate(tree.leaves(params)):
        if not is_array(x) or x.dtype not in FLOATS:
            kind = x.dtype if is_array(x) else type(x).__name__
            raise TypeError(f"{tree.place('params', params, i)} must be an array of float32 or float64, got {kind}")
    return tree.map(np.zeros_like, params)


def _gradients(grads: Tree, params: Tree) -> tuple[list[Any], list[Any], tree.Structure]:
    """The leaves of params and of grads, when they fit, and their structure."""
    xs, structure = tree.flatten(params)
    gs = tree.leaves_like(structure, grads, "grads")
    for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
        if not is_array(x) or not is_array(g) or x.shape != g.shape or x.dtype != g.dtype:
            expected, got = [f"{y.shape} {y.dtype}" if is_array(y) else type(y).__name__ for y in (x, g)]
            raise ValueError(
                f"{tree.place('grads', grads, i)} must be an array like its parameter, {expected}; got {got}"
            )
    return xs, gs, structure


def sgd(learning_rate: float | Schedule) -> Optimiser:
    """Gradient descent: x <- x - rate g."""
    rate = _schedule(learning_rate)

    def init(params: Tree) -> Tree:
        _zeros(params)
        return {"iteration": _start()}

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        xs, gs, structure = _gradients(grads, params)
        step = rate(int(state["iteration"]))
        moved = [np.asarray(x - x.dtype.type(step) * g) for x, g in zip(xs, gs, strict=True)]
        return tree.unflatten(structure, moved), {"iteration": _next(state)}

    return Optimiser(init, update)


def momentum(learning_rate: float | Schedule, decay: float = 0.9, nesterov: bool = False) -> Optimiser:
    """Gradient descent along u <- decay u + g (Nesterov: along decay u + g with the new u)."""
    rate, decay = _schedule(learning_rate), _fraction("decay", decay)

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        xs, gs, structure = _gradients(grads, params)
        us = [np.asarray(decay * u + g) for u, g in zip(tree.leaves(state["velocity"]), gs, strict=True)]
        ahead = [decay * u + g for u, g in zip(us, gs, strict=True)] if nesterov else us
        step = rate(int(state["iteration"]))
        moved = [np.asarray(x - x.dtype.type(step) * u) for x, u in zip(xs, ahead, strict=True)]
        velocity = tree.unflatten(structure, us)
        return tree.unflatten(structure, moved), {"iteration": _next(state), "velocity": velocity}

    return Optimiser(lambda params: {"iteration": _start(), "velocity": _zeros(params)}, update)


_adam = kernel("optim.adam")


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

    def init(params: Tree) -> Tree:
        return {"iteration": _start(), "m": _zeros(params), "v": _zeros(params)}

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        xs, gs, structure = _gradients(grads, params)
        done = int(state["iteration"])
        scales = np.array([rate(done) / (1 - beta1 ** (done + 1)), 1 / (1 - beta2 ** (done + 1))])
        ms, vs = tree.leaves(state["m"]), tree.leaves(state["v"])
        moved = [
            _adam(((x.shape, x.dtype),) * 3, (x, g, m, v, scales), static)
            for x, g, m, v in zip(xs, gs, ms, vs, strict=True)
        ]
        x2, m2, v2 = [tree.unflatten(structure, column) for column in zip(*moved, strict=True)]
        return x2, {"iteration": _next(state), "m": m2, "v": v2}

    return Optimiser(init, update)


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

"""Optimisers as pairs of pure functions, and schedules of the learning rate.

`init(params) -> state` and `update(grads, state, params) -> (params, state)`; nothing given is changed. A learning
rate is a number or a schedule, a function from the iteration (0, 1, ...) to a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinymaml import tree
from tinymaml.device import kernel
from tinymaml.tree import Tree

Schedule = Callable[[int], float]


class Optimiser(NamedTuple):
    """`init(params) -> state`, a pytree of arrays; `update(grads, state, params) -> (params, state)`."""

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def _schedule(learning_rate: float | Schedule) -> Schedule:
    if callable(learning_rate):
        return learning_rate
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate must be a positive number, got {learning_rate}")
    return lambda iteration: learning_rate


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return value


def _start() -> Any:
    return np.zeros((), np.int64)


def sgd(learning_rate: float | Schedule) -> Optimiser:
    """Gradient descent: x <- x - rate g."""
    rate = _schedule(learning_rate)

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        step = rate(int(state["iteration"]))
        moved = tree.map(lambda x, g: x - np.asarray(step, x.dtype) * g, params, grads)
        return moved, {"iteration": state["iteration"] + 1}

    return Optimiser(lambda params: {"iteration": _start()}, update)


def momentum(learning_rate: float | Schedule, decay: float = 0.9, nesterov: bool = False) -> Optimiser:
    """Gradient descent along u <- decay u + g (Nesterov: along decay u + g with the new u)."""
    rate, decay = _schedule(learning_rate), _fraction("decay", decay)

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        step = rate(int(state["iteration"]))
        velocity = tree.map(lambda u, g: decay * u + g, state["velocity"], grads)
        ahead = tree.map(lambda u, g: decay * u + g, velocity, grads) if nesterov else velocity
        moved = tree.map(lambda x, u: x - np.asarray(step, x.dtype) * u, params, ahead)
        return moved, {"iteration": state["iteration"] + 1, "velocity": velocity}

    return Optimiser(lambda params: {"iteration": _start(), "velocity": tree.map(np.zeros_like, params)}, update)


_adam = kernel("optim.adam")


def adam(
    learning_rate: float | Schedule = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> Optimiser:
    """Adam (Kingma & Ba 2015, algorithm 1)."""
    rate = _schedule(learning_rate)
    static = {"beta1": _fraction("beta1", beta1), "beta2": _fraction("beta2", beta2), "epsilon": float(epsilon)}

    def init(params: Tree) -> Tree:
        return {"iteration": _start(), "m": tree.map(np.zeros_like, params), "v": tree.map(np.zeros_like, params)}

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        done = int(state["iteration"])
        scales = np.array([rate(done) / (1 - beta1 ** (done + 1)), 1 / (1 - beta2 ** (done + 1))])
        xs, structure = tree.flatten(params)
        gs = tree.leaves_like(structure, grads, "grads")
        ms, vs = tree.leaves(state["m"]), tree.leaves(state["v"])
        moved = [
            _adam(((x.shape, x.dtype),) * 3, (x, g, m, v, scales), static)
            for x, g, m, v in zip(xs, gs, ms, vs, strict=True)
        ]
        x2, m2, v2 = [tree.unflatten(structure, column) for column in zip(*moved, strict=True)]
        return x2, {"iteration": state["iteration"] + 1, "m": m2, "v": v2}

    return Optimiser(init, update)


def cosine(start: float, iterations: int, end: float = 0.0) -> Schedule:
    """From `start` to `end` along half a cosine, then `end`."""
    return lambda i: end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(i / iterations, 1.0)))


def exponential(start: float, factor: float, every: int = 1) -> Schedule:
    """`start` times `factor` for each `every` iterations, smoothly."""
    return lambda i: start * factor ** (i / every)


def warmup(schedule: float | Schedule, iterations: int) -> Schedule:
    """A schedule that is reached linearly over the first iterations."""
    after = _schedule(schedule)
    return lambda i: after(i) * min((i + 1) / iterations, 1.0)

"""The outer step of training: a gradient and an optimiser's step by it, recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml import record
from tinymaml.optim import Optimiser
from tinymaml.tree import Tree

Gradient = Callable[..., tuple[Tree, Tree]]


def outer_step(gradient: Gradient, optimiser: Optimiser, recorded: bool) -> Callable[..., tuple[Tree, Tree, Tree]]:
    """A function take(params, state, *batch) -> (values, params, state), with `state` the optimiser's.

    Args:
        gradient: gradient(params, *batch) -> (values, gradient): the loss, and what else is to be known.
        recorded: replay it from the second call on (see `tinymaml.record`); the bits are the same either way.
    """

    def move(params: Tree, moments: Tree, numbers: Any, *batch: Tree) -> tuple[Tree, Tree, Tree]:
        values, grads = gradient(params, *batch)
        return values, *optimiser.move(grads, moments, params, numbers)

    run: Callable[..., tuple[Tree, Tree, Tree]] | None = None if recorded else move

    def take(params: Tree, state: Tree, *batch: Tree) -> tuple[Tree, Tree, Tree]:
        nonlocal run
        moments = {name: moment for name, moment in state.items() if name != "iteration"}
        arguments = (params, moments, optimiser.numbers(int(state["iteration"])), *batch)
        if run is None:
            run = record(move, *arguments)
        values, params, moments = run(*arguments)
        return values, params, {"iteration": np.asarray(state["iteration"] + 1), **moments}

    return take

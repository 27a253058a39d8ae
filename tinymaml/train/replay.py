"""Steps of training and of evaluation, recorded when they are first taken and replayed from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml import record, tree
from tinymaml.autodiff.tree import Tree
from tinymaml.device import to_device, to_host
from tinymaml.optim import Optimiser

Step = Callable[..., Any]

_PROGRAMS = 4  # kept for a step, each for other shapes


def replayed(step: Step, recorded: bool, device: str = "cpu") -> Step:
    """The same function of pytrees of arrays, to the same bits; as it is, if it is not to be recorded.

    There is a program for each set of shapes; those used last are kept. On a GPU there always is one; arrays come from
    the host and go back to it.
    """
    if device == "gpu":
        there = replayed(step, True)
        return lambda *arguments: to_host(there(*to_device(arguments, device)))
    if not recorded:
        return step
    programs: dict[Any, Step] = {}

    def take(*arguments: Tree) -> Any:
        leaves, structure = tree.flatten(arguments)
        key = (structure, *[(leaf.shape, leaf.dtype) for leaf in leaves])
        program = programs.pop(key, None) or record(step, *arguments)
        programs[key] = program
        if len(programs) > _PROGRAMS:
            del programs[next(iter(programs))]
        return program(*arguments)

    return take


def outer_step(
    gradient: Callable[..., tuple[Tree, Tree]], optimiser: Optimiser, recorded: bool
) -> Callable[..., tuple[Tree, Tree, Tree]]:
    """A function take(params, state, *batch) -> (values, params, state), with `state` the optimiser's.

    Args:
        gradient: gradient(params, *batch) -> (values, gradient): the loss, and what else is to be known.
        recorded: replay it from the second call on; the batches have one shape.
    """

    def move(params: Tree, moments: Tree, numbers: Any, *batch: Tree) -> tuple[Tree, Tree, Tree]:
        values, grads = gradient(params, *batch)
        return values, *optimiser.move(grads, moments, params, numbers)

    run: Step | None = None if recorded else move

    def take(params: Tree, state: Tree, *batch: Tree) -> tuple[Tree, Tree, Tree]:
        nonlocal run
        moments = {name: moment for name, moment in state.items() if name != "iteration"}
        arguments = (params, moments, optimiser.numbers(int(state["iteration"])), *batch)
        if run is None:
            run = record(move, *arguments)
        values, params, moments = run(*arguments)
        return values, params, {"iteration": np.asarray(state["iteration"] + 1), **moments}

    return take

"""Steps of training and of evaluation, recorded when they are first taken and replayed from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        on_device = replayed(step, True)
        return lambda *arguments: to_host(on_device(*to_device(arguments, device)))
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
        recorded: record it when it is first taken and replay it from then on; the batches have one shape.
    """

    def step(params: Tree, state: Tree, *batch: Tree) -> tuple[Tree, Tree, Tree]:
        values, grads = gradient(params, *batch)
        return values, *optimiser.update(grads, state, params)

    if not recorded:
        return step
    program: Step | None = None

    def take(*arguments: Tree) -> Any:
        nonlocal program
        if program is None:
            program = record(step, *arguments)
        return program(*arguments)

    return take

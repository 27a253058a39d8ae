"""A function of pytrees of arrays, recorded when it is first called and replayed from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinymaml.autodiff import tree
from tinymaml.autodiff.tree import Tree
from tinymaml.compile.program import record
from tinymaml.device import to_device, to_host

Step = Callable[..., Any]

_PROGRAMS = 4  # kept for a step, each for other shapes


def replayed(step: Step, recorded: bool = True, device: str = "cpu") -> Step:
    """The same function of pytrees of arrays, to the same bits; as it is, if it is not to be recorded.

    There is a program for each set of shapes; those used last are kept. On a GPU there always is one; arrays come from
    the host and go back to it.
    """
    if device == "gpu":
        there = replayed(step)
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

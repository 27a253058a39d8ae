"""Record a step once, replay it: no autodiff, no shapes, no Python between the launches.

Applying a primitive ends in a kernel that writes into given memory, so what a step does is a list of such calls. It is
the same list for every meta-batch of the same shapes. `record` runs the step once on arrays without values to get it,
and arranges it: what nobody needs is dropped, memory is placed by when it is in use, tasks are kept apart in shards
that fit into the cache, neighbouring elementwise kernels become one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml import trace, tree
from tinymaml.tensor import Tensor, constant, now
from tinymaml.trace import Traced
from tinymaml.tree import Tree

__all__ = ["Program", "record"]


def record(step: Callable[..., Tree], *examples: Tree, threads: int | None = None, copy: bool = True) -> Program:
    """A program that does what `step` does, for arguments like the examples.

    The step runs once, here, on tensors that have shapes and dtypes but no values. So whatever it decides in Python is
    decided for good, and it must not depend on values: `float(x)`, `bool(x)`, `x.item()`, NumPy's functions raise.
    Arrays that the step closes over are read anew in every replay, but for masks as indices, whose places are decided.

    Args:
        step: a function of pytrees of arrays that returns a pytree of arrays, made of tinymaml's functions;
            `meta_value_and_grad`, `adapt`, `grad` and `optimiser.move` are such.
        examples: its arguments: pytrees of arrays, of which only structure, shapes and dtypes count.
        threads: how many to run on; TINYMAML_THREADS, or all cores, if None. The results are the same bits for any.
        copy: return arrays of their own; otherwise views of the program's memory, which the next call overwrites.

    Raises:
        RecordingError: the step asks for values, records a step itself, or returns what depends on an outer variable.
        TypeError: an argument that is no array.
    """
    return Program(step, examples, threads, copy)


class Program:
    """A recorded step; call it like the step. See `record`.

    It may be called from several threads, one at a time. A call that raises leaves nothing behind.
    """

    def __init__(self, step: Callable[..., Tree], examples: tuple[Tree, ...], threads: int | None, copy: bool) -> None:
        if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
            raise ValueError(f"threads must be a whole number >= 1 or None, got {threads!r}")
        self._copy, self._lock = copy, threading.Lock()
        from tinymaml.assemble import Assembly  # here, so that `import tinymaml` stays quick
        from tinymaml.kernels.cpu.threads import count

        leaves, self._structure = tree.flatten(examples)
        for i, leaf in enumerate(leaves):
            _check_array(leaf, tree.place("the arguments", examples, i))
        self._places = [tree.place("the arguments", examples, i) for i in range(len(leaves))]
        inputs = [trace.traced(leaf.shape, leaf.dtype) for leaf in leaves]
        mark = now()
        with trace.tracing() as recorded:
            result = step(*tree.unflatten(self._structure, [constant(x) for x in inputs]))
        found, self._result = tree.flatten(result)
        if any(isinstance(x, Tensor) and x.node.root < mark for x in found):
            raise trace.RecordingError(
                "the step returns a tensor that depends on a variable from outside of it, whose derivative would be "
                "lost: give the variable as an argument, and record the derivative"
            )
        found = [x.data if isinstance(x, Tensor) else x for x in found]
        checked = [array for array, _ in recorded.after]
        workers = count() if threads is None else threads
        self._assembly = Assembly(recorded.calls, found, checked, workers)
        array = self._assembly.layout.array
        self._inputs, self._outputs = [array(x) for x in inputs], [array(x) for x in found]
        self._before = [(array(x), check) for x, check in recorded.before]
        self._after = [(array(x), check) for x, check in recorded.after]

    def __call__(self, *arguments: Tree) -> Tree:
        """What the step returns for these arguments.

        Raises:
            ValueError, TypeError: they are not like the examples; the message names the array that differs.
            and what the step raises for its values, NonFiniteError for one.
        """
        if trace.current() is not None:
            raise trace.RecordingError("a program is called while a step is recorded: record the step it was made of")
        leaves = tree.leaves_like(self._structure, arguments, "the arguments")
        with self._lock:
            for i, (own, leaf) in enumerate(zip(self._inputs, leaves, strict=True)):
                if type(leaf) is not np.ndarray or leaf.shape != own.shape or leaf.dtype != own.dtype:
                    self._refuse(i, own, leaf)
                np.copyto(own, leaf)
            for array, check in self._before:
                check(array)
            for run in self._assembly.runs:
                run()
            if not self._assembly.layout.is_finite():
                for array, check in self._after:
                    check(array)
            found = [x.copy() if self._copy and isinstance(x, np.ndarray) else x for x in self._outputs]
        return tree.unflatten(self._result, found)

    def explain(self) -> str:
        """Launches by kernel and region, operations, bytes, memory, and which elementwise kernels were fused."""
        from tinymaml import explain

        return explain.text(self._assembly)

    def picture(self) -> str:
        """An SVG of its memory: what is in use where, from launch to launch."""
        from tinymaml import explain

        return explain.picture(self._assembly)

    def _refuse(self, i: int, own: Any, leaf: Any) -> None:
        _check_array(leaf, self._places[i])
        if leaf.shape != own.shape or leaf.dtype != own.dtype:
            raise ValueError(
                f"{self._places[i]} is {leaf.shape} {leaf.dtype}, the program was recorded for {own.shape} "
                f"{own.dtype}: record the step again for other shapes"
            )


def _check_array(leaf: Any, place: str) -> None:
    if isinstance(leaf, Tensor | Traced):
        raise TypeError(f"{place} is a tensor: a program has no derivative and takes arrays, record the derivative")
    if not isinstance(leaf, np.ndarray | np.generic):
        raise TypeError(
            f"{place} must be a NumPy array, got {leaf!r}: give a number that changes as an array, one that does not "
            "with functools.partial"
        )

"""Record a step once, replay it: no autodiff, no shapes, no Python between the launches.

Applying a primitive ends in a kernel that writes into given memory, so what a step does is a list of such calls. It is
the same list for every meta-batch of the same shapes. `record` runs the step once on arrays without values to get it,
and arranges it: what nobody needs is dropped, memory is placed by when it is in use, tasks are kept apart in shards
that fit into the cache, neighbouring elementwise kernels become one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml.autodiff import tracing, tree
from tinymaml.autodiff.tensor import Tensor, adopt, constant, host, is_array, now
from tinymaml.autodiff.tracing import Traced
from tinymaml.autodiff.tree import Tree
from tinymaml.kernels.cpu.threads import MOST
from tinymaml.kernels.locks import Lock

__all__ = ["Program", "record"]


def record(step: Callable[..., Tree], *examples: Tree, threads: int | None = None, copy: bool = True) -> Program:
    """A program that does what `step` does, for arguments like the examples.

    The step runs once, here, on tensors that have shapes and dtypes but no values. So whatever it decides in Python is
    decided for good, and it must not depend on values: `float(x)`, `bool(x)`, `x.item()`, NumPy's functions raise.
    Arrays that the step closes over are read anew in every replay, but for masks as indices, whose places are decided.

    Args:
        step: a function of pytrees of arrays that returns a pytree of arrays, made of tinymaml's functions;
            `meta_value_and_grad`, `adapt`, `grad` and `optimiser.update` are such.
        examples: its arguments: pytrees of arrays, of which only structure, shapes and dtypes count, and whether any is
            on a GPU: then the program is one CUDA graph there, and takes arrays from anywhere.
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
        if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST):
            raise ValueError(f"threads must be a whole number from 1 to {MOST}, or None, got {threads!r}")
        self._copy, self._lock = copy, Lock()
        leaves, self._structure = tree.flatten(examples)
        for i, leaf in enumerate(leaves):
            _check_array(leaf, tree.place("the arguments", examples, i))
        self._places = [tree.place("the arguments", examples, i) for i in range(len(leaves))]
        mark = now()
        with tracing.tracing() as recorded:
            inputs = [recorded.input(leaf.shape, leaf.dtype) for leaf in leaves]
            result = step(*tree.unflatten(self._structure, [constant(x) for x in inputs]))
        found, self._result = tree.flatten(result)
        if any(isinstance(x, Tensor) and x.node.root < mark for x in found):
            raise tracing.RecordingError(
                "the step returns a tensor that depends on a variable from outside of it, whose derivative would be "
                "lost: give the variable as an argument, and record the derivative"
            )
        found = [x.data if isinstance(x, Tensor) else x for x in found]
        checked = [array for array, _ in recorded.after]
        self._on_gpu = any(not isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
        self._assembly = _assembly(self._on_gpu, recorded.calls, found, checked, inputs, threads)
        array = self._assembly.array
        self._inputs, self._outputs = [array(x) for x in inputs], [array(x) for x in found]
        self._carried = _carried(examples, result)
        # What the step closed over is looked at where it is.
        self._before = [(array(x) if isinstance(x, Traced) else x, check) for x, check in recorded.before]
        self._after = [(array(x), check) for x, check in recorded.after]

    def __call__(self, *arguments: Tree) -> Tree:
        """What the step returns for these arguments.

        Raises:
            ValueError, TypeError: they are not like the examples; the message names the array that differs.
            and what the step raises for its values, NonFiniteError for one.
        """
        with self._lock:
            self._take(arguments)
            self._assembly.run()
            self._check()
            return self._given()

    def repeat(self, count: int, *arguments: Tree) -> Tree:
        """What the step returns after `count` calls, each but the first with the first part of what it returned before
        in place of its first argument; the others stay.

        On a GPU nothing is read back in between: a call is one launch of a graph, and values are checked at the end.

        Raises:
            ValueError: `count` is not a whole number >= 1.
            TypeError: the step does not return (like its first argument, anything).
            and what a call raises.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"count must be a whole number >= 1, got {count!r}")
        if self._carried is None:
            raise TypeError("repeat: the step must return a pair whose first part is like its first argument")
        carried = list(zip(self._outputs, self._inputs[: self._carried], strict=False))
        with self._lock:
            self._take(arguments)
            if self._on_gpu:
                self._assembly.repeat(count, carried)
                self._check()
                return self._given()
            for i in range(count):
                if i:
                    for own, x in [(own, host(x).copy()) for x, own in carried]:
                        np.copyto(own, x)
                self._assembly.run()
                self._check()
            return self._given()

    def _take(self, arguments: tuple[Tree, ...]) -> None:
        """Copy the arguments in."""
        if tracing.current() is not None:
            raise tracing.RecordingError("a program is called while a step is recorded: record the step it was made of")
        leaves = tree.leaves_like(self._structure, arguments, "the arguments")
        for i, (own, leaf) in enumerate(zip(self._inputs, leaves, strict=True)):
            if type(leaf) is not np.ndarray or leaf.shape != own.shape or leaf.dtype != own.dtype:
                leaves[i] = self._fitting(i, own, leaf)
        self._assembly.write(self._inputs, leaves)
        for array, check in self._before:
            check(host(array))

    def _check(self) -> None:
        if not self._assembly.is_finite():
            for array, check in self._after:
                check(host(array))

    def _given(self) -> Tree:
        """The results."""
        return tree.unflatten(self._result, self._assembly.read(self._outputs) if self._copy else self._outputs)

    def explain(self) -> str:
        """Launches by kernel and region, operations, bytes, memory, and which elementwise kernels were fused."""
        from tinymaml.compile import report

        return report.text(self._assembly)

    def picture(self) -> str:
        """An SVG of its memory: what is in use where, from launch to launch."""
        from tinymaml.compile import report

        return report.picture(self._assembly)

    def _fitting(self, i: int, own: Any, leaf: Any) -> Any:
        """The argument, if it is an array that the program can take."""
        _check_array(leaf, self._places[i])
        leaf = leaf if isinstance(leaf, np.generic) else adopt(leaf)
        if not (self._on_gpu or isinstance(leaf, np.ndarray | np.generic)):
            raise TypeError(
                f"{self._places[i]} is on a GPU, the program was recorded for the CPU: record it with an example there"
            )
        if leaf.shape != own.shape or leaf.dtype != own.dtype:
            raise ValueError(
                f"{self._places[i]} is {leaf.shape} {leaf.dtype}, the program was recorded for {own.shape} "
                f"{own.dtype}: record the step again for other shapes"
            )
        return leaf


def _assembly(on_gpu: bool, calls: Any, found: Any, checked: Any, inputs: Any, threads: int | None) -> Any:
    """Imported here, so that `import tinymaml` stays quick."""
    if on_gpu:
        from tinymaml.compile.lower_gpu import GpuAssembly

        return GpuAssembly(calls, found, checked, inputs)
    from tinymaml.compile.lower_cpu import Assembly
    from tinymaml.kernels.cpu.threads import count

    return Assembly(calls, found, checked, count() if threads is None else threads)


def _carried(examples: tuple[Tree, ...], result: Tree) -> int | None:
    """How many arrays the first argument has, if the first part of the result is like it; None otherwise."""
    if not isinstance(result, tuple) or len(result) != 2 or not examples:
        return None
    (ours, structure), (theirs, other) = tree.flatten(examples[0]), tree.flatten(result[0])
    alike = structure == other and all(
        x.shape == y.shape and x.dtype == y.dtype for x, y in zip(ours, theirs, strict=True)
    )
    return len(ours) if alike else None


def _check_array(leaf: Any, place: str) -> None:
    if isinstance(leaf, Tensor | Traced):
        raise TypeError(f"{place} is a tensor: a program has no derivative and takes arrays, record the derivative")
    if not is_array(leaf) and not isinstance(leaf, np.generic):
        raise TypeError(
            f"{place} must be a NumPy array, got {leaf!r}: give a number that changes as an array, one that does not "
            "with functools.partial"
        )

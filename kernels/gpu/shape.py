"""Views, their adjoints, gather and scatter, joining."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tinymaml.kernels.cpu.shape import identity as identity
from tinymaml.kernels.cpu.shape import reshape as reshape
from tinymaml.kernels.cpu.shape import slice as slice
from tinymaml.kernels.cpu.shape import transpose as transpose
from tinymaml.kernels.gpu import reduce
from tinymaml.kernels.gpu.launch import REAL, WORDS, Plan, blocks, cupy

Arrays = Sequence[Any]
Shape = tuple[int, ...]

_BLOCK = 256

INSTANCES = {
    **{real: (f"scatter<{real}>", f"clear<{real}>") for real in REAL.values()},
    "words": tuple([f"{name}<{word}>" for name in ("gather", "put", "clear") for word in WORDS.values()]),
}


def broadcast_to(x: Any, shape: Shape) -> Any:
    """View with stride 0."""
    return cupy().broadcast_to(x, shape)


def sum_to(plan: Plan, outs: Arrays, ins: Arrays, shape: Shape) -> None:
    """The sum over the leading axes that `shape` lacks and those where it has length 1."""
    reduce.sum_to(plan, outs[0], ins[0])


class _Indexed(NamedTuple):
    """x[index], taken apart.

    Attributes:
        base: x from the first number that plain indices lead to, as a view.
        axes: (length, step in x, steps in each index array) of the result's axes.
        arrays: (array, length and step of the axis of x that it runs over), at most four.
        first, made: the first axis that index arrays make, and how many they make.
    """

    base: Any
    axes: list[tuple[int, int, list[int]]]
    arrays: list[tuple[Any, int, int]]
    first: int
    made: int


def _parse(plan: Plan, x: Any, index: tuple[Any, ...], arrays: Arrays) -> _Indexed:
    rest = iter(arrays)
    plain = (int, type(None), type(...), type(np.s_[:]))
    parts: list[Any] = [part if isinstance(part, plain) else next(rest) for part in index]
    taken = sum(part is not None and part is not ... for part in parts)
    # By identity: an array on a GPU is compared number by number.
    at = next((i for i, part in enumerate(parts) if part is ...), len(parts))
    parts[at : at + 1] = [np.s_[:]] * (x.ndim - taken)
    advanced = bool(arrays)
    if advanced:  # an integer then is an index array of one number
        parts = [np.asarray(part) if isinstance(part, int) else part for part in parts]
    marked = [i for i, part in enumerate(parts) if not isinstance(part, plain)]
    shape = np.broadcast_shapes(*[parts[i].shape for i in marked])
    adjacent = not marked or marked == list(range(marked[0], marked[-1] + 1))
    first = (marked[0] if adjacent else 0) if marked else 0

    base = x[tuple([np.s_[:] if i in marked else part for i, part in enumerate(parts)])]
    axes: list[tuple[int, int, list[int]]] = []
    indices: list[tuple[Any, int, int]] = []
    steps = [stride // x.itemsize for stride in base.strides]
    axis = 0  # of base
    for i, part in enumerate(parts):
        if isinstance(part, int):
            continue
        if i in marked:
            array = plan.upload(part) if isinstance(part, np.ndarray) else part
            indices.append((cupy().broadcast_to(array, shape), base.shape[axis], steps[axis]))
        else:
            axes.append((base.shape[axis], steps[axis], [0] * len(marked)))
        axis += 1
    if len(indices) > 4:
        raise ValueError(f"an index with {len(indices)} arrays: at most 4 are supported on a GPU")
    if not adjacent:
        first = 0
    made = [(n, 0, [array.strides[k] // array.itemsize for array, _, _ in indices]) for k, n in enumerate(shape)]
    axes[first:first] = made if marked else []
    return _Indexed(base, axes, indices, first, len(shape) if marked else 0)


def _table(plan: Plan, indexed: _Indexed, order: Sequence[int]) -> tuple[Any, list[Any]]:
    """(what describes the index to a kernel, the addresses of its arrays), with the result's axes in some order."""
    axes = [indexed.axes[i] for i in order]
    rows = [number for length, step, _ in axes for number in (length, step)]
    for k, (array, length, step) in enumerate(indexed.arrays):
        kind = array.itemsize if array.dtype.kind == "u" else -array.itemsize
        rows += [length, step, kind, *[steps[k] for _, _, steps in axes]]
    pointers = [np.uint64(array.data.ptr) for array, _, _ in indexed.arrays]
    held = [array for array, _, _ in indexed.arrays]
    return plan.upload(np.array(rows or [0], np.int64), held), pointers + [np.uint64(0)] * (4 - len(pointers))


def gather(plan: Plan, outs: Arrays, ins: Arrays, index: tuple[Any, ...]) -> None:
    """x[index]."""
    (y,), (x, *arrays) = outs, ins
    indexed = _parse(plan, x, index, arrays)
    table, pointers = _table(plan, indexed, range(len(indexed.axes)))
    name = f"gather<{WORDS[y.itemsize]}>"
    plan.launch(
        "shape", name, (blocks(y.size, _BLOCK),), _BLOCK, indexed.base, y, table, len(indexed.axes),
        len(indexed.arrays), *pointers, y.size,
    )  # fmt: skip


def _put(plan: Plan, y: Any, g: Any) -> None:
    """y = g, for a y laid out in any way."""
    g = plan.in_order(g)
    rows = [number for n, stride in zip(y.shape, y.strides, strict=True) for number in (n, stride // y.itemsize)]
    name = f"put<{WORDS[y.itemsize]}>"
    plan.launch(
        "shape",
        name,
        (blocks(g.size, _BLOCK),),
        _BLOCK,
        g,
        y,
        plan.upload(np.array(rows or [0], np.int64)),
        y.ndim,
        g.size,
    )


def scatter(plan: Plan, outs: Arrays, ins: Arrays, index: tuple[Any, ...], shape: Shape) -> None:
    """Zeros with g added at [index], in order; the adjoint of gather and of slice."""
    (y,), (g, *arrays) = outs, ins
    name = f"clear<{WORDS[y.itemsize]}>"
    plan.launch("shape", name, (blocks(y.size, _BLOCK),), _BLOCK, y, y.size)
    if not arrays:
        _put(plan, slice(y, index), g)
        return
    indexed = _parse(plan, y, index, arrays)
    made = list(range(indexed.first, indexed.first + indexed.made))
    order = [i for i in range(len(indexed.axes)) if i not in made] + made
    g = plan.in_order(g.transpose(tuple(order)))
    entries = prod(indexed.axes[i][0] for i in made)
    table, pointers = _table(plan, indexed, order)
    inner = g.size // entries if entries else 0
    plan.launch(
        "shape", f"scatter<{REAL[y.dtype]}>", (blocks(inner, _BLOCK),), _BLOCK, g, indexed.base, table, len(order),
        len(indexed.arrays), *pointers, inner, entries,
    )  # fmt: skip


def concatenate(plan: Plan, outs: Arrays, ins: Arrays, axis: int) -> None:
    """Arrays one behind the other."""
    (y,), start = outs, 0
    for x in ins:
        _put(plan, y[(*[np.s_[:]] * axis, np.s_[start : start + x.shape[axis]])], x)
        start += x.shape[axis]

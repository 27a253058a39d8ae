"""Which tiles a product of matrices is computed by, and in how many parts its sum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinymaml.kernels.gpu.launch import REAL, Plan, blocks, cupy, precision

Arrays = Sequence[Any]

_DEPTH = 16  # steps of the sum in a tile
_FULL = 264  # blocks from which a GPU of 132 multiprocessors has enough to do
_NULL = np.uint64(0)  # a pointer
_TASKS = 65535  # at most, in a launch: the grid's third axis is no longer


class Engine(NamedTuple):
    """An engine of products.cuh, and the tile that a block of it computes."""

    name: str
    rows: int
    columns: int
    threads: int


def _simt(real: str, rows: int, columns: int, down: int, depth: int = _DEPTH) -> Engine:
    name = f"Simt<{real}, {rows}, {columns}, {depth}, {down}, 4>"
    return Engine(name, rows, columns, rows // down * (columns // 4))


def _tensor(rows: int, columns: int) -> Engine:
    return Engine(f"Tensor<{rows}, {columns}, {_DEPTH}>", rows, columns, rows * columns // 32)


# The widest tiles first. Each thread of the first has 8 x 4 sums, so that of five instructions in its loop four are
# multiply-adds; the small ones are for products that would not fill the GPU otherwise.
ENGINES = {
    "fp32": (_simt("float", 128, 64, 8), _simt("float", 128, 32, 4), _simt("float", 64, 32, 4)),
    "tf32": (_tensor(64, 64), _tensor(128, 32)),
    "fp64": (_simt("double", 64, 32, 4, 8),),
}
GROUP = {"fp32": "float", "tf32": "tf32", "fp64": "double"}


def instances(kernel: str, *flags: str) -> dict[str, tuple[str, ...]]:
    """The instances of a kernel `kernel<Engine, vector, flags>`, by what is compiled together."""
    ends = [f", {flag}" for flag in flags] or [""]
    return {
        GROUP[kind]: tuple(
            [f"{kernel}<{engine.name}, {v}{end}>" for engine in ENGINES[kind] for v in _vectors(kind) for end in ends]
        )
        for kind in ENGINES
    }


PARTS = {real: (f"add_parts<{real}>",) for real in REAL.values()}


def _vectors(kind: str) -> tuple[int, ...]:
    return (1,) if kind == "fp64" else (4, 1)


def how(dtype: Any) -> str:
    """By which kind of engine numbers of a dtype are multiplied. Raises ValueError if the GPU has no TF32."""
    kind = "fp64" if dtype == np.float64 else precision()
    if kind == "tf32" and int(cupy().cuda.Device().compute_capability) < 80:
        raise ValueError("this GPU has no TF32, which needs compute capability 8.0: take the precision fp32")
    return kind


def engine(kind: str, rows: int, columns: int, tasks: int) -> Engine:
    """The widest tile that is not mostly empty and leaves the GPU enough blocks; else the last, which is smallest."""
    for tile in ENGINES[kind][:-1]:
        across = blocks(columns, tile.columns)
        if columns > tile.columns // 2 and blocks(rows, tile.rows) * across * tasks >= _FULL // 2:
            return tile
    return ENGINES[kind][-1]


@cache
def divisor(by: int) -> np.int64:
    """What divides by a number: a multiplier and a shift, packed. See `Divisor` in products.cuh."""
    shift = (by - 1).bit_length()
    multiplier = ((1 << 32) * ((1 << shift) - by)) // by + 1
    return np.int64(multiplier << 6 | shift)


def vector(arrays: Sequence[tuple[Any, int]], lengths: Sequence[int], kind: str) -> int:
    """How many numbers can be moved at once: 4 if lengths, addresses and steps between tasks are multiples of four."""
    aligned = all(x.data.ptr % 16 == 0 and step % 4 == 0 for x, step in arrays)
    return 4 if aligned and kind != "fp64" and all(n % 4 == 0 for n in lengths) else 1


class Added(NamedTuple):
    """c: the array or a null pointer, and the numbers from task to task and from row to row."""

    array: Any
    step: int
    row: int


def added(plan: Plan, c: Arrays, shape: Sequence[int]) -> Added:
    """What is added to a product of this shape, [tasks, rows ..., columns]: for each task all rows, or one for all."""
    if not c:
        return Added(_NULL, 0, 0)
    (x,) = c
    columns = shape[-1]
    x = x.reshape((1,) * (len(shape) - x.ndim) + x.shape)
    if x.shape[-1] != columns or x.shape[1:-1] not in (tuple(shape[1:-1]), (1,) * (len(shape) - 2)):
        x = plan.copied(cupy().broadcast_to(x, shape))
    x, step = plan.by_task(x)
    return Added(x, step, 0 if all(n == 1 for n in x.shape[1:-1]) else columns)


def multiply(
    plan: Plan,
    family: str,
    kernel: str,
    flags: str,
    operands: Sequence[tuple[Any, int]],
    c: Added,
    out: Any,
    sizes: tuple[int, int, int, int],
    lengths: Sequence[int],
    *more: Any,
    kinds: Sequence[int] = (),
) -> None:
    """Launch a product.

    Args:
        operands: the two, each with the numbers from task to task.
        out: [tasks, ...], in C order.
        sizes: tasks, rows, columns, and steps of the sum.
        lengths: what must be multiples of 4 for four numbers to be moved at once.
        more: further arguments.
        kinds: where rows are of several kinds, how many there are of each, at most; then the tiles of a kind are an
            argument, before `more`.
    """
    tasks, rows, columns, steps = sizes
    if tasks > _TASKS:
        for first in range(0, tasks, _TASKS):
            some = slice(first, min(first + _TASKS, tasks))
            addend = c._replace(array=c.array[some]) if c.step else c
            multiply(
                plan, family, kernel, flags, [(x[some] if step else x, step) for x, step in operands], addend,
                out[some], (some.stop - first, *sizes[1:]), lengths, *more, kinds=kinds,
            )  # fmt: skip
        return
    kind = how(out.dtype)
    tile = engine(kind, rows, columns, tasks)
    v = vector([*operands, (out, 0)], [*lengths, c.step], kind)
    across, tiles = blocks(columns, tile.columns), blocks(kinds[0] if kinds else rows, tile.rows)
    down = tiles * max(1, len(kinds))
    # A product with few tiles and a long sum, as a weight's gradient, is cut along the sum.
    wanted = max(1, _FULL // max(1, across * down * tasks))
    each = blocks(max(1, blocks(steps, wanted)), 4 * _DEPTH) * 4 * _DEPTH
    parts = max(1, blocks(steps, each))
    target = out if parts == 1 else plan.empty((tasks, parts, rows, columns), out.dtype)
    addend = c if parts == 1 else Added(_NULL, 0, 0)
    (a, a_step), (b, b_step) = operands
    name = f"{kernel}<{tile.name}, {v}{flags}>"
    plan.launch(
        family, name, (down, across * parts, tasks), tile.threads, a, b, addend.array, target, a_step, b_step,
        addend.step, addend.row, each, parts, *([tiles] if kinds else []), *more,
    )  # fmt: skip
    if parts > 1:
        count = rows * columns
        plan.launch(
            "products", f"add_parts<{REAL[out.dtype]}>", (blocks(count, 256), tasks), 256, target, c.array, out, parts,
            count, columns, c.step, c.row,
        )  # fmt: skip


INSTANCES = PARTS

"""Reductions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tinymaml.kernels import formulas
from tinymaml.kernels.gpu.launch import REAL, Plan, blocks

Arrays = Sequence[Any]
Shape = tuple[int, ...]

_LANES = (1, 32, 256)
_AXES, _BLOCK, _FILL = 4, 256, 264  # axes that a kernel takes; threads; blocks that keep a GPU busy

INSTANCES = {
    real: (
        *[f"sum<{real}, {lanes}>" for lanes in _LANES],
        f"logsumexp<{real}>",
        *[f"{name}<{real}>" for name in ("max_last", "top_last", "cumsum")],
    )
    for real in REAL.values()
}


def _axes(plan: Plan, x: Any, shape: Shape) -> tuple[Any, list[int], list[int], int]:
    """(x, kept, reduced, entries): lengths but the outermost's and strides, of the axes of x that are kept and of those
    that are not; and how many numbers make up a result.
    """
    lead = x.ndim - len(shape)
    gone = [i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1)]
    described = []
    for axes in ([i for i in range(x.ndim) if i not in gone], gone):
        runs = formulas.collapsed([x.shape[i] for i in axes], [[x.strides[i] for i in axes]])
        if len(runs) > _AXES:
            return _axes(plan, plan.copied(x), shape)
        runs = [(1, [0])] * (_AXES - len(runs)) + runs
        described.append([length for length, _ in runs[1:]] + [stride // x.itemsize for _, (stride,) in runs])
    return x, described[0], described[1], prod(x.shape[i] for i in gone)


def sum_to(plan: Plan, y: Any, x: Any) -> None:
    """y: x summed over the leading axes that y lacks, and over those where it has length 1."""
    x, kept, summed, entries = _axes(plan, x, y.shape)
    # Neighbouring threads read neighbouring numbers: of neighbouring results if these lie side by side.
    lanes = 1 if kept[-1] == 1 or entries < 16 else 32 if entries < 1024 else 256
    width = blocks(y.size, _BLOCK // lanes)
    chunks = max(1, min(_FILL // max(width, 1), entries // (64 * lanes), 64))
    each = blocks(entries, chunks)
    chunks = max(1, blocks(entries, max(each, 1)))
    partial = y if chunks == 1 else plan.empty((chunks, y.size), y.dtype)
    real = REAL[y.dtype]
    plan.launch(
        "reduce", f"sum<{real}, {lanes}>", (width, chunks), _BLOCK, x, partial, y.size, entries, each, *kept, *summed
    )
    if chunks > 1:
        plan.launch(
            "reduce", f"sum<{real}, 1>", (blocks(y.size, _BLOCK),), _BLOCK, partial, y, y.size, chunks, chunks,
            1, 1, 1, 1, 0, 0, 0, 1, 1, 1, y.size, 0, 0, 0,
        )  # fmt: skip


def logsumexp(plan: Plan, outs: Arrays, ins: Arrays, shape: Shape) -> None:
    """log sum exp over the axes where `shape` has length 1, the largest taken out first."""
    (x,), (y,) = ins, outs
    x, kept, summed, entries = _axes(plan, x, shape)
    plan.launch(
        "reduce", f"logsumexp<{REAL[y.dtype]}>", (blocks(y.size, 8),), _BLOCK, x, y, y.size, entries, *kept, *summed
    )


def max_last(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The largest along the last axis and its index, the first one where several are equal."""
    (x,), (y, index) = ins, outs
    if index.dtype != np.int64:
        raise TypeError(f"max_last gives indices of int64, not {index.dtype}")
    x = plan.in_order(x)
    plan.launch("reduce", f"max_last<{REAL[y.dtype]}>", (blocks(y.size, 8),), _BLOCK, x, y, index, y.size, x.shape[-1])


def top_last(plan: Plan, outs: Arrays, ins: Arrays, count: int) -> None:
    """The indices of the `count` largest along the last axis, the largest first, and of equal ones the first."""
    (x,), (index,) = ins, outs
    if index.dtype != np.int64:
        raise TypeError(f"top_last gives indices of int64, not {index.dtype}")
    x, length = plan.in_order(x), x.shape[-1]
    rows = prod(x.shape[:-1])
    plan.launch("reduce", f"top_last<{REAL[x.dtype]}>", (blocks(length, _BLOCK), rows), _BLOCK, x, index, length, count)


def cumsum(plan: Plan, outs: Arrays, ins: Arrays, axis: int, reverse: bool) -> None:
    """The sums of the first 1, 2, ... numbers along an axis, or from the last one on backward."""
    (x,), (y,) = ins, outs
    x, length, inner = plan.in_order(x), x.shape[axis], prod(x.shape[axis + 1 :])
    rows = prod(x.shape[:axis]) * inner
    plan.launch(
        "reduce", f"cumsum<{REAL[x.dtype]}>", (blocks(rows, _BLOCK),), _BLOCK, x, y, rows, length, inner, int(reverse)
    )

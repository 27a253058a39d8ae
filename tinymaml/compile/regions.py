"""Splitting by rows: which calls may run for some rows at a time, and the regions that they form.

Most calls compute row by row: entry t along the first axis of what comes out depends on entry t of what goes in, and on
what is the same for all. Where a step declares its tasks (`tracing.declare_tasks`), the rows are those of the tasks;
otherwise every such axis will do. Calls that pass rows on to each other form a region, which runs from its first call
to its last for a few rows at a time, while their memory is in the cache. Between such regions lie the calls that bring
rows together: sums over tasks, an optimiser's step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinymaml.autodiff.tracing import Call, Traced

# Families whose kernels compute row by row; linear products and sums do under conditions, see `_computes_by_row`.
_BY_ROW = {"conv", "elementwise", "losses", "norm", "pool"}


@dataclass(eq=False)
class Region:
    """Calls in order, which run for some of the rows at a time, or, if `rows` is 0, on all there is."""

    rows: int
    calls: list[Call] = field(default_factory=list)


def split_by_rows(calls: Sequence[Call], tasks: Collection[int], may_split: Callable[[Call], bool]) -> list[Region]:
    """The calls in as few regions as their order allows; `call.row_strides` says what moves in those that are split.

    Args:
        calls: in an order in which they may run.
        tasks: how many tasks the step says it has, several if there are several meta-batches; empty if it says nothing:
            then every first axis that a call computes row by row may be split.
        may_split: whether there is a kernel of the call that can run for some rows.
    """
    counts = set(tasks) or _row_counts(calls)
    # A level of a call is above those that it waits for. Even ones hold what is not split, odd ones what is.
    level: dict[Call, tuple[int, int]] = {}
    for call in calls:
        rows = call.outs[0].shape[0] if call.outs[0].ndim else 0
        split = rows > 1 and rows in counts and may_split(call)
        call.row_strides = row_strides(call, rows) if split else None
        rows = 0 if call.row_strides is None else rows
        least = int(rows > 0)
        for x, stride in zip(call.ins, call.row_strides or [None] * len(call.ins), strict=True):
            if isinstance(x, Traced) and x.root.maker is not None:
                before, of_rows = level[x.root.maker]
                follows = of_rows == rows and (not rows or bool(stride))
                least = max(least, before if follows else before + 1)
        level[call] = least + (least % 2 != (rows > 0)), rows
    regions: dict[tuple[int, int], Region] = {}
    for call in sorted(calls, key=level.__getitem__):
        regions.setdefault(level[call], Region(level[call][1])).calls.append(call)
    return list(regions.values())


def _row_counts(calls: Sequence[Call]) -> set[int]:
    """The lengths of the first axes of what is computed row by row; vectors alone are not worth a region."""
    return {call.outs[0].shape[0] for call in calls if call.outs[0].ndim > 1 and _computes_by_row(call)}


def _computes_by_row(call: Call) -> bool:
    """Whether entry t of the result depends on no other entry than t of the operands that have a first axis like it."""
    if call.kernel == ("shape", "sum_to"):
        return bool(call.ins[0].ndim == call.outs[0].ndim)
    if call.kernel.family == "linear":
        return all(x.ndim == 3 for x in (*call.ins, *call.outs))
    return call.kernel.family in _BY_ROW


def row_strides(call: Call, rows: int) -> list[int | None] | None:
    """For each input the bytes from row to row: 0 if all rows are one, None if it has no axis of rows.

    None in place of the list if the call does not compute row by row, or reads an input across its rows.
    """
    if not _computes_by_row(call) or any(y.ndim == 0 or y.shape[0] != rows for y in call.outs):
        return None
    elementwise = call.kernel.family == "elementwise"
    strides: list[int | None] = []
    for x in call.ins:
        if x.ndim > 0 and x.shape[0] == rows and not (elementwise and x.ndim < call.outs[0].ndim):
            if x.strides[0] != 0 and not _lies_by_row(x, rows):
                return None
            strides.append(x.strides[0])
        elif elementwise or x.ndim == 0 or x.shape[0] == 1:
            strides.append(None)  # broadcast
        else:
            return None
    return strides


def _lies_by_row(x: Any, rows: int) -> bool:
    """Whether row t of an operand lies in the t-th part of its root's memory, cut into as many parts as rows."""
    if not isinstance(x, Traced):
        return True  # its memory is there already, whole
    part = x.root.nbytes // rows
    extent = sum((n - 1) * s for n, s in zip(x.shape[1:], x.strides[1:], strict=True))
    inside = min(x.strides) >= 0 and x.offset + extent + x.itemsize <= part
    return x.strides[0] == part and inside

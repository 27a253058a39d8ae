"""Passes over the calls of a step: dead calls are eliminated, and tasks are kept apart in regions.

Most calls compute task by task: entry t of what comes out depends on entry t of what goes in. Those that do are
gathered in regions which run for a few tasks at a time, from the first call to the last, while their memory is in the
cache. Between such regions lie the calls that bring tasks together: sums over them, an optimiser's step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinymaml.autodiff.tracing import Call, Root, Traced

# Kernels whose first axis is one of entries that do not meet; sums are when they keep that axis.
_APART = {"conv", "elementwise", "linear", "losses", "norm", "pool"}


@dataclass(eq=False)
class Region:
    """Calls in order; those of a region `apart` run task by task."""

    apart: bool
    calls: list[Call] = field(default_factory=list)


def eliminate_dead(calls: Sequence[Call], needed: Iterable[Any]) -> list[Call]:
    """The calls that something needed depends on."""
    roots = {x.root for x in needed if isinstance(x, Traced)}
    found = []
    for call in reversed(calls):
        if any(y.root in roots for y in call.outs):
            roots.update(x.root for x in call.ins if isinstance(x, Traced))
            found.append(call)
    return found[::-1]


def count_tasks(calls: Sequence[Call]) -> int:
    """How many tasks there are: the length of the first axis of most that is computed. 0 if there is no such axis."""
    sizes: Counter[int] = Counter()
    for call in calls:
        if call.name.split(".")[0] in _APART and call.outs[0].ndim > 1:
            sizes[call.outs[0].shape[0]] += call.outs[0].size
    del sizes[1], sizes[0]
    return max(sizes, key=sizes.__getitem__, default=0)


def is_elementwise(call: Call) -> bool:
    """Whether its operands are broadcast to the shape of what comes out."""
    return call.name == "fused" or call.name.startswith("elementwise.")


def has_task_axis(call: Call, x: Any, tasks: int) -> bool:
    """Whether the first axis of an operand is that of the tasks."""
    return x.ndim > 0 and x.shape[0] == tasks and not (is_elementwise(call) and x.ndim < call.outs[0].ndim)


def moves(call: Call, x: Any, tasks: int) -> bool | None:
    """Whether the operand has an entry for each task; False: it is the same for all; None: it is neither."""
    if not has_task_axis(call, x, tasks):
        return None if x.ndim and x.shape[0] != 1 and not is_elementwise(call) else False
    if x.strides[0] == 0:
        return False
    if not isinstance(x, Traced):
        return True
    stride = x.root.nbytes // tasks
    extent = sum((n - 1) * s for n, s in zip(x.shape[1:], x.strides[1:], strict=True))
    inside = min(x.strides) >= 0 and x.offset + extent + x.itemsize <= stride
    return True if x.strides[0] == stride and inside else None


def _keeps_tasks_apart(call: Call, tasks: int) -> bool:
    if any(y.ndim == 0 or y.shape[0] != tasks for y in call.outs):
        return False
    if call.name == "shape.sum_to":
        known = call.ins[0].ndim == call.outs[0].ndim
    elif call.name == "linear.linear":
        known = all(x.ndim == 3 for x in (*call.ins, *call.outs))
    else:
        known = call.name.split(".")[0] in _APART
    ways = {(start(x), moves(call, x, tasks)) for x in call.ins}
    # A kernel that is told addresses alone cannot read one both for each task and for all; a fused one can.
    one_way = is_elementwise(call) or len({own for own, _ in ways}) == len(ways)
    return known and one_way and all(way is not None for _, way in ways)


def start(x: Any) -> Any:
    """Where an operand begins."""
    if isinstance(x, Traced):
        return x.root, x.offset
    return x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else x.data.ptr


def regions(calls: Sequence[Call], tasks: int, may_be_apart: Callable[[Call], bool]) -> list[Region]:
    """The calls in as few regions as their order allows."""
    level: dict[Call, int] = {}  # even: together, odd: apart
    for call in calls:
        apart = tasks > 1 and may_be_apart(call) and _keeps_tasks_apart(call, tasks)
        least = int(apart)
        for x in call.ins:
            if isinstance(x, Traced) and x.root.maker is not None:
                before = level[x.root.maker]
                along = apart == bool(before % 2) and (not apart or moves(call, x, tasks) is True)
                least = max(least, before if along else before + 1)
        level[call] = least + (least % 2 != apart)
    found: dict[int, Region] = {}
    for call in sorted(calls, key=level.__getitem__):
        found.setdefault(level[call], Region(level[call] % 2 == 1)).calls.append(call)
    return list(found.values())


def read(calls: Iterable[Call]) -> set[Root]:
    """The roots that calls read."""
    return {x.root for call in calls for x in call.ins if isinstance(x, Traced)}


def is_whole(x: Any) -> bool:
    """Whether an operand is all of its root, in order."""
    return isinstance(x, Traced) and x.shape == x.root.shape and x.flags.c_contiguous and x.offset == 0


def operand_key(x: Any) -> Any:
    """The same for operands that are the same look at the same memory; along an axis of length 1 any stride is."""
    return start(x), x.shape, tuple([0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)])

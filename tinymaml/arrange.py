"""From the calls of a step to a program: what is dead goes, tasks are kept apart, neighbours fuse, memory is placed.

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

from tinymaml.trace import Call, Root, Traced

# Kernels whose first axis is one of entries that do not meet; sums are when they keep that axis.
_APART = {"conv", "elementwise", "linear", "losses", "norm", "pool"}

ALIGN = 64  # bytes: a line of the cache
MOST = 16  # calls in a group, and arrays that it reads: more would not stay in registers


@dataclass(eq=False)
class Region:
    """Calls in order; those of a region `apart` run task by task."""

    apart: bool
    calls: list[Call] = field(default_factory=list)


def alive(calls: Sequence[Call], needed: Iterable[Any]) -> list[Call]:
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


def fuse(region: Region, fusable: Callable[[Call], bool], needed: set[Root]) -> None:
    """Make one call of neighbouring elementwise ones over the same shape, where they read the same or each other.

    `needed` are the roots that are read outside of the region.
    """
    items: list[list[Call]] = []
    place: dict[Call, int] = {}
    open_groups: dict[tuple[int, ...], list[int]] = {}
    for call in region.calls:
        joined = None
        if fusable(call):
            same_shape = open_groups.setdefault(call.outs[0].shape, [])
            joined = next((i for i in reversed(same_shape) if _may_join(call, i, items, place)), None)
            if joined is None:
                same_shape.append(len(items))
        if joined is None:
            items.append([])
        place[call] = len(items) - 1 if joined is None else joined
        items[place[call]].append(call)
    readers: dict[Root, set[int]] = {}
    for call, i in place.items():
        for x in call.ins:
            if isinstance(x, Traced):
                readers.setdefault(x.root, set()).add(i)
    region.calls = [
        _as_one(i, group, readers, needed) if fusable(group[0]) else group[0] for i, group in enumerate(items)
    ]


def _may_join(call: Call, at: int, items: list[list[Call]], place: dict[Call, int]) -> bool:
    group = items[at]
    if len(group) >= MOST:
        return False
    read = {_memory(x) for part in group for x in part.ins}
    shares = False
    for x in call.ins:
        maker = x.root.maker if isinstance(x, Traced) else None
        if maker is not None and place.get(maker) == at:
            if not is_whole(x):
                return False
            shares = True
        elif maker is not None and place.get(maker, -1) > at:
            return False
        shares = shares or (x.ndim > 0 and _memory(x) in read)
    own = {_memory(x) for x in call.ins}
    return shares and len(read | own) <= MOST


def _memory(x: Any) -> Any:
    return x.root if isinstance(x, Traced) else id(x)


def _as_one(number: int, group: list[Call], readers: dict[Root, set[int]], needed: set[Root]) -> Call:
    made = {y.root for call in group for y in call.outs}
    outs = [y for call in group for y in call.outs if y.root in needed or readers.get(y.root, set()) - {number}]
    ins: dict[Any, Any] = {}
    for call in group:
        for x in call.ins:
            if not (isinstance(x, Traced) and x.root in made):
                ins.setdefault(operand_key(x), x)
    fused = Call("fused", outs, list(ins.values()), {"parts": group})
    for y in outs:
        y.root.maker = fused
    return fused


def operand_key(x: Any) -> Any:
    """The same for operands that are the same look at the same memory; along an axis of length 1 any stride is."""
    return start(x), x.shape, tuple([0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)])


def place(intervals: Sequence[tuple[float, float, int]]) -> tuple[list[int], int]:
    """Where blocks (first use, last use, bytes) may lie in one stretch of memory; and how long it is.

    Blocks that are in use at the same time do not overlap. The largest are placed first, each as low as it fits.
    """
    offsets = [0] * len(intervals)
    placed: list[int] = []
    total = 0
    for i in sorted(range(len(intervals)), key=lambda i: -intervals[i][2]):
        first, last, size = intervals[i]
        size = -(-size // ALIGN) * ALIGN
        at = 0
        for j in placed:  # in the order of their offsets
            other_first, other_last, other = intervals[j]
            if other_first <= last and first <= other_last:
                if offsets[j] - at >= size:
                    break
                at = max(at, offsets[j] + -(-other // ALIGN) * ALIGN)
        offsets[i] = at
        total = max(total, at + size)
        placed.insert(int(np.searchsorted([offsets[j] for j in placed], at)), i)
    return offsets, total

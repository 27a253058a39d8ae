"""Fusion: neighbouring elementwise calls over one shape become one call, whose kernel is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import passes
from tinymaml.compile.passes import Region
from tinymaml.kernels.formulas import Group, Operand, Step, broadcast_strides

MOST = 16  # calls in a group, and arrays that it reads: more would not stay in registers


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
            if not passes.is_whole(x):
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
                ins.setdefault(passes.operand_key(x), x)
    fused = Call("fused", outs, list(ins.values()), {"parts": group})
    for y in outs:
        y.root.maker = fused
    return fused


def group_of(call: Call, array: Callable[[Any], Any] = lambda x: x) -> Group:
    """A fused call: its operands are the call's inputs, its results the call's outputs.

    `array` gives an operand as it lies where the kernel runs, which for what a step closed over need not be as here.
    """
    full = call.outs[0].shape or (1,)
    # Threads share out the first axis: of one large task it is the next one that they can.
    drop = next((i for i, n in enumerate(full) if n != 1), len(full) - 1)
    shape = full[drop:]
    number: dict[Any, int] = {passes.operand_key(x): i for i, x in enumerate(call.ins)}
    operands = [Operand(x.dtype, broadcast_strides(array(x), full)[drop:]) for x in call.ins]
    steps = []
    for i, part in enumerate(call.static["parts"]):
        own = tuple([number[passes.operand_key(x)] for x in part.ins])
        steps.append(Step(part.name.split(".")[1], own, part.outs[0].dtype, tuple(part.static.items())))
        number[passes.operand_key(part.outs[0])] = len(operands) + i
    results = tuple([number[passes.operand_key(y)] for y in call.outs])
    return Group(shape, tuple(operands), tuple(steps), results)

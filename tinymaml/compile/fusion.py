"""Fusion: neighbouring elementwise calls over one shape become one call, whose kernel is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import passes
from tinymaml.kernels.formulas import Group, Operand, Step, broadcast_strides
from tinymaml.kernels.names import KernelName

MOST = 16  # calls in a group, and arrays that it reads: more would not stay in registers

FUSED = KernelName("elementwise", "fused")


@dataclass(eq=False)
class FusedCall(Call):
    """A call of a generated kernel, which does what its parts do."""

    parts: list[Call] = field(default_factory=list)


def fuse(calls: Sequence[Call], fusable: Callable[[Call], bool], needed: set[Root]) -> list[Call]:
    """The calls, neighbouring elementwise ones over the same shape as one, where they read the same or each other.

    Args:
        calls: those of one region, in order.
        fusable: whether a kernel that does what the call does can be generated.
        needed: the roots that are read outside of the region.
    """
    groups: list[list[Call]] = []
    group_of_call: dict[Call, int] = {}
    open_groups: dict[tuple[int, ...], list[int]] = {}  # by the shape that their calls compute
    for call in calls:
        joined = None
        if fusable(call):
            same_shape = open_groups.setdefault(call.outs[0].shape, [])
            joined = next((i for i in reversed(same_shape) if _may_join(call, i, groups, group_of_call)), None)
            if joined is None:
                same_shape.append(len(groups))
        if joined is None:
            groups.append([])
        group_of_call[call] = len(groups) - 1 if joined is None else joined
        groups[group_of_call[call]].append(call)
    readers: dict[Root, set[int]] = {}
    for call, i in group_of_call.items():
        for x in call.ins:
            if isinstance(x, Traced):
                readers.setdefault(x.root, set()).add(i)
    return [_fused(i, group, readers, needed) if fusable(group[0]) else group[0] for i, group in enumerate(groups)]


def _may_join(call: Call, number: int, groups: list[list[Call]], group_of_call: dict[Call, int]) -> bool:
    group = groups[number]
    if len(group) >= MOST:
        return False
    read = {_memory(x) for part in group for x in part.ins}
    shares = False
    for x in call.ins:
        maker = x.root.maker if isinstance(x, Traced) else None
        if maker is not None and group_of_call.get(maker) == number:
            if not passes.is_whole(x):
                return False
            shares = True
        elif maker is not None and group_of_call.get(maker, -1) > number:
            return False
        shares = shares or (x.ndim > 0 and _memory(x) in read)
    return shares and len(read | {_memory(x) for x in call.ins}) <= MOST


def _memory(x: Any) -> Any:
    return x.root if isinstance(x, Traced) else id(x)


def _fused(number: int, group: list[Call], readers: dict[Root, set[int]], needed: set[Root]) -> FusedCall:
    made = {y.root for call in group for y in call.outs}
    outs = [y for call in group for y in call.outs if y.root in needed or readers.get(y.root, set()) - {number}]
    ins: dict[Any, tuple[Any, int | None]] = {}
    for call in group:
        for x, stride in zip(call.ins, call.row_strides or [None] * len(call.ins), strict=True):
            if not (isinstance(x, Traced) and x.root in made):
                ins.setdefault(passes.operand_key(x), (x, stride))
    row_strides = None if group[0].row_strides is None else [stride for _, stride in ins.values()]
    fused = FusedCall(FUSED, outs, [x for x, _ in ins.values()], row_strides=row_strides, parts=group)
    for y in outs:
        y.root.maker = fused
    return fused


def group_of(call: FusedCall, array: Callable[[Any], Any] = lambda x: x) -> Group:
    """What the kernel of a fused call computes: its operands are the call's inputs, its results the call's outputs.

    `array` gives an operand as it lies where the kernel runs, which for what a step closed over need not be as here.
    """
    full = call.outs[0].shape or (1,)
    # Threads share out the first axis: of one large task it is the next one that they can.
    drop = next((i for i, n in enumerate(full) if n != 1), len(full) - 1)
    shape = full[drop:]
    values: dict[Any, int] = {passes.operand_key(x): i for i, x in enumerate(call.ins)}
    operands = [Operand(x.dtype, broadcast_strides(array(x), full)[drop:]) for x in call.ins]
    steps = []
    for i, part in enumerate(call.parts):
        arguments = tuple([values[passes.operand_key(x)] for x in part.ins])
        steps.append(Step(part.kernel.name, arguments, part.outs[0].dtype, tuple(part.static.items())))
        values[passes.operand_key(part.outs[0])] = len(operands) + i
    results = tuple([values[passes.operand_key(y)] for y in call.outs])
    return Group(shape, tuple(operands), tuple(steps), results)

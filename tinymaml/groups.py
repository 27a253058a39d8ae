"""Fused calls as the generators of elementwise kernels take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinymaml import arrange
from tinymaml.kernels.formulas import Group, Operand, Step, broadcast_strides
from tinymaml.trace import Call


def group_of(call: Call, array: Callable[[Any], Any] = lambda x: x) -> Group:
    """A fused call: its operands are the call's inputs, its results the call's outputs.

    `array` gives an operand as it lies where the kernel runs, which for what a step closed over need not be as here.
    """
    full = call.outs[0].shape or (1,)
    # Threads share out the first axis: of one large task it is the next one that they can.
    drop = next((i for i, n in enumerate(full) if n != 1), len(full) - 1)
    shape = full[drop:]
    number: dict[Any, int] = {arrange.operand_key(x): i for i, x in enumerate(call.ins)}
    operands = [Operand(x.dtype, broadcast_strides(array(x), full)[drop:]) for x in call.ins]
    steps = []
    for i, part in enumerate(call.static["parts"]):
        own = tuple([number[arrange.operand_key(x)] for x in part.ins])
        steps.append(Step(part.name.split(".")[1], own, part.outs[0].dtype, tuple(part.static.items())))
        number[arrange.operand_key(part.outs[0])] = len(operands) + i
    results = tuple([number[arrange.operand_key(y)] for y in call.outs])
    return Group(shape, tuple(operands), tuple(steps), results)

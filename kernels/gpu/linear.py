"""Products of stacks of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tinymaml.kernels.gpu import products
from tinymaml.kernels.gpu.launch import Plan, cupy

Arrays = Sequence[Any]

_FLAGS = {(ta, tb): f"{str(ta).lower()}, {str(tb).lower()}" for ta in (False, True) for tb in (False, True)}

INSTANCES = products.instances("linear", *_FLAGS.values())


def linear(plan: Plan, outs: Arrays, ins: Arrays, ta: bool, tb: bool) -> None:
    """op(a) op(b) + c, the last if given."""
    (y,), (a, b, *c) = outs, ins
    lead, (rows, columns), steps = y.shape[:-2], y.shape[-2:], a.shape[-2 if ta else -1]
    tasks = prod(lead)
    operands = [_stack(plan, x, lead) for x in (a, b)]
    if y.ndim != 3:
        c = [plan.copied(cupy().broadcast_to(x, y.shape)).reshape((tasks, rows, columns)) for x in c]
    plus = products.added(plan, c, (tasks, rows, columns))
    lengths = (rows if ta else steps, steps if tb else columns, columns)
    sizes = tasks, rows, columns, steps
    flags, out = f", {_FLAGS[ta, tb]}", y.reshape((tasks, rows, columns))
    products.multiply(plan, "linear", "linear", flags, operands, plus, out, sizes, lengths, *sizes[1:])


def _stack(plan: Plan, x: Any, lead: tuple[int, ...]) -> tuple[Any, int]:
    """A stack of matrices as one axis of them, and the numbers from one to the next, 0 if all are one."""
    if prod(x.shape[:-2]) == 1:
        return plan.in_order(x), 0
    if x.shape[:-2] != lead:
        x = plan.copied(cupy().broadcast_to(x, (*lead, *x.shape[-2:])))
    return plan.by_task(x if x.ndim == 3 else plan.in_order(x).reshape((prod(x.shape[:-2]), *x.shape[-2:])))

"""Batch normalisation, alone or followed by max-pooling: sums over each channel, and what follows from them.

Each is two launches of one kernel, or one where a block is enough for a task; see `norm.cuh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

from tinymaml.kernels.cpu.norm import named
from tinymaml.kernels.gpu.launch import Plan, blocks
from tinymaml.kernels.gpu.vectors import KINDS, entries, flat, kind, width

Arrays = Sequence[Any]
Given = tuple[bool, ...]
Pair = tuple[int, int]

_VALUE, *_DERIVATIVES = (
    "batch_norm<{}, {}>",
    *[f"derivative<{{}}, {which}, {{}}>" for which in ("TANGENT", "GRADIENT", "HESSIAN")],
)
_TANGENT, _GRADIENT, _HESSIAN = _DERIVATIVES

INSTANCES = {
    f"{real}{wide}": tuple(
        name.format(f"{real}, {wide}", pools) for name in (_VALUE, *_DERIVATIVES) for pools in ("true", "false")
    )
    for real, wide in KINDS
}

_BLOCK = 256
_GROUP = 32  # channels of a block: 128 bytes of float32
_BLOCKS = 528  # keep the largest GPUs busy: four for each of their multiprocessors
_PARTS = 64  # chunks of a task, at most: every block adds up all their sums
_SHORT, _WHOLE = 4, 16  # pixels of a thread: in a chunk, at least; in a task that is not worth two launches
_ADDS, _APPLIES = 1, 2


class _Work:
    """How x[T, ..., C] is divided among blocks and threads."""

    def __init__(self, x: Any, wide: int, pools: bool) -> None:
        tasks, channels = x.shape[0], x.shape[-1]
        count = prod(x.shape[1:-1])
        height, across = x.shape[2:4] if pools else (1, 1)
        items = x.shape[1] * blocks(height, 2) * blocks(across, 2) if pools else count
        lanes = blocks(channels, wide)
        groups = blocks(lanes, _GROUP // wide)
        lanes = blocks(lanes, groups)
        pixels = blocks(count, _BLOCK // lanes)  # of a thread, were there one block
        few = pixels <= _WHOLE
        chunks = 1 if few else min(_PARTS, max(_BLOCKS // (tasks * groups), 1), blocks(pixels, _SHORT))
        each = blocks(items, chunks)
        self.grid = (tasks, blocks(items, each), groups)
        self.arguments = (height, across, channels, items, each, lanes)

    def launch(self, plan: Plan, name: str, sums: int, *arguments: Any, known: bool = False) -> None:
        """Both passes; without the first if the sums are `known` to be 0: then there are no parts to add."""
        tasks, chunks, _ = self.grid
        passes = [(chunks, _ADDS), (chunks, _APPLIES)] if chunks > 1 else [(1, _ADDS | _APPLIES)]
        if known:
            passes = [(0, _APPLIES)]
        channels = self.arguments[2]
        parts = plan.empty((tasks, chunks, sums, channels) if len(passes) > 1 else (0,), arguments[0].dtype)
        for count, which in passes:
            plan.launch("norm", name, self.grid, _BLOCK, *arguments, parts, count, which, *self.arguments)


def _instance(name: str, x: Any, wide: int, pools: bool) -> str:
    return name.format(kind(x.dtype, wide), str(pools).lower())


def can_pool(shape: Sequence[int], window: Pair, stride: Pair, padding: Any) -> bool:
    """Whether there are kernels that pool as they go, for images x[T, N, H, W, C] and these windows."""
    disjoint = (window, stride, padding) == ((2, 2), (2, 2), ((0, 0), (0, 0)))
    return disjoint and 0 not in shape and min(shape[2:4]) >= 2


def batch_norm(plan: Plan, outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """y; mean and rstd of every task's channels."""
    y, *statistics = outs
    _value(plan, [y], statistics, ins, eps, rectified)


def batch_norm_pool(plan: Plan, outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """max_pool(y) over windows of 2 x 2 that do not overlap, and their places; mean and rstd."""
    _value(plan, outs[:2], outs[2:], ins, eps, rectified)


def _value(plan: Plan, ys: Arrays, statistics: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """`ys`: y, or what is pooled and its places."""
    x, y, pools = ins[0], ys[0], len(ys) == 2
    if not x.size:
        return
    operands = [plan.by_task(x) for x in ins]
    wide = width(x.shape[-1], *operands, *[entries(y) for y in ys])
    static = (x.dtype.type(eps), x.dtype.type(0 if rectified else -inf))
    images = (y, ys[-1], entries(y)[1])  # without pooling nothing is written to the places
    name = _instance(_VALUE, x, wide, pools)
    _Work(x, wide, pools).launch(plan, name, 3, *flat(operands), *static, *images, *statistics)


def _derivative(
    plan: Plan,
    name: str,
    outs: Arrays,
    ins: dict[str, Any],
    tangents: dict[str, Any],
    rectified: bool,
) -> None:
    """`ins` by name, with the places if maxima are pooled; of the tangents those that are given."""
    x, pools = ins["x"], "places" in ins
    if not x.size:
        return
    laid = {key: plan.by_task(value) for key, value in ins.items()}
    moved = {key: plan.by_task(value) for key, value in tangents.items()}
    x_laid, none = laid["x"], laid["mean"]
    g = laid.get("g", x_laid)  # in place of what there is not something that is read anyway: its factor is 0
    images = [x_laid, moved.get("x", x_laid), g, moved.get("g", g), laid.get("places", x_laid)]
    rest = [laid["gamma"], laid["beta"], none, laid["rstd"], moved.get("gamma", none), moved.get("beta", none)]
    wide = width(x.shape[-1], *images, *rest, *map(entries, outs))
    given = sum(1 << i for i, key in enumerate(("x", "gamma", "beta", "g")) if key in tangents)
    _Work(x, wide, pools).launch(
        plan,
        _instance(name, x, wide, pools),
        7 if name == _HESSIAN else 2,
        *flat([*images, *rest]),
        given,
        int(rectified),
        prod(x.shape[1:-1]),
        *entries(outs[0]),
        *(outs[1:] or (outs[0], outs[0])),  # a tangent has no others
        known=name == _TANGENT and "x" not in tangents,
    )


_POINT = ("x", "gamma", "beta", "mean", "rstd")
_WITH_G = ("x", "gamma", "beta", "g", "mean", "rstd")


def batch_norm_tangent(plan: Plan, outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of y along those of (vx, vgamma, vbeta) that are given."""
    _derivative(plan, _TANGENT, outs, dict(zip(_POINT, ins, strict=False)), named(given, ins[5:]), rectified)


def batch_norm_tangent_pool(plan: Plan, outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of max_pool(y); the last input are the places."""
    point = {**dict(zip(_POINT, ins, strict=False)), "places": ins[-1]}
    _derivative(plan, _TANGENT, outs, point, named(given, ins[5:-1]), rectified)


def batch_norm_gradient(plan: Plan, outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """(dx, dgamma, dbeta) of <y, g>."""
    _derivative(plan, _GRADIENT, outs, dict(zip(_WITH_G, ins, strict=True)), {}, rectified)


def batch_norm_gradient_pool(plan: Plan, outs: Arrays, ins: Arrays, eps: float, rectified: bool) -> None:
    """(dx, dgamma, dbeta) of <max_pool(y), g>; the last input are the places."""
    _derivative(plan, _GRADIENT, outs, dict(zip((*_WITH_G, "places"), ins, strict=True)), {}, rectified)


def batch_norm_hessian(plan: Plan, outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of (dx, dgamma, dbeta) along those of (vx, vgamma, vbeta, vg) that are given."""
    _derivative(plan, _HESSIAN, outs, dict(zip(_WITH_G, ins, strict=False)), named(given, ins[6:]), rectified)


def batch_norm_hessian_pool(plan: Plan, outs: Arrays, ins: Arrays, given: Given, eps: float, rectified: bool) -> None:
    """The derivative of these; the last input are the places."""
    point = {**dict(zip(_WITH_G, ins, strict=False)), "places": ins[-1]}
    _derivative(plan, _HESSIAN, outs, point, named(given, ins[6:-1]), rectified)

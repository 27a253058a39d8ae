"""Pairs of kernels that are one: batch normalisation of images followed by max-pooling, and all their derivatives.

Each pair passes a large image from one kernel to the other, through memory. The kernel that does both keeps some rows
of it in the first cache. Which pairs are there shows only in the calls of a step; no primitive knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import passes

CanPool = Callable[..., bool]  # (shape of the images, window, stride, padding)

_G = 3  # where the cotangent stands among the inputs of the gradient and of the Hessian product


def join(calls: Sequence[Call], needed: set[Root], can_pool: CanPool) -> list[Call]:
    """The calls, those of a pair as one. `needed` are the roots that are read when all is done."""
    readers: dict[Root, int] = dict.fromkeys(needed, 1)
    for call in calls:
        for x in call.ins:
            if isinstance(x, Traced):
                readers[x.root] = readers.get(x.root, 0) + 1
    found: list[Call | None] = list(calls)
    place = {call: i for i, call in enumerate(calls)}
    for i, call in enumerate(calls):
        if call.name in ("norm.batch_norm_gradient", "norm.batch_norm_hessian"):
            found[i] = _with_cotangent(call, can_pool) or call
            continue
        maker = _maker(call.ins[0]) if call.name in ("pool.max_pool", "pool.pool_take") else None
        if maker is None or readers[call.ins[0].root] > 1 or not _fits(call, call.ins[0].shape, can_pool):
            continue
        if call.name == "pool.max_pool" and maker.name == "norm.batch_norm" and maker.outs[0].root is call.ins[0].root:
            # Where the first was: its mean and rstd may be read before the second.
            found[place[maker]] = _made("norm.batch_norm_pool", [*call.outs, *maker.outs[1:]], maker.ins, maker.static)
            found[i] = None
        elif call.name == "pool.pool_take" and maker.name == "norm.batch_norm_tangent":
            ins = [*maker.ins, call.ins[1]]
            found[i] = _made("norm.batch_norm_tangent_pool", call.outs, ins, maker.static)
            found[place[maker]] = None
    return [call for call in found if call is not None]


def _maker(x: Any) -> Call | None:
    """The call that made all of x."""
    return x.root.maker if passes.is_whole(x) else None


def _fits(call: Call, shape: Sequence[int], can_pool: CanPool) -> bool:
    return can_pool(tuple(shape), *[call.static[name] for name in ("window", "stride", "padding")])


def _made(name: str, outs: Sequence[Any], ins: Sequence[Any], static: dict[str, Any]) -> Call:
    call = Call(name, list(outs), list(ins), static)
    for y in outs:
        y.root.maker = call
    return call


def _with_cotangent(call: Call, can_pool: CanPool) -> Call | None:
    """A gradient or Hessian product whose cotangents were put in place of maxima; None if they were not."""
    cotangents = [_G, len(call.ins) - 1] if call.static.get("given", (False,))[-1] else [_G]
    puts = [_maker(call.ins[i]) for i in cotangents]
    first = puts[0]
    if first is None or not _fits_put(first, call, can_pool):
        return None
    if any(put is None or put.name != first.name or not _same(put.ins[1], first.ins[1]) for put in puts):
        return None
    ins = list(call.ins)
    for i, put in zip(cotangents, puts, strict=True):
        ins[i] = put.ins[0]  # type: ignore[union-attr]  # none is missing
    return _made(f"{call.name}_pool", call.outs, [*ins, first.ins[1]], call.static)


def _fits_put(put: Call, call: Call, can_pool: CanPool) -> bool:
    return put.name == "pool.pool_put" and _fits(put, call.ins[0].shape, can_pool)


def _same(x: Any, y: Any) -> bool:
    return bool(passes.operand_key(x) == passes.operand_key(y))

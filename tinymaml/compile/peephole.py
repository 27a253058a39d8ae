"""A peephole pass: batch normalisation of images followed by max-pooling, and all derivatives, as one kernel each.

The two kernels pass a large image on through memory. The one that does both keeps some rows of it in the first cache.
Where the two follow each other shows only in the calls of a step; no primitive knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import passes
from tinymaml.kernels.names import KernelName

CanPool = Callable[..., bool]  # (shape of the images, window, stride, padding)

_COTANGENT = 3  # where it stands among the inputs of the gradient and of the Hessian product


def _norm(name: str) -> KernelName:
    return KernelName("norm", name)


_MAX_POOL, _TAKE, _PUT = (KernelName("pool", name) for name in ("max_pool", "pool_take", "pool_put"))


def merge_pooling(calls: Sequence[Call], needed: set[Root], can_pool: CanPool) -> list[Call]:
    """The calls, batch norm and the max-pooling of its result as one. `needed` are the roots read at the end."""
    readers: dict[Root, int] = dict.fromkeys(needed, 1)
    for call in calls:
        for x in call.ins:
            if isinstance(x, Traced):
                readers[x.root] = readers.get(x.root, 0) + 1
    merged: list[Call | None] = list(calls)
    index = {call: i for i, call in enumerate(calls)}
    for i, call in enumerate(calls):
        if call.kernel in (_norm("batch_norm_gradient"), _norm("batch_norm_hessian")):
            merged[i] = _with_cotangent(call, can_pool) or call
            continue
        maker = _maker(call.ins[0]) if call.kernel in (_MAX_POOL, _TAKE) else None
        if maker is None or readers[call.ins[0].root] > 1 or not _fits(call, call.ins[0].shape, can_pool):
            continue
        if call.kernel == _MAX_POOL and maker.kernel == _norm("batch_norm") and maker.outs[0].root is call.ins[0].root:
            # Where the first was: its mean and rstd may be read before the second.
            merged[index[maker]] = _call(
                _norm("batch_norm_pool"), [*call.outs, *maker.outs[1:]], maker.ins, maker.static
            )
            merged[i] = None
        elif call.kernel == _TAKE and maker.kernel == _norm("batch_norm_tangent"):
            ins = [*maker.ins, call.ins[1]]
            merged[i] = _call(_norm("batch_norm_tangent_pool"), call.outs, ins, maker.static)
            merged[index[maker]] = None
    return [call for call in merged if call is not None]


def _maker(x: Any) -> Call | None:
    """The call that made all of x."""
    return x.root.maker if passes.is_whole(x) else None


def _fits(call: Call, shape: Sequence[int], can_pool: CanPool) -> bool:
    return can_pool(tuple(shape), *[call.static[name] for name in ("window", "stride", "padding")])


def _call(kernel: KernelName, outs: Sequence[Any], ins: Sequence[Any], static: dict[str, Any]) -> Call:
    call = Call(kernel, list(outs), list(ins), static)
    for y in outs:
        y.root.maker = call
    return call


def _with_cotangent(call: Call, can_pool: CanPool) -> Call | None:
    """A gradient or Hessian product whose cotangents were put in place of maxima; None if they were not."""
    cotangents = [_COTANGENT, len(call.ins) - 1] if call.static.get("given", (False,))[-1] else [_COTANGENT]
    puts = [_maker(call.ins[i]) for i in cotangents]
    first = puts[0]
    if first is None or not _fits_put(first, call, can_pool):
        return None
    if any(put is None or put.kernel != first.kernel or not _same(put.ins[1], first.ins[1]) for put in puts):
        return None
    ins = list(call.ins)
    for i, put in zip(cotangents, puts, strict=True):
        ins[i] = put.ins[0]  # type: ignore[union-attr]  # none is missing
    return _call(_norm(f"{call.kernel.name}_pool"), call.outs, [*ins, first.ins[1]], call.static)


def _fits_put(put: Call, call: Call, can_pool: CanPool) -> bool:
    return put.kernel == _PUT and _fits(put, call.ins[0].shape, can_pool)


def _same(x: Any, y: Any) -> bool:
    return bool(passes.operand_key(x) == passes.operand_key(y))

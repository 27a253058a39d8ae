"""Pooling of images: a thread for every channel, or four of them, of a window, or of a pixel in the adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import Plan, blocks
from tinymaml.kernels.gpu.vectors import KINDS, entries, flat, kind, width

Arrays = Sequence[Any]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_BLOCK = 256
_PLACES = {np.dtype(np.int8): "signed char", np.dtype(np.int32): "int"}
_WINDOWS, _PIXELS = "windows", "pixels"
_KERNELS = {"LARGEST": _WINDOWS, "TAKE": _WINDOWS, "MEAN": _WINDOWS, "PUT": _PIXELS, "SPREAD": _PIXELS}


def _instance(which: str, numbers: str, places: Any) -> str:
    """`numbers`: the type and how many at once."""
    return f"{_KERNELS[which]}<{numbers}, {_PLACES[places]}, {which}>"


INSTANCES = {
    f"{real}{wide}": tuple(
        _instance(which, f"{real}, {wide}", places)
        for which in _KERNELS
        for places in (_PLACES if which in ("LARGEST", "TAKE", "PUT") else [np.dtype(np.int8)])
    )
    for real, wide in KINDS
}


def _launch(
    plan: Plan,
    which: str,
    outs: Arrays,
    ins: Arrays,
    image: Any,
    pooled: Any,
    window: Pair,
    stride: Pair,
    padding: Padding,
) -> None:
    """`image` and `pooled` are those of the arrays with a number for each pixel and for each window."""
    if not outs[0].size:
        return
    operands = [plan.by_task(x) for x in ins]
    channels = image.shape[-1]
    wide = width(channels, *operands, *map(entries, outs))
    x, at = operands[0], operands[-1]  # without places these are not read
    places = next((a.dtype for a in (*ins, *outs) if a.dtype in _PLACES), np.dtype(np.int8))
    to = [*outs, outs[0]][:2] if _KERNELS[which] == _WINDOWS else outs
    sizes = (*image.shape[:2], channels, *image.shape[2:4], *pooled.shape[2:4])
    geometry = (*window, *stride, padding[0][0], padding[1][0])
    name = _instance(which, kind(outs[0].dtype, wide), places)
    grid = (blocks(outs[0].size // wide, _BLOCK),)
    plan.launch("pool", name, grid, _BLOCK, *flat([x, at]), *to, *sizes, *geometry)


def max_pool(plan: Plan, outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding) -> None:
    """The largest of every window, and its place; what is not a number counts as largest."""
    _launch(plan, "LARGEST", outs, ins, ins[0], outs[0], window, stride, padding)


def pool_take(plan: Plan, outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Of every window the number at its place."""
    _launch(plan, "TAKE", outs, ins, ins[0], outs[0], window, stride, padding)


def pool_put(plan: Plan, outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """Every number added where it was taken from."""
    _launch(plan, "PUT", outs, ins, outs[0], ins[0], window, stride, padding)


def avg_pool(plan: Plan, outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """The mean of every window's pixels."""
    _launch(plan, "MEAN", outs, ins, ins[0], outs[0], window, stride, padding)


def avg_spread(plan: Plan, outs: Arrays, ins: Arrays, window: Pair, stride: Pair, padding: Padding, size: Pair) -> None:
    """The adjoint: every number, over the pixels of its window, added to each of them."""
    _launch(plan, "SPREAD", outs, ins, outs[0], ins[0], window, stride, padding)

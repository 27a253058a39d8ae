"""Dead-code elimination, and what all passes ask of calls and operands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff.tracing import Call, Root, Traced


def eliminate_dead(calls: Sequence[Call], needed: Iterable[Any]) -> list[Call]:
    """The calls that something needed depends on."""
    live = {x.root for x in needed if isinstance(x, Traced)}
    kept = []
    for call in reversed(calls):
        if any(y.root in live for y in call.outs):
            live.update(x.root for x in call.ins if isinstance(x, Traced))
            kept.append(call)
    return kept[::-1]


def roots_read(calls: Iterable[Call]) -> set[Root]:
    """The roots that calls read."""
    return {x.root for call in calls for x in call.ins if isinstance(x, Traced)}


def has_family(calls: Iterable[Call], family: str) -> bool:
    """Whether one of the calls is of a kernel of this family."""
    return any(call.kernel.family == family for call in calls)


def is_whole(x: Any) -> bool:
    """Whether an operand is all of its root, in order."""
    return isinstance(x, Traced) and x.shape == x.root.shape and x.flags.c_contiguous and x.offset == 0


def operand_key(x: Any) -> Any:
    """Equal for operands that are the same view of the same memory; along an axis of length 1 any stride is."""
    return _first_element(x), x.shape, tuple([0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)])


def _first_element(x: Any) -> Any:
    """Where an operand's first element is."""
    if isinstance(x, Traced):
        return x.root, x.offset
    return x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else x.data.ptr

"""What a recorded program needs besides its kernels: whether all is finite, and copies of many arrays at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinymaml.kernels.gpu import many
from tinymaml.kernels.gpu.launch import REAL, WORDS, Plan

INSTANCES = {
    **{real: (f"find_not_finite<{real}>",) for real in REAL.values()},
    "words": tuple([f"copy_words<{word}>" for word in WORDS.values()]),
}


def find_not_finite(plan: Plan, arrays: Sequence[Any], flag: Any) -> None:
    """Set `flag`, an int, to 1 if a number is not finite; otherwise leave it."""
    for dtype, real in REAL.items():
        rows = [[x] for x in arrays if x.dtype == dtype]
        many.launch(plan, "support", f"find_not_finite<{real}>", rows, flag)


def copy_all(plan: Plan, copies: Sequence[tuple[Any, Any]]) -> None:
    """Copy arrays (from, to), in C order and of one dtype and shape, all at once: what is read is not yet written."""

    def is_overwritten(x: Any) -> bool:
        return any(to.data.ptr <= x.data.ptr < to.data.ptr + to.nbytes for _, to in copies)

    rows: dict[int, list[Any]] = {}
    for source, to in copies:
        if source.data.ptr == to.data.ptr and source.strides == to.strides:
            continue
        moved = source if source.flags.c_contiguous and not is_overwritten(source) else plan.copied(source)
        rows.setdefault(to.itemsize, []).append([to, moved])
    for size, some in rows.items():
        many.launch(plan, "support", f"copy_words<{WORDS[size]}>", some)

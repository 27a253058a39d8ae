"""The arrays that compiled kernels take: numbers in C order, so that an address and a shape say where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Source:
    """What a recorded program knows of an operand.

    Attributes:
        stride: bytes by which the operand moves from row to row of the program, 0 where it stays.
        must_be_copied: whether the kernel takes it in C order only, in which it is not.
    """

    stride: int = 0
    must_be_copied: bool = False


class Operand(np.ndarray[Any, np.dtype[Any]]):
    """An operand of a launch that is built now and runs later, on other numbers. Its views know its source too.

    A builder asks for another shape or order of what it is given; what it returns still says what moves how far.
    """

    source: Source | None

    @staticmethod
    def of(array: Any, stride: int = 0) -> Operand:
        """The array, as an operand that moves by so many bytes from row to row."""
        operand: Operand = array.view(Operand)
        operand.source = Source(stride)
        return operand

    def __array_finalize__(self, array: Any) -> None:
        # What is computed from an operand, or shaped like one, has other memory and is none.
        self.source = array.source if isinstance(array, Operand) and np.may_share_memory(self, array) else None


def whole(x: Any) -> Any:
    """The array in C order: a copy, if it is not.

    A copy of an `Operand` would be out of date when the launch runs: its source notes that, and memory without numbers
    stands in.
    """
    if x.flags.c_contiguous:
        return x
    if isinstance(x, Operand) and x.source is not None:
        x.source.must_be_copied = True
        return np.empty(x.shape, x.dtype)
    return np.ascontiguousarray(x)


def plain(x: Any) -> Any:
    """The array in C order, without the copies of an axis that was broadcast over tasks."""
    return x if x.flags.c_contiguous else whole(x[:1] if x.strides[0] == 0 else x)

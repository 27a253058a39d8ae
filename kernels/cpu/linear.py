"""Products of stacks of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def _in_order(x: Any) -> Any:
    """The array with each matrix in C order: BLAS adds up in another order for other layouts, to other last digits."""
    expected = (x.shape[-1] * x.itemsize, x.itemsize)
    return x if x.strides[-2:] == expected else np.ascontiguousarray(x).reshape(-1).reshape(x.shape)


def linear(outs: Arrays, ins: Arrays, ta: bool, tb: bool) -> None:
    """op(a) op(b) + c, the last if given."""
    a, b = _in_order(ins[0]), _in_order(ins[1])
    np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b, out=outs[0])
    if len(ins) == 3:
        np.add(outs[0], ins[2], out=outs[0])

"""Products of stacks of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def linear(outs: Arrays, ins: Arrays, ta: bool, tb: bool) -> None:
    """op(a) op(b) + c, the last if given."""
    a, b = ins[0], ins[1]
    np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b, out=outs[0])
    if len(ins) == 3:
        np.add(outs[0], ins[2], out=outs[0])

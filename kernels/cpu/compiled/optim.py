"""Optimisers' updates, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numba import njit

from tinymaml.kernels.cpu import optim as reference
from tinymaml.kernels.cpu.compiled.elementwise import aligned

Arrays = Sequence[Any]


@njit(cache=True, nogil=True)
def _adam(x2: Any, m2: Any, v2: Any, x: Any, g: Any, m: Any, v: Any, scalars: Any) -> None:
    rate, correction, b1, b2, epsilon = scalars
    one = rate / rate
    for i in range(x.size):
        m2[i] = b1 * m[i] + (one - b1) * g[i]
        v2[i] = b2 * v[i] + (one - b2) * (g[i] * g[i])
        x2[i] = x[i] - rate * m2[i] / (sqrt(correction * v2[i]) + epsilon)


def adam(outs: Arrays, ins: Arrays, beta1: float, beta2: float, epsilon: float) -> None:
    """Parameter and both moments after a step; `scales` holds rate / (1 - beta1^t) and 1 / (1 - beta2^t)."""
    if not aligned(*outs, *ins[:4]):
        reference.adam(outs, ins, beta1, beta2, epsilon)
        return
    x, g, m, v, scales = ins
    scalars = (*scales.astype(x.dtype), *np.array([beta1, beta2, epsilon], x.dtype))
    x2, m2, v2 = outs
    _adam(x2.ravel(), m2.ravel(), v2.ravel(), x.ravel(), g.ravel(), m.ravel(), v.ravel(), scalars)

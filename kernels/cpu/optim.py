"""Optimisers' updates, one pass over each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def adam(outs: Arrays, ins: Arrays, beta1: float, beta2: float, epsilon: float) -> None:
    """Parameter and both moments after a step; `scales` holds rate / (1 - beta1^t) and 1 / (1 - beta2^t)."""
    x, g, m, v, scales = ins
    x2, m2, v2 = outs
    rate, correction = scales.astype(x.dtype)
    m2[...] = beta1 * m + (1 - beta1) * g
    v2[...] = beta2 * v + (1 - beta2) * (g * g)
    x2[...] = x - rate * m2 / (np.sqrt(correction * v2) + epsilon)

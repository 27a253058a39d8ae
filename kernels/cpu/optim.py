"""Optimisers' updates: what depends on the iteration, and one pass over each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def next_iteration(outs: Arrays, ins: Arrays) -> None:
    """The iteration after this one, int64, and this one as float64, in which rates are computed; all without axes."""
    outs[0][...] = ins[0] + 1
    outs[1][...] = ins[0]


def bias_correction(outs: Arrays, ins: Arrays, beta1: float, beta2: float) -> None:
    """Adam's rate / (1 - beta1^t) and 1 / (1 - beta2^t), float64 [2], of iteration t - 1 and the rate, float64."""
    iteration, rate = map(float, ins)
    outs[0][...] = rate / (1 - beta1 ** (iteration + 1)), 1 / (1 - beta2 ** (iteration + 1))


def adam(outs: Arrays, ins: Arrays, beta1: float, beta2: float, epsilon: float) -> None:
    """Parameter and both moments after a step; `scales` are what `bias_correction` gives."""
    x, g, m, v, scales = ins
    x2, m2, v2 = outs
    rate, correction = scales.astype(x.dtype)
    m2[...] = beta1 * m + (1 - beta1) * g
    v2[...] = beta2 * v + (1 - beta2) * (g * g)
    x2[...] = x - rate * m2 / (np.sqrt(correction * v2) + epsilon)

"""Losses and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def mse(outs: Arrays, ins: Arrays) -> None:
    """The mean of (p - t)^2 over all axes but the first."""
    p, t = ins
    difference = (p - t).reshape(len(p), math.prod(p.shape[1:]))
    np.divide(np.einsum("tn,tn->t", difference, difference), difference.shape[1], out=outs[0])


def scaled_difference(outs: Arrays, ins: Arrays, scale: float) -> None:
    """scale h (p - t), with one h for each entry of the first axis."""
    p, t, h = ins
    np.subtract(p, t, out=outs[0])
    np.multiply(outs[0], (h * h.dtype.type(scale)).reshape(-1, *[1] * (p.ndim - 1)), out=outs[0])

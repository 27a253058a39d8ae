"""Initialisers of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Array

# They are [1, *taps, inputs, outputs], where taps are the places of a convolution's kernel.


def he_normal(rng: np.random.Generator, inputs: int, outputs: int, taps: tuple[int, ...] = ()) -> Array:
    """Normal with variance 2 / fan-in, for ReLU (He et al. 2015)."""
    return rng.normal(0.0, math.sqrt(2 / (inputs * math.prod(taps))), (1, *taps, inputs, outputs))


def xavier_uniform(rng: np.random.Generator, inputs: int, outputs: int, taps: tuple[int, ...] = ()) -> Array:
    """Uniform within sqrt(6 / (fan-in + fan-out)) (Glorot & Bengio 2010)."""
    limit = math.sqrt(6 / ((inputs + outputs) * math.prod(taps)))
    return rng.uniform(-limit, limit, (1, *taps, inputs, outputs))


def truncated_normal(rng: np.random.Generator, inputs: int, outputs: int, taps: tuple[int, ...] = ()) -> Array:
    """Normal with sigma .01, redrawn beyond two sigmas (the authors' code)."""
    w = rng.normal(0.0, 1.0, (1, *taps, inputs, outputs))
    while (outside := np.abs(w) > 2).any():
        w[outside] = rng.normal(0.0, 1.0, int(outside.sum()))
    return 0.01 * w


def standard_normal(rng: np.random.Generator, inputs: int, outputs: int, taps: tuple[int, ...] = ()) -> Array:
    """Normal with sigma 1 (the authors' code, for the last layer on Omniglot)."""
    return rng.normal(0.0, 1.0, (1, *taps, inputs, outputs))


INITIALISERS: dict[str, Callable[..., Array]] = {
    "he-normal": he_normal,
    "xavier-uniform": xavier_uniform,
    "truncated-normal": truncated_normal,
    "standard-normal": standard_normal,
}


def choose(name: str, value: str, choices: dict[str, Any]) -> Any:
    """The choice of this name. Raises ValueError if there is none."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]

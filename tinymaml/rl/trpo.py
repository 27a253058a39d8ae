"""Trust region policy optimisation (Schulman et al. 2015) of a loss that is given by functions of a vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinymaml.autodiff.tensor import Array

Product = Callable[[Array], Array]


def conjugate_gradient(
    product: Product, b: Array, iterations: int = 10, tolerance: float = 1e-10
) -> tuple[Array, Array]:
    """An approximate solution x of A x = b, for a symmetric positive definite A given by its products with vectors.

    Args:
        iterations: the most there are.
        tolerance: on the square of the residual's norm, where the iterations end.

    Returns:
        x, and the residual b - A x.
    """
    x, residual, direction = np.zeros_like(b), b.copy(), b.copy()
    square = float(residual @ residual)
    for _ in range(iterations):
        if square < tolerance:
            break
        applied = product(direction)
        step = square / float(direction @ applied)
        x = x + step * direction
        residual = residual - step * applied
        previous, square = square, float(residual @ residual)
        direction = residual + square / previous * direction
    return x, residual


class Step(NamedTuple):
    """The result of an update."""

    params: Array  # the new ones, or the old ones if nothing was accepted
    loss: float  # at them
    divergence: float  # from the old ones to them
    tries: int  # of step sizes in the line search
    accepted: bool


def step(
    params: Array,
    loss: float,
    gradient: Array,
    product: Product,
    losses: Callable[[Array], tuple[float, float]],
    max_divergence: float = 0.01,
    iterations: int = 10,
    damping: float = 1e-5,
    shrink: float = 0.8,
    tries: int = 15,
) -> Step:
    """One update: along the natural gradient to the border of the trust region, then a backtracking line search until
    the loss is lower and the divergence is in bounds; the parameters stay as they are if it never is.

    Args:
        params: vector float64[P].
        loss, gradient: at params.
        product: the divergence's Hessian at params times a vector.
        losses: parameters -> (loss, divergence from `params`); what is not finite is not accepted.
    """
    direction, residual = conjugate_gradient(lambda v: product(v) + damping * v, gradient, iterations)
    curvature = float(direction @ (gradient - residual))  # along the direction, without another product
    scale = math.sqrt(2 * max_divergence / (curvature + 1e-8)) if curvature > -1e-8 else math.nan
    if not math.isfinite(scale):
        return Step(params, loss, 0.0, 0, False)
    for k in range(tries):
        candidate = params - shrink**k * scale * direction
        new_loss, divergence = losses(candidate)
        if new_loss < loss and divergence <= max_divergence:  # false for NaN
            return Step(candidate, new_loss, divergence, k + 1, True)
    return Step(params, loss, 0.0, tries, False)

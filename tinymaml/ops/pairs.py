"""Of all pairs of two sets of vectors: similarity, distance, attention. On the task axis and made of products of
matrices: x[..., N, D] and y[..., M, D] give [..., N, M]; leading axes broadcast."""

from __future__ import annotations

import math
from typing import Any

from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.tensor import Tensor, as_tensor
from tinymaml.ops.elementwise import add, divide, maximum, multiply, sqrt, stop_gradient, subtract, where
from tinymaml.ops.linear import linear
from tinymaml.ops.reduce import softmax
from tinymaml.ops.reduce import sum as sum_over
from tinymaml.ops.shape import swapaxes


def _vectors(name: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    x, y = as_tensor(x), as_tensor(y)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"{public_name(name)}: sets [..., N, D] and [..., M, D] of vectors expected, got {x.shape} and {y.shape}"
        )
    return x, y


def cosine_similarity(x: Any, y: Any, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between every two vectors: x[..., N, D], y[..., M, D] -> [..., N, M].

    Vectors are divided by their length, or by `eps` if they are shorter: of a vector of zeros it is 0.

    Raises:
        ValueError: the shapes do not fit.
    """
    x, y = _vectors("cosine_similarity", x, y)
    return linear(_unit(x, eps), _unit(y, eps), tb=True)


def _unit(x: Tensor, eps: float) -> Tensor:
    """Divided by the length, which is eps at least."""
    return divide(x, sqrt(maximum(sum_over(multiply(x, x), -1, keepdims=True), eps * eps)))


def pairwise_squared_distances(x: Any, y: Any) -> Tensor:
    """|x_n - y_m|² of every two vectors: x[..., N, D], y[..., M, D] -> [..., N, M].

    It is |x_n|² + |y_m|² - 2 <x_n, y_m>, by one product of matrices, of vectors taken from the mean of the y, which
    changes no distance and keeps the digits of sets that lie far from 0. Distances that are small beside those from
    the mean have its rounding errors, and where they vanish may come out a little below 0.

    Raises:
        ValueError: the shapes do not fit.
    """
    x, y = _vectors("pairwise_squared_distances", x, y)
    # Distances do not depend on it: by it no derivative is needed.
    middle = stop_gradient(multiply(sum_over(y, -2, keepdims=True), 1 / max(y.shape[-2], 1)))
    x, y = subtract(x, middle), subtract(y, middle)
    of_x = sum_over(multiply(x, x), -1, keepdims=True)
    of_y = swapaxes(sum_over(multiply(y, y), -1, keepdims=True), -1, -2)
    return add(linear(multiply(x, -2.0), y, of_y, tb=True), of_x)


def attention(queries: Any, keys: Any, values: Any, mask: Any = None) -> Tensor:
    """Softmax attention (Vaswani et al. 2017): the values, weighted by the softmax of <query, key> / sqrt(D).

    Made of ops whose rules are exact, so its derivatives are, to any order; a weight is kept for every query and key.

    Args:
        queries: [..., N, D].
        keys: [..., M, D].
        values: [..., M, E].
        mask: booleans that broadcast to [..., N, M]: the keys that a query sees. One that sees none gives 0. Keys and
            values must be finite where they are hidden too.

    Returns:
        [..., N, E].

    Raises:
        ValueError: the shapes do not fit, or there are no keys.
    """
    queries, keys = _vectors("attention", queries, keys)
    values = as_tensor(values)
    if values.ndim < 2 or values.shape[-2] != keys.shape[-2]:
        raise ValueError(f"attention: a value is needed for every key, got keys {keys.shape}, values {values.shape}")
    if keys.shape[-2] == 0:
        raise ValueError(f"attention: no keys in {keys.shape}")
    scores = linear(multiply(queries, 1 / math.sqrt(max(queries.shape[-1], 1))), keys, tb=True)
    if mask is None:
        return linear(softmax(scores), values)
    weights = softmax(where(mask, scores, _HIDDEN))
    return linear(where(mask, weights, 0.0), values)


_HIDDEN = -1e30  # a score: finite, so that a row of nothing else has a softmax, which the mask then takes away

"""Multi-head attention on the task axis."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.nn.layers import Model, linear
from tinymaml.ops import as_tensor, reshape, swapaxes
from tinymaml.ops import attention as attend
from tinymaml.ops.indices import reshaped

_PROJECTIONS = ("queries", "keys", "values", "outputs")


def attention(size: int, heads: int, initialiser: str = "xavier-uniform") -> Model:
    """Multi-head attention (Vaswani et al. 2017): `apply(params, x, context=None, mask=None)`.

    x[T, ..., N, size] looks at context[T, ..., M, size], or at itself: queries come of x, keys and values of the
    context, each by a linear layer; every head attends with its share of the numbers, and a linear layer joins them
    -> [T, ..., N, size]. `mask` has booleans that broadcast to [T, ..., N, M]: what each x sees.

    Args:
        size: numbers of a vector.
        heads: they divide `size`.
        initialiser: how weights start; biases start at 0.

    Raises:
        ValueError: a number < 1, heads that do not divide `size`; applied, shapes that do not fit.
    """
    for name, n in (("size", size), ("heads", heads)):
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"attention: {name} must be a whole number >= 1, got {n!r}")
    if size % heads:
        raise ValueError(f"attention: {heads} heads do not divide a size of {size}")
    layer = linear(size, size, initialiser)

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        return {name: layer.init(rng, dtype) for name in _PROJECTIONS}

    def project(params: Tree, x: Tensor) -> Tensor:
        """A linear layer on the last axis."""
        rows = layer.apply(params, reshape(x, (x.shape[0], -1 if x.size else 0, size)))
        return reshape(rows, (rows.shape[0], *x.shape[1:]))

    def by_head(x: Tensor) -> Tensor:
        """[..., N, size] -> [..., heads, N, size / heads]."""
        return swapaxes(reshape(x, (*x.shape[:-1], heads, size // heads)), -2, -3)

    def apply(params: Tree, x: Any, context: Any = None, mask: Any = None) -> Tensor:
        x = as_tensor(x)
        context = x if context is None else as_tensor(context)
        for name, value in (("x", x), ("context", context)):
            if value.ndim < 3 or value.shape[-1] != size:
                raise ValueError(f"attention: {name} must be [T, ..., N, {size}], got {value.shape}")
        if mask is not None:
            mask = as_tensor(mask).data
            if mask.ndim > 2:  # the same for all heads
                mask = reshaped(mask, (*mask.shape[:-2], 1, *mask.shape[-2:]))
        queries = by_head(project(params["queries"], x))
        keys, values = (by_head(project(params[name], context)) for name in ("keys", "values"))
        seen = swapaxes(attend(queries, keys, values, mask), -2, -3)
        return project(params["outputs"], reshape(seen, (*seen.shape[:-2], size)))

    return Model(init, apply)

"""Layers as pairs of pure functions: `init(rng) -> params` and `apply(params, x) -> y`, on the task axis.

Parameters are plain dicts and lists of arrays with a task axis of length 1 (shared by all tasks): w[1, I, O], b[1, 1,
O]. The same `apply` runs with a set of parameters for each task, w[T, I, O], as the inner steps make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff.tensor import FLOATS, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.nn.initialisers import INITIALISERS, choose
from tinymaml.ops import as_tensor, dense, elu, getitem, relu, sigmoid, softplus, tanh
from tinymaml.ops.indices import check_labels

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "elu": elu,
}


class Model(NamedTuple):
    """`init(rng, dtype=float32) -> params`; `apply(params, x[T, N, ...]) -> Tensor`."""

    init: Callable[..., Tree]
    apply: Callable[[Tree, Any], Tensor]


def linear(inputs: int, outputs: int, initialiser: str = "he-normal") -> Model:
    """x[T, N, inputs] -> x w + b [T, N, outputs]; biases start at 0."""
    draw = choose("initialiser", initialiser, INITIALISERS)
    for name, n in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"linear: {name} must be a whole number >= 1, got {n!r}")

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        return {"w": draw(rng, inputs, outputs).astype(dtype), "b": np.zeros((1, 1, outputs), dtype)}

    return Model(init, lambda params, x: dense(x, params["w"], params["b"]))


def embedding(count: int, size: int) -> Model:
    """A vector for each of `count` symbols: whole numbers labels[T, ...] in [0, count) -> [T, ..., size].

    The parameter is {"w": [1, count, size]}, standard normal at the start. Raises ValueError for a size < 1, and
    applied for labels that are not in range.
    """
    for name, n in (("count", count), ("size", size)):
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"embedding: {name} must be a whole number >= 1, got {n!r}")

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        return {"w": INITIALISERS["standard-normal"](rng, count, size).astype(dtype)}

    def apply(params: Tree, labels: Any) -> Tensor:
        w, labels = as_tensor(params["w"]), as_tensor(labels)
        if labels.ndim < 1 or labels.dtype.kind not in "iu":
            raise TypeError(f"embedding: labels [T, ...] must be integers, got {labels.dtype} of shape {labels.shape}")
        check_labels("embedding", labels.data, count)
        if w.shape[0] == 1:
            return getitem(w, (0, labels))
        if labels.shape[0] not in (1, w.shape[0]):
            raise ValueError(f"embedding: w is for {w.shape[0]} tasks, labels for {labels.shape[0]}")
        return getitem(w, (np.arange(w.shape[0]).reshape(-1, *[1] * (labels.ndim - 1)), labels))

    return Model(init, apply)


def mlp(sizes: Sequence[int], activation: str = "relu", initialiser: str = "he-normal") -> Model:
    """Linear layers of the given sizes, inputs first, with an activation between them; parameters are a list of layers.

    The paper's network for sinusoids is mlp([1, 40, 40, 1]) (section 5.1).
    """
    if len(sizes) < 2 or any(not isinstance(n, Integral) or n < 1 for n in sizes):
        raise ValueError(f"mlp: sizes must be two whole numbers >= 1 or more, inputs first, got {list(sizes)}")
    act = choose("activation", activation, ACTIVATIONS)
    layers = [linear(i, o, initialiser) for i, o in pairwise(sizes)]

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        return [layer.init(rng, dtype) for layer in layers]

    def apply(params: Tree, x: Any) -> Tensor:
        if len(params) != len(layers):
            raise ValueError(f"params has {len(params)} layers, mlp({list(sizes)}) has {len(layers)}")
        for k, (layer, layer_params) in enumerate(zip(layers, params, strict=True)):
            x = layer.apply(layer_params, act(x) if k else x)
        return x

    return Model(init, apply)

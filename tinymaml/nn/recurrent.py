"""Recurrent networks on the task axis: x[T, N, L, inputs], N sequences of L steps a task, gives [T, N, L, outputs].

The steps are unrolled, so they are differentiated like anything else, to any order. What does not depend on the step
before is one product for the whole sequence: the inputs' share of the gates, and the linear layer behind the states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import FLOATS, Array, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.nn.initialisers import INITIALISERS, choose
from tinymaml.nn.layers import Model, linear
from tinymaml.ops import as_tensor, dense, reshape, sigmoid, stack, tanh
from tinymaml.ops import linear as product

# From the gates before their nonlinearity [T, N, gates * hidden] and the cell [T, N, hidden], None at the start: the
# hidden state and the cell after the step.
_Step = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def rnn(inputs: int, hidden: int, outputs: int, initialiser: str = "xavier-uniform") -> Model:
    """The simple recurrent network (Elman 1990): h' = tanh(x w + h u + b), y = h' v + c.

    Args:
        hidden: numbers of the state, which is 0 at the start.
        initialiser: how weights start, but for the recurrent ones u, which are orthogonal (Saxe et al. 2014).

    Raises:
        ValueError: a size < 1, an unknown name.
    """

    def step(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return tanh(gates), None

    return _recurrent("rnn", inputs, hidden, outputs, initialiser, (0.0,), step)


def lstm(inputs: int, hidden: int, outputs: int, initialiser: str = "xavier-uniform") -> Model:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000), and a linear layer.

    With gates i (input), f (forget), o (output) and g, all in one product, [i f o g] = x w + h u + b: the cell becomes
    c' = σ(f) c + σ(i) tanh(g), the state h' = σ(o) tanh(c'), the output y = h' v + d. The forget gate's bias starts at
    1, so that a cell remembers at the start (Jozefowicz et al. 2015).

    Args, Raises: as of `rnn`.
    """

    def step(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        opened = sigmoid(gates[..., : 3 * hidden])
        kept = opened[..., :hidden] * tanh(gates[..., 3 * hidden :])
        cell = kept if cell is None else kept + opened[..., hidden : 2 * hidden] * cell
        return opened[..., 2 * hidden :] * tanh(cell), cell

    return _recurrent("lstm", inputs, hidden, outputs, initialiser, (0.0, 1.0, 0.0, 0.0), step)


def _recurrent(
    name: str, inputs: int, hidden: int, outputs: int, initialiser: str, biases: Sequence[float], step: _Step
) -> Model:
    """A network whose units have a gate for each of the biases, which start at these numbers."""
    for what, n in (("inputs", inputs), ("hidden", hidden), ("outputs", outputs)):
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"{name}: {what} must be a whole number >= 1, got {n!r}")
    draw, gates = choose("initialiser", initialiser, INITIALISERS), len(biases)
    head = linear(hidden, outputs, initialiser)

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        if np.dtype(dtype) not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        of_inputs = [draw(rng, inputs, hidden) for _ in range(gates)]
        of_state = [_orthogonal(rng, hidden) for _ in range(gates)]
        return {
            "w": np.concatenate(of_inputs, -1).astype(dtype),
            "u": np.concatenate(of_state, -1).astype(dtype),
            "b": np.repeat(biases, hidden).reshape(1, 1, -1).astype(dtype),
            "head": head.init(rng, dtype),
        }

    def apply(params: Tree, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim != 4 or x.shape[-1] != inputs or x.shape[2] < 1:
            raise ValueError(f"{name}: x must be [T, N, L, {inputs}], sequences of one step or more, got {x.shape}")
        tasks, count, length, _ = x.shape
        flat = dense(reshape(x, (tasks, count * length, inputs)), params["w"], params["b"])
        of_inputs = reshape(flat, (flat.shape[0], count, length, gates * hidden))
        states: list[Tensor] = []
        cell: Tensor | None = None
        for t in range(length):
            before = of_inputs[:, :, t]
            state, cell = step(product(states[-1], params["u"], before) if states else before, cell)
            states.append(state)
        together = stack(states, 2)
        result = head.apply(params["head"], reshape(together, (together.shape[0], count * length, hidden)))
        return reshape(result, (result.shape[0], count, length, outputs))

    return Model(init, apply)


def _orthogonal(rng: np.random.Generator, size: int) -> Array:
    """A matrix [1, size, size] drawn uniformly from all that leave lengths as they are."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return (q * np.where(np.diagonal(r) < 0, -1.0, 1.0))[None]

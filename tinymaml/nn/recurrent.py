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
from tinymaml.ops import as_tensor, dense, reshape, sigmoid, split, stack, tanh
from tinymaml.ops import linear as product

# A step of N sequences a task: from the inputs' share of the gates [T, N, gates * hidden], the recurrent weights, the
# state [T, N, hidden] and the cell, both None at the start, to the state and the cell after it.
_Step = Callable[[Tensor, Any, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]]


def rnn(inputs: int, hidden: int, outputs: int, initialiser: str = "xavier-uniform") -> Model:
    """The simple recurrent network (Elman 1990): h' = tanh(x w + h u + b), y = h' v + c.

    Args:
        hidden: numbers of the state, which is 0 at the start.
        initialiser: how weights start, but for the recurrent ones u, which are orthogonal (Saxe et al. 2014).

    Raises:
        ValueError: a size < 1, an unknown name.
    """

    def step(share: Tensor, u: Any, state: Tensor | None, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return tanh(_gates(share, u, state)), None

    return _recurrent("rnn", inputs, hidden, outputs, initialiser, (0.0,), step)


def lstm(inputs: int, hidden: int, outputs: int, initialiser: str = "xavier-uniform") -> Model:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000), and a linear layer.

    With gates i (input), f (forget), o (output) and g, all in one product, [i f o g] = x w + h u + b: the cell becomes
    c' = σ(f) c + σ(i) tanh(g), the state h' = σ(o) tanh(c'), the output y = h' v + d. The forget gate's bias starts at
    1, so that a cell remembers at the start (Jozefowicz et al. 2015).

    Args, Raises: as of `rnn`.
    """
    return _recurrent("lstm", inputs, hidden, outputs, initialiser, (0.0, 1.0, 0.0, 0.0), _lstm_step)


def gru(inputs: int, hidden: int, outputs: int, initialiser: str = "xavier-uniform") -> Model:
    """Gated recurrent units (Cho et al. 2014), a linear layer behind.

    With gates r (reset), z (update) and n, [r z n] = x w + b and [r' z' n'] = h u, each in one product: the state
    becomes h' = (1 - σ(z + z')) tanh(n + σ(r + r') n') + σ(z + z') h, the output y = h' v + d.

    Args, Raises: as of `rnn`.
    """
    return _recurrent("gru", inputs, hidden, outputs, initialiser, (0.0, 0.0, 0.0), _gru_step)


def lstm_step(params: Tree, x: Any, state: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM with the parameters w, u and b of `lstm`, for networks whose next input depends on it.

    Args:
        x: [T, N, inputs].
        state: (h, c) as the step before returned it, [T, N, hidden] each; None at the start, when both are 0.

    Returns:
        (h, c).
    """
    h, c = (None, None) if state is None else state
    return _lstm_step(dense(x, params["w"], params["b"]), params["u"], h, c)


def gru_step(params: Tree, x: Any, state: Any = None) -> Tensor:
    """One step of gated recurrent units with the parameters w, u and b of `gru`: x[T, N, inputs] and the state h before
    it [T, N, hidden], None at the start, when it is 0, give the state after it."""
    return _gru_step(dense(x, params["w"], params["b"]), params["u"], state, None)[0]


def _gates(share: Tensor, u: Any, state: Tensor | None) -> Tensor:
    return share if state is None else product(state, u, share)


def _lstm_step(share: Tensor, u: Any, state: Tensor | None, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    i, f, o, g = split(_gates(share, u, state), 4, -1)
    kept = sigmoid(i) * tanh(g)
    cell = kept if cell is None else kept + sigmoid(f) * cell
    return sigmoid(o) * tanh(cell), cell


def _gru_step(share: Tensor, u: Any, state: Tensor | None, cell: Tensor | None) -> tuple[Tensor, Tensor | None]:
    r, z, n = split(share, 3, -1)
    if state is None:
        return (1.0 - sigmoid(z)) * tanh(n), None
    r_again, z_again, n_again = split(product(state, u), 3, -1)
    new = tanh(n + sigmoid(r + r_again) * n_again)
    return new + sigmoid(z + z_again) * (state - new), None


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
        for share in split(of_inputs, length, 2):
            before = reshape(share, (share.shape[0], count, gates * hidden))
            state, cell = step(before, params["u"], states[-1] if states else None, cell)
            states.append(state)
        together = stack(states, 2)
        result = head.apply(params["head"], reshape(together, (together.shape[0], count * length, hidden)))
        return reshape(result, (result.shape[0], count, length, outputs))

    return Model(init, apply)


def _orthogonal(rng: np.random.Generator, size: int) -> Array:
    """A matrix [1, size, size] drawn uniformly from all that leave lengths as they are."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return (q * np.where(np.diagonal(r) < 0, -1.0, 1.0))[None]

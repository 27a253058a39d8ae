"""A meta-step on sinusoids: 25 tasks, 10 support and 10 query points, 1 inner step, Adam; MLP 1-40-40-1."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.timing import interleaved, table
from tinymaml import maml, nn, optim, tree
from tinymaml.tasks import sinusoid

TASKS, POINTS, ALPHA, RATE = 25, 10, 0.01, 1e-3


def data(dtype: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Parameters, support and query."""
    params = nn.mlp([1, 40, 40, 1]).init(np.random.default_rng(0), dtype)
    batch = sinusoid.sample(seed=0, split="train", first_task=0, tasks=TASKS, points=2 * POINTS)
    x, y = batch.x.astype(dtype), batch.y.astype(dtype)
    return params, {"x": x[:, :POINTS], "y": y[:, :POINTS]}, {"x": x[:, POINTS:], "y": y[:, POINTS:]}


def ours(params: Any, support: Any, query: Any, order: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(the meta-gradient, a whole meta-step), as functions of nothing."""
    from tinymaml import mse

    model = nn.mlp([1, 40, 40, 1])
    support, query = tree.map(np.ascontiguousarray, support), tree.map(np.ascontiguousarray, query)

    def loss(params: Any, batch: Any) -> Any:
        return mse(model.apply(params, batch["x"]), batch["y"])

    optimiser = optim.adam(RATE)
    state = optimiser.init(params)

    def gradient() -> Any:
        return maml.meta_value_and_grad(loss, params, support, query, ALPHA, 1, order=order)[1]

    return gradient, lambda: optimiser.update(gradient(), state, params)


def implementations(dtype: Any, order: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    found = {"tinymaml, eager": ours(*data(dtype), order)}
    if importlib.util.find_spec("jax"):
        from bench import peers_jax

        found["JAX, jit of vmap of grad"] = peers_jax.metastep(*data(dtype), order, ALPHA, RATE)
    if importlib.util.find_spec("torch"):
        from bench import peers_torch

        found["PyTorch, torch.func vmap of grad"] = peers_torch.metastep(*data(dtype), order, ALPHA, RATE)
        found["PyTorch, loop over tasks (as users write it)"] = peers_torch.loop(*data(dtype), order, ALPHA, RATE)
    return found


def run(rounds: int) -> None:
    for order in (2, 1):
        exact = {name: tree.leaves(gradient()) for name, (gradient, _) in implementations(np.float64, order).items()}
        reference = exact["tinymaml, eager"]
        for name, grads in exact.items():
            error = max(np.abs(a - np.asarray(b)).max() for a, b in zip(reference, grads, strict=True))
            if not error < 1e-8:
                raise SystemExit(f"{name}: its meta-gradient differs from ours by {error}: nothing is timed")
        steps = {name: step for name, (_, step) in implementations(np.float32, order).items()}
        table(
            f"Meta-step, sinusoid, order {order}, float32 (gradients agree to 1e-8 in float64)",
            interleaved(steps, rounds),
        )

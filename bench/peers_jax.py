"""The same computations in JAX: the meta-step as jit(vmap(grad)), one compiled program with Adam inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def mlp(params: Any, x: Any) -> Any:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def loss(params: Any, x: Any, y: Any) -> Any:
    return ((mlp(params, x) - y) ** 2).mean()


def metastep(
    params: Any, support: Any, query: Any, order: int, alpha: float, rate: float
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    params = jax.tree.map(lambda x: jnp.asarray(x[0]), params)
    batch = [jnp.asarray(b[k]) for b in (support, query) for k in ("x", "y")]

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        grads = jax.grad(loss)(params, xs, ys)
        grads = jax.lax.stop_gradient(grads) if order == 1 else grads
        return loss(jax.tree.map(lambda p, g: p - alpha * g, params, grads), xq, yq)

    gradient = jax.jit(jax.grad(lambda p, *b: jax.vmap(task, (None, 0, 0, 0, 0))(p, *b).mean()))

    @jax.jit
    def step(params: Any, m: Any, v: Any, t: Any, *batch: Any) -> Any:
        g = gradient(params, *batch)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = rate / (1 - 0.9**t), 1 / (1 - 0.999**t)
        return jax.tree.map(lambda p, m, v: p - a * m / (jnp.sqrt(b * v) + 1e-8), params, m, v), m, v

    zeros = jax.tree.map(jnp.zeros_like, params)
    t = jnp.ones((), params[0]["w"].dtype)
    return (
        lambda: jax.tree.map(lambda g: np.asarray(g)[None], _with_axis(gradient(params, *batch))),
        lambda: jax.block_until_ready(step(params, zeros, zeros, t, *batch)),
    )


def _with_axis(grads: Any) -> Any:
    """In the order in which our trees are flattened: sorted keys, biases as [1, 1, O]."""
    return [{"b": g["b"], "w": g["w"]} for g in grads]


def hvp(function: Any, x: Any, v: Any) -> dict[str, Callable[[], Any]]:
    x, v = jax.tree.map(jnp.asarray, (x, v))
    forward = jax.jit(lambda x, v: jax.jvp(jax.grad(function), (x,), (v,))[1])
    reverse = jax.jit(lambda x, v: jax.grad(lambda x: _dot(jax.grad(function)(x), v))(x))
    return {
        "JAX, forward over reverse": lambda: jax.block_until_ready(forward(x, v)),
        "JAX, reverse over reverse": lambda: jax.block_until_ready(reverse(x, v)),
    }


def _dot(a: Any, b: Any) -> Any:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

"""Image classification in JAX: as its users write it, and the fastest formulation known on a CPU.

`plain`: jit of grad of vmap of grad over `lax.conv_general_dilated`. `tuned`: convolutions as im2col and one product
(XLA's own gradient of a convolution by its weights is thirty times slower on a CPU), `lax.scan` over the tasks, so that
one task's activations stay in the cache, inside `shard_map` over one host device a core; and the explicit walk back,
which is a tenth faster than grad with five inner steps. Both have Adam inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from bench.workloads import EPSILON, RATE, Workload, same

jax.config.update("jax_enable_x64", True)

Made = tuple[Callable[[], Any], Callable[[], Any]]


def _native(x: Any, w: Any, stride: int) -> Any:
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _im2col(x: Any, w: Any, stride: int) -> Any:
    n, height, width, _ = x.shape
    p, q = -(-height // stride), -(-width // stride)
    x = jnp.pad(x, ((0, 0), same(height, stride), same(width, stride), (0, 0)))
    taps = [
        x[:, i : i + stride * (p - 1) + 1 : stride, j : j + stride * (q - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    ]
    columns = jnp.concatenate(taps, -1).reshape(n * p * q, -1)
    return (columns @ w.reshape(-1, w.shape[-1])).reshape(n, p, q, -1)


def _norm_relu(x: Any, gamma: Any, beta: Any) -> Any:
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return jax.nn.relu((x - mean) * (gamma * lax.rsqrt(variance + EPSILON)) + beta)


def _window(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _corners(x: Any) -> Any:
    n, height, width, c = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, c)
    return jnp.maximum(jnp.maximum(x[:, :, 0, :, 0], x[:, :, 0, :, 1]), jnp.maximum(x[:, :, 1, :, 0], x[:, :, 1, :, 1]))


def _loss(params: Any, x: Any, y: Any, pooled: bool, conv: Any, pool: Any) -> Any:
    for layer in params["hidden"]:
        x = _norm_relu(conv(x, layer["w"], 1 if pooled else 2), layer["gamma"], layer["beta"])
        x = pool(x) if pooled else x
    x = x.reshape(len(x), -1) if pooled else x.mean((1, 2))
    logits = x @ params["head"]["w"] + params["head"]["b"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def _made(params: Any, support: Any, query: Any, gradient: Callable[..., Any]) -> Made:
    """(the meta-gradient, a whole meta-step), compiled."""
    params = jax.tree.map(lambda x: jnp.asarray(x[0]), params)
    batch = [jnp.asarray(b[k]) for b in (support, query) for k in ("x", "y")]

    @jax.jit
    def step(params: Any, m: Any, v: Any, t: Any, *batch: Any) -> Any:
        g = gradient(params, *batch)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = RATE / (1 - 0.9**t), 1 / (1 - 0.999**t)
        return jax.tree.map(lambda p, m, v: p - a * m / (jnp.sqrt(b * v) + 1e-8), params, m, v), m, v

    zeros, t = jax.tree.map(jnp.zeros_like, params), jnp.ones((), params["head"]["w"].dtype)
    compiled = jax.jit(gradient)
    return (
        lambda: [np.asarray(g)[None] for g in jax.tree.leaves(compiled(params, *batch))],
        lambda: jax.block_until_ready(step(params, zeros, zeros, t, *batch)),
    )


def plain(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    loss = partial(_loss, pooled=w.pooled, conv=_native, pool=_window)

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        phi = params
        for _ in range(w.steps):
            grads = jax.grad(loss)(phi, xs, ys)
            grads = lax.stop_gradient(grads) if order == 1 else grads
            phi = _minus(phi, grads, w.alpha)
        return loss(phi, xq, yq)

    def objective(params: Any, *batch: Any) -> Any:
        return jax.vmap(task, (None, 0, 0, 0, 0))(params, *batch).mean()

    return _made(params, support, query, jax.grad(objective))


def tuned(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    by_params = jax.grad(partial(_loss, pooled=w.pooled, conv=_im2col, pool=_corners))
    tasks = len(support["x"])
    devices = math.gcd(tasks, jax.device_count())

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        phi, products = params, []
        for _ in range(w.steps):
            grads, product = jax.linearize(lambda phi: by_params(phi, xs, ys), phi)
            products.append(product)
            phi = _minus(phi, grads, w.alpha)
        v = by_params(phi, xq, yq)
        for product in reversed(products) if order == 2 else ():
            v = _minus(v, product(v), w.alpha)
        return v

    def share(params: Any, *batch: Any) -> Any:
        def add(total: Any, one: Any) -> Any:
            return jax.tree.map(jnp.add, total, task(params, *one)), None

        total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, params), batch)
        return jax.tree.map(lambda g: lax.psum(g, "tasks") / tasks, total)

    shared, split = PartitionSpec(), PartitionSpec("tasks")
    mesh = Mesh(np.array(jax.devices()[:devices]), ("tasks",))
    gradient = jax.shard_map(share, mesh=mesh, in_specs=(shared, *[split] * 4), out_specs=shared, check_vma=False)
    return _made(params, support, query, gradient)


def _minus(params: Any, grads: Any, alpha: float) -> Any:
    return jax.tree.map(lambda p, g: p - alpha * g, params, grads)

"""The workloads in JAX: as its users write them, and in the fastest formulation known on a CPU.

`plain`: jit of grad of vmap of grad, over `lax.conv_general_dilated`. `tuned`, for images: convolutions as im2col and
one product (XLA's own gradient of a convolution by its weights is thirty times slower on a CPU), `lax.scan` over the
tasks, so that one task's activations stay in the cache, inside `shard_map` over one host device a core; and the
explicit walk back, which is a tenth faster than grad with five inner steps. Both have Adam inside.
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

from bench.workloads import DEVICE, EPSILON, PRECISION, RATE, Images, Sequences, Workload, same

jax.config.update("jax_enable_x64", True)
if DEVICE == "gpu":
    jax.config.update("jax_default_matmul_precision", "default" if PRECISION == "tf32" else "highest")

Made = tuple[Callable[[], Any], Callable[[], Any]]


def loss_of(w: Workload, tuned: bool = True) -> Callable[[Any, Any, Any], Any]:
    """`loss(params, x, y)` of one task."""
    if isinstance(w, Sequences):
        return _recurrent
    if isinstance(w, Images):
        conv, pool = (_im2col, _corners) if tuned else (_native, _window)
        return partial(_images, pooled=w.pooled, conv=conv, pool=pool)
    return _mlp


def _mlp(params: Any, x: Any, y: Any) -> Any:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return ((x @ params[-1]["w"] + params[-1]["b"] - y) ** 2).mean()


def _recurrent(params: Any, x: Any, y: Any) -> Any:
    h = jnp.tanh(x[:, :1] @ params["in"])
    for t in range(1, x.shape[1]):
        h = jnp.tanh(x[:, t : t + 1] @ params["in"] + h @ params["state"])
    return ((h @ params["out"] + params["bias"] - y) ** 2).mean()


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


def _images(params: Any, x: Any, y: Any, pooled: bool, conv: Any, pool: Any) -> Any:
    for layer in params["hidden"]:
        x = _norm_relu(conv(x, layer["w"], 1 if pooled else 2), layer["gamma"], layer["beta"])
        x = pool(x) if pooled else x
    x = x.reshape(len(x), -1) if pooled else x.mean((1, 2))
    logits = x @ params["head"]["w"] + params["head"]["b"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def _made(params: Any, support: Any, query: Any, gradient: Callable[..., Any]) -> Made:
    """(the meta-gradient's leaves, a whole meta-step), compiled."""
    params = jax.tree.map(lambda x: jnp.asarray(x[0]), params)
    batch = [jnp.asarray(b[k]) for b in (support, query) for k in ("x", "y")]

    @jax.jit
    def step(params: Any, m: Any, v: Any, t: Any, *batch: Any) -> Any:
        g = gradient(params, *batch)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        a, b = RATE / (1 - 0.9**t), 1 / (1 - 0.999**t)
        return jax.tree.map(lambda p, m, v: p - a * m / (jnp.sqrt(b * v) + 1e-8), params, m, v), m, v

    zeros, t = jax.tree.map(jnp.zeros_like, params), jnp.ones((), jax.tree.leaves(params)[0].dtype)
    compiled = jax.jit(gradient)
    return (
        lambda: [np.asarray(g)[None] for g in jax.tree.leaves(compiled(params, *batch))],
        lambda: jax.block_until_ready(step(params, zeros, zeros, t, *batch)),
    )


def plain(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    return _by_vmap(w, loss_of(w, tuned=False), params, support, query, order)


def im2col(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """As `plain`, with convolutions as im2col and one product: under vmap a batched product, not a grouped one."""
    return _by_vmap(w, loss_of(w), params, support, query, order)


def _by_vmap(w: Workload, loss: Any, params: Any, support: Any, query: Any, order: int) -> Made:

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
    if not isinstance(w, Images):  # vmap's products of small matrices are the fastest
        return plain(w, params, support, query, order)
    by_params = jax.grad(loss_of(w))
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


def products(w: Workload, params: Any, batch: Any, v: Any) -> dict[str, Callable[[], list[Any]]]:
    """The gradient of one task's loss, Hessian-vector products and both together, compiled; their leaves."""
    x, v = (jax.tree.map(lambda a: jnp.asarray(a[0]), tree) for tree in (params, v))
    batch = [jnp.asarray(batch[key][0]) for key in ("x", "y")]
    loss = loss_of(w)

    def gradient(x: Any, batch: Any) -> Any:
        return jax.grad(loss)(x, *batch)

    def forward_over_reverse(x: Any, v: Any, batch: Any) -> Any:
        return jax.jvp(lambda x: gradient(x, batch), (x,), (v,))

    def reverse_over_reverse(x: Any, v: Any, batch: Any) -> Any:
        g, pullback = jax.vjp(lambda x: gradient(x, batch), x)
        return g, pullback(v)[0]

    def reverse_over_forward(x: Any, v: Any, batch: Any) -> Any:
        return jax.grad(lambda x: jax.jvp(lambda x: loss(x, *batch), (x,), (v,))[1])(x)

    functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "gradient": (gradient, (x, batch)),
        "forward-over-reverse": (lambda *a: forward_over_reverse(*a)[1], (x, v, batch)),
        "reverse-over-reverse": (lambda *a: reverse_over_reverse(*a)[1], (x, v, batch)),
        "reverse-over-forward": (reverse_over_forward, (x, v, batch)),
        "gradient and product": (forward_over_reverse, (x, v, batch)),
    }

    def compiled(function: Callable[..., Any], arguments: Any) -> Callable[[], list[Any]]:
        function = jax.jit(function)
        return lambda: jax.tree.leaves(jax.block_until_ready(function(*arguments)))

    return {name: compiled(*pair) for name, pair in functions.items()}

"""Derivatives against another implementation's, to third order, in float64. JAX comes with the extra `bench`."""

import numpy as np
import pytest

import tinymaml as tm

jax = pytest.importorskip("jax", reason="needs jax, of the bench extra, to compare with")
jnp = jax.numpy

RNG = np.random.default_rng(11)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def normal(*shape):
    return RNG.normal(size=shape)


def mlp(np_):
    """Two hidden layers and a squared error, as each of the two writes it."""

    def loss(p):
        h = np_.tanh(p["x"] @ p["w"][0] + p["b"][0])
        h = (tm.softplus if np_ is tm else jax.nn.softplus)(h @ p["w"][1] + p["b"][1])
        return np_.mean((h @ p["w"][2] - 0.5) ** 2)

    return loss


def recurrent(np_):
    """Five steps of a small recurrent net."""

    def loss(p):
        h = p["start"]
        total = 0.0
        for t in range(5):
            gate = 1.0 / (1.0 + np_.exp(-(p["x"][t] @ p["gate"] + h @ p["keep"])))
            h = gate * h + (1.0 - gate) * np_.tanh(p["x"][t] @ p["in"] + h @ p["again"])
            total = total + np_.sum(h[:, 0] * h[:, -1])
        return total

    return loss


LABELS = RNG.integers(0, 5, (2, 3))


def cross_entropy(np_):
    def loss(p):
        logits = np_.exp(p["x"] @ p["w"] * 0.3)
        if np_ is tm:
            return tm.sum(tm.softmax_cross_entropy(logits, LABELS))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[..., None], -1)
        return -jnp.sum(jnp.mean(chosen[..., 0], 1))

    return loss


def indexing(np_):
    def loss(p):
        x = p["x"]
        y = np_.concatenate([x[::2, 1:], x[np.array([0, 0, 2]), 1:]], 0)
        y = np_.stack([y, y**2], 1).transpose((2, 0, 1))
        return np_.sum(np_.where(y > 0.0, y * y * y, np_.sin(y))) + np_.sum(np_.max(x * x, 1) ** 2)

    return loss


def elementwise(np_):
    def loss(p):
        x, y = p["x"], p["y"]
        z = np_.sqrt(y) * np_.log(y) + np_.log1p(y) * np_.cos(x) - np_.expm1(x) / y + np_.abs(x) ** 2.5
        return np_.sum(np_.minimum(z, 3.0 * y) + y**x) + np_.sum(np_.clip(x, -0.8, 0.9) ** 3)

    return loss


def reductions(np_):
    def loss(p):
        x = p["x"]
        logsumexp = tm.logsumexp if np_ is tm else jax.nn.logsumexp
        softmax = tm.softmax if np_ is tm else jax.nn.softmax
        y = logsumexp(x, 0) + np_.mean(x**3, 0) * np_.sum(np_.broadcast_to(x[:1], x.shape), 0)
        return np_.sum(softmax(y * 0.5, -1) * y)

    return loss


IMAGES = normal(2, 3, 7, 6, 2)


def convolutional(np_):
    """Convolutions of two strides, batch-norm with ReLU, max-pooling and cross-entropy, with weights for each task."""

    def conv(x, w, stride):
        if np_ is tm:
            return tm.conv2d(x, w, stride=stride)
        dimensions = ("NHWC", "HWIO", "NHWC")
        one = lambda x, w: jax.lax.conv_general_dilated(x, w, stride, "SAME", dimension_numbers=dimensions)  # noqa: E731
        return jax.vmap(one)(x, w)

    def norm(x, gamma, beta):
        if np_ is tm:
            return tm.batch_norm_relu(x, gamma, beta, eps=1e-3)
        m, v = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
        per_task = lambda p: p.reshape(p.shape[0], 1, 1, 1, -1)  # noqa: E731
        return jax.nn.relu((x - m) / jnp.sqrt(v + 1e-3) * per_task(gamma) + per_task(beta))

    def pool(x):
        if np_ is tm:
            return tm.max_pool2d(x, 2)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2, 1), (1, 1, 2, 2, 1), "VALID")

    def loss(p):
        x = pool(norm(conv(IMAGES, p["w1"], (1, 1)), p["gamma"], p["beta"]))
        x = norm(conv(x, p["w2"], (2, 2)), p["gamma"] * 0.5, p["beta"] - 0.1)
        logits = np_.mean(x, (2, 3)) @ p["head"]
        if np_ is tm:
            return tm.sum(tm.softmax_cross_entropy(logits, LABELS))
        return -jnp.sum(jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[..., None], -1), 1))

    return loss


SAMPLES = {
    convolutional: {
        "w1": normal(2, 3, 3, 2, 4),
        "w2": normal(2, 3, 2, 4, 4),
        "gamma": normal(1, 4),
        "beta": normal(2, 4),
        "head": normal(2, 4, 5),
    },
    mlp: {"x": normal(6, 3), "w": [normal(3, 4), normal(4, 4), normal(4, 2)], "b": [normal(4), normal(1, 4)]},
    recurrent: {
        "start": normal(2, 3),
        "x": normal(5, 2, 2),
        **{name: normal(2, 3) for name in ("gate", "in")},
        **{name: normal(3, 3) for name in ("keep", "again")},
    },
    cross_entropy: {"x": normal(2, 3, 4), "w": normal(1, 4, 5)},
    indexing: {"x": normal(4, 5)},
    elementwise: {"x": normal(3, 4), "y": RNG.uniform(0.5, 2.0, (1, 4))},
    reductions: {"x": normal(3, 4)},
}


@pytest.mark.parametrize("program", SAMPLES, ids=lambda program: program.__name__)
def test_against_jax(program):
    ours, theirs, params = program(tm), program(jnp), SAMPLES[program]
    v = tm.tree.map(lambda x: normal(*x.shape), params)

    def same(one, other):
        for a, b in zip(tm.tree.leaves(one), jax.tree_util.tree_leaves(other), strict=True):
            np.testing.assert_allclose(a, np.asarray(b), **TOLERANCE)

    def product(f):
        """The Hessian-vector product in JAX, forward over reverse."""
        return lambda p: jax.jvp(jax.grad(f), (p,), (v,))[1]

    def inner(a, b):
        return sum(jax.tree_util.tree_leaves(jax.tree_util.tree_map(jnp.vdot, a, b)))

    same(tm.value_and_grad(ours)(params), jax.value_and_grad(theirs)(params))
    same(tm.jvp(ours, (params,), (v,)), jax.jvp(theirs, (params,), (v,)))
    for mode in ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward"):
        same(tm.hvp(ours, params, v, mode=mode), product(theirs)(params))

        def curvature(p, mode=mode):
            results = tm.hvp(ours, p, v, mode=mode)
            return sum(tm.sum(a * b) for a, b in zip(tm.tree.leaves(results), tm.tree.leaves(v), strict=True))

        same(tm.grad(curvature)(params), jax.grad(lambda p: inner(product(theirs)(p), v))(params))


def test_hessian_against_jax():
    x = normal(4)

    def f(np_):
        return lambda x: np_.sum(np_.sin(x) * x[::-1]) ** 2

    np.testing.assert_allclose(tm.hessian(f(tm), x), jax.hessian(f(jnp))(x), **TOLERANCE)


def test_vector_jacobian_products_against_jax():
    w, x, g = normal(3, 2), normal(4, 3), {"y": normal(4, 2), "z": (normal(3),)}

    def f(np_):
        return lambda w, x: {"y": np_.tanh(x @ w), "z": (np_.sum(x, 0) * w[:, 0],)}

    ours, theirs = tm.vjp(f(tm), w, x)[1](g), jax.vjp(f(jnp), w, x)[1](g)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, **TOLERANCE)

"""The recorded graph: nesting, the modes of the Hessian-vector product, dtypes, memory, depth, threads."""

import gc
import itertools
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.autodiff.tensor import Node
from tinymaml.transforms import MODES

RNG = np.random.default_rng(5)
X = RNG.normal(size=4)
A = RNG.normal(size=(4, 4))
Point = namedtuple("Point", ["a", "b"])


# Perturbation confusion: an inner derivative must not see the outer variable's perturbation.


def test_perturbation_confusion():
    """d/dx [x d/dy (x + y)] at 1 is 1; who confuses the two variables gets 2 (Siskind and Pearlmutter, 2005)."""
    assert tm.grad(lambda x: x * tm.grad(lambda y: x + y)(1.0))(1.0) == 1.0

    def forward(f, x):
        return tm.jvp(f, (x,), (1.0,))[1]

    assert forward(lambda x: x * forward(lambda y: x + y, 1.0), 1.0) == 1.0
    assert tm.grad(lambda x: x * forward(lambda y: x + y, 1.0))(1.0) == 1.0
    assert forward(lambda x: x * tm.grad(lambda y: x + y)(1.0), 1.0) == 1.0


def derivatives():
    """The ways to the derivative of a function of one number."""

    def forward(f):
        return lambda x: tm.jvp(f, (x,), (1.0,))[1]

    def backward(f):
        return lambda x: tm.vjp(f, x)[1](1.0)[0]

    return {"grad": tm.grad, "forward": forward, "backward": backward}


@pytest.mark.parametrize("ways", list(itertools.product(derivatives(), repeat=3)), ids="-".join)
def test_any_nesting_of_derivatives(ways):
    """Three derivatives in any order, with the outer variable used inside, as the point and in the function."""
    one, two, three = (derivatives()[way] for way in ways)

    def nested(x):
        return one(lambda y: x * y * two(lambda z: x * y * tm.sin(z) * z + three(lambda w: w**3 * z)(x * z))(y))(x)

    # d/dz of [x y z sin z + 3 (x z)^2 z] at z = y is x y (sin y + y cos y) + 9 x^2 y^2
    def by_hand(x):
        # d/dy of x y (x y (sin y + y cos y) + 9 x² y²) at y = x
        sin, cos, y = np.sin(x), np.cos(x), x
        return x * x * (2 * y * (sin + y * cos) + y * y * (2 * cos - y * sin)) + 27 * x**3 * y * y

    assert nested(0.7) == pytest.approx(by_hand(0.7), rel=1e-13)
    h = 1e-5
    slope = (by_hand(0.7 + h) - by_hand(0.7 - h)) / (2 * h)
    for way in derivatives().values():
        assert way(nested)(0.7) == pytest.approx(slope, rel=1e-8)


def test_same_tensor_inside_and_outside():
    x = tm.Tensor(3.0)
    inner = tm.grad(lambda y: x * y * y)(x)  # 2 x y at y = x
    assert isinstance(inner, tm.Tensor)
    assert inner.item() == 18.0
    (total,) = tm.pull([inner], [x], [tm.ones_like(inner)])
    assert total.item() == 12.0  # d/dx of 2 x² = 4 x
    assert tm.grad(lambda x: tm.hvp(lambda y: x * y**3, x, 1.0))(2.0) == 24.0  # d/dx of 6 x²
    value, slope = tm.jvp(lambda x: tm.grad(lambda y: x * y * y)(x), (3.0,), (1.0,))
    assert (value, slope) == (18.0, 12.0)


def test_hvp_inside_everything():
    def curvature(x):
        return tm.sum(tm.hvp(lambda y: tm.sum(tm.sin(y) * x) + tm.sum(y**4), x, x))

    def by_hand(x):
        return np.sum(-np.sin(x) * x * x + 12 * x**3)

    expected = -np.cos(X) * X * X - 2 * np.sin(X) * X + 36 * X**2
    assert curvature(tm.Tensor(X)).item() == pytest.approx(by_hand(X), rel=1e-13)
    np.testing.assert_allclose(tm.grad(curvature)(X), expected, rtol=1e-12)
    np.testing.assert_allclose(tm.jvp(curvature, (X,), (np.ones(4),))[1], expected.sum(), rtol=1e-12)
    for mode in MODES[:3]:
        hessian = tm.hessian(lambda x, mode=mode: tm.sum(x * tm.hvp(lambda y: tm.sum(y**4), x, x, mode=mode)), X)
        np.testing.assert_allclose(hessian, np.diag(12 * 4 * 3 * X**2), rtol=1e-12)


def test_derivatives_by_cotangents_and_vectors_given_later():
    """A pullback and a Hessian-vector product are functions too, of what they are given: never a silent zero."""
    _, pullback = tm.vjp(lambda x: x * x, X)
    np.testing.assert_allclose(tm.grad(lambda g: tm.sum(pullback(g)[0]))(X).numpy(), 2 * X)
    np.testing.assert_allclose(tm.jvp(lambda g: pullback(g)[0], (X,), (X,))[1].numpy(), 2 * X * X)
    _, _, product = tm.grad_and_hvp(lambda x: tm.sum(x**3), X)
    np.testing.assert_allclose(tm.grad(lambda v: tm.sum(product(v) * v))(X).numpy(), 12 * X * X)
    assert isinstance(product(X), np.ndarray)


# The Hessian-vector product in all modes, against the dense Hessian and by hand.


FUNCTIONS = {
    "quadratic": lambda x: tm.sum(x @ A @ x),
    "quartic": lambda x: tm.sum((x * x) @ tm.as_tensor(A) @ (x * x)),
    "softplus net": lambda x: tm.sum(tm.softplus(tm.as_tensor(A) @ tm.tanh(tm.as_tensor(A) @ x)) ** 2),
    "logsumexp": lambda x: tm.logsumexp(tm.as_tensor(A) @ x * x),
    "linear": lambda x: tm.sum(x * 3.0),
    "constant": lambda x: tm.sum(tm.stop_gradient(x)),
    "gather": lambda x: tm.sum(x[[0, 0, 1]] * x[::-1][:3] ** 2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hessian_vector_products(name, mode):
    f, v = FUNCTIONS[name], RNG.normal(size=4)
    dense = tm.hessian(f, X)
    np.testing.assert_allclose(dense, dense.T, rtol=1e-12, atol=1e-12)
    results = tm.hvp(f, X, v, mode=mode)
    assert isinstance(results, np.ndarray)
    exact = mode != "finite-difference"
    np.testing.assert_allclose(results, dense @ v, rtol=1e-11 if exact else 1e-5, atol=1e-11 if exact else 1e-6)


def test_hessian_by_hand():
    np.testing.assert_allclose(tm.hessian(FUNCTIONS["quadratic"], X), A + A.T, rtol=1e-12)
    np.testing.assert_array_equal(tm.hessian(FUNCTIONS["linear"], X), np.zeros((4, 4)))
    results = tm.hessian(lambda p: tm.sum(p["a"] * p["b"][0] ** 2), {"a": np.ones(2), "b": [np.full(2, 3.0)]})
    np.testing.assert_allclose(results["a"]["b"][0], 6 * np.eye(2))
    np.testing.assert_allclose(results["b"][0]["b"][0], 2 * np.eye(2))
    np.testing.assert_allclose(results["a"]["a"], np.zeros((2, 2)))


def test_grad_and_hvp():
    f = FUNCTIONS["softplus net"]
    value, grad, product = tm.grad_and_hvp(f, X)
    assert value == f(tm.Tensor(X)).item()
    np.testing.assert_array_equal(grad, tm.grad(f)(X))
    for v in np.eye(4):
        np.testing.assert_allclose(product(v), tm.hvp(f, X, v), rtol=1e-12)


def test_unused_parameters_have_zeros():
    params = {"used": np.ones(2), "unused": np.ones((3, 1), np.float64)}
    for mode in MODES:
        results = tm.hvp(lambda p: tm.sum(p["used"] ** 3), params, params, mode=mode)
        np.testing.assert_array_equal(results["unused"], np.zeros((3, 1)))
        np.testing.assert_allclose(results["used"], 6 * np.ones(2), rtol=1e-8)
    assert tm.grad(lambda p: 3.0)(params)["used"].tolist() == [0, 0]
    assert tm.jvp(lambda x: tm.ones_like(x), (X,), (X,))[1].tolist() == [0] * 4


def test_stop_gradient():
    assert tm.grad(lambda x: x * tm.stop_gradient(x))(3.0) == 3.0
    assert tm.jvp(lambda x: x * tm.stop_gradient(x), (3.0,), (1.0,))[1] == 3.0
    assert tm.hvp(lambda x: x * x * tm.stop_gradient(x), 3.0, 1.0) == 6.0
    assert tm.grad(lambda x: tm.stop_gradient(tm.grad(lambda y: y * y * y)(x)) * x)(2.0) == 12.0


# Pytrees.


def test_pytrees():
    params = {"b": [np.ones(2), (np.full(3, 2.0), None)], "a": Point(np.array(3.0), {"z": np.array([4.0])})}

    def f(p):
        return p["a"].a * tm.sum(p["b"][0]) * tm.sum(p["b"][1][0] ** 2) + tm.sum(p["a"].b["z"])

    value, grads = tm.value_and_grad(f)(params)
    assert value == 3 * 2 * 12 + 4
    assert list(grads) == ["a", "b"]
    assert isinstance(grads["a"], Point)
    assert isinstance(grads["b"], list)
    assert isinstance(grads["b"][1], tuple)
    assert grads["b"][1][1] is None
    assert grads["a"].a == 24
    np.testing.assert_array_equal(grads["b"][0], [36, 36])
    np.testing.assert_array_equal(grads["b"][1][0], 6 * np.full(3, 4.0))
    np.testing.assert_array_equal(grads["a"].b["z"], [1])
    y, back = tm.vjp(lambda p: {"s": p["a"].a, "t": (p["b"][0],)}, params)
    assert y["s"] == 3
    (results,) = back({"s": 2.0, "t": (np.array([5.0, 6.0]),)})
    assert results["a"].a == 2
    assert results["b"][0].tolist() == [5, 6]
    y, slope = tm.jvp(lambda p, q: [p["a"].a * q], (params, 2.0), (params, 1.0))
    assert (y, slope) == ([6.0], [9.0])


def test_argnums_and_other_arguments():
    def f(x, name, y, scale=1.0):
        assert name == "plain"
        return tm.sum(x * y) * scale

    assert tm.grad(f, 2)(X, "plain", X).tolist() == X.tolist()
    dx, dy = tm.grad(f, (0, 2))(X, "plain", np.ones(4), scale=2.0)
    assert dx.tolist() == [2] * 4
    assert dy.tolist() == (2 * X).tolist()


# Dtypes.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_stay(dtype):
    x = X.astype(dtype)

    def f(x):
        y = (2 * x + 1 - x / 3) ** 2 * 0.5 + tm.where(x > 0, x, 0.0) - tm.clip(x, -1, 1)
        return tm.mean(tm.concatenate([y, tm.maximum(x, 0.1)])) + tm.logsumexp(x) + tm.max(x)

    value, grad = tm.value_and_grad(f)(x)
    assert value.dtype == grad.dtype == dtype
    for mode in MODES:
        assert tm.hvp(f, x, x, mode=mode).dtype == dtype
    assert tm.hessian(f, x).dtype == dtype
    assert all(part.dtype == dtype for part in tm.jvp(f, (x,), (x,)))
    assert tm.jvp(f, (x,), (np.ones(4, dtype),))[1].dtype == dtype
    assert (tm.Tensor(x) * 2).dtype == (2.5 + tm.Tensor(x)).dtype == (tm.Tensor(x) ** 2).dtype == dtype


def test_dtypes_are_never_mixed():
    single, double = tm.Tensor(X.astype(np.float32)), tm.Tensor(X)
    for mix in (
        lambda: single + double,
        lambda: X * single,
        lambda: tm.matmul(single, double),
        lambda: tm.concatenate([single, double]),
        lambda: tm.where(single > 0, single, double),
        lambda: tm.mse(single, X),
    ):
        with pytest.raises(TypeError, match=r"float32 and another is|float64 and another is"):
            mix()
    assert (single.astype(np.float64) + double).dtype == np.float64
    assert tm.grad(lambda x: tm.sum(x.astype(np.float64) * X))(single.data).dtype == np.float32
    for bad in (
        lambda: tm.hvp(lambda x: tm.sum(x * x), single.data, X),
        lambda: tm.jvp(tm.tanh, (single.data,), (X,)),
        lambda: tm.vjp(tm.tanh, single.data)[1](X),
    ):
        with pytest.raises(ValueError, match="expected \\(4,\\) float32, got \\(4,\\) float64"):
            bad()


def test_integers_are_refused():
    for variable in (np.arange(3), 3, [1, 2], np.array([True]), np.ones(2, np.float16), np.ones(2, complex)):
        with pytest.raises(TypeError, match="a variable must be float32 or float64, got"):
            tm.Tensor(variable)
    with pytest.raises(TypeError, match=r"the argument to differentiate by, \[0\]\['w'\]\[1\]: .* got int64"):
        tm.grad(lambda p: tm.sum(p["w"][0]))({"w": [X, np.arange(3)]})
    with pytest.raises(TypeError, match=r"params, .*got int64"):
        tm.hvp(lambda x: x, 3, 1)
    with pytest.raises(TypeError, match=r"add: input 1 is int64 and another is float64"):
        tm.Tensor(X) + np.arange(4)
    with pytest.raises(TypeError, match="exp: input 0 is int64, expected float32 or float64"):
        tm.exp(np.arange(3))
    with pytest.raises(TypeError, match=r"multiply: input 1 is bool .*cast one with"):
        tm.Tensor(X) * (tm.Tensor(X) > 0)
    with pytest.raises(TypeError, match="astype: expected float32 or float64, got int32"):
        tm.Tensor(X).astype(np.int32)
    assert (tm.Tensor(X) > 0).astype(np.float64).data.tolist() == (X > 0).astype(float).tolist()


def test_comparisons_of_integers_do_not_round():
    assert (tm.as_tensor(np.array([1, 2])) >= 1.5).data.tolist() == [False, True]


# Memory and depth.


@contextmanager
def without_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def step(w, x, y):
    def loss(w):
        return tm.mean(tm.mse(tm.relu(tm.dense(x, w)), y))

    grad = tm.grad(loss)(w)
    return w - np.float32(1e-3) * (grad + tm.hvp(loss, w, grad))


def test_graphs_are_freed_without_the_collector():
    """Memory is flat over 10 000 steps with a gradient and a Hessian-vector product in each."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.normal(size=(2, 4, 2)).astype(np.float32)
    w = rng.normal(size=(1, 3, 2)).astype(np.float32)
    with without_collector():
        blocks = []
        for i in range(10_001):
            w = step(w, x, y)
            if i % 2_500 == 0:
                blocks.append(sys.getallocatedblocks())
    assert max(blocks[1:]) - min(blocks[1:]) < 200, f"blocks of memory alive after every 2 500 steps: {blocks}"


def test_no_cycles():
    """The collector finds nothing that it would have to free: counting references is enough."""
    model = tm.nn.mlp([1, 4, 1])
    params = model.init(np.random.default_rng(0))
    batch = (np.ones((3, 5, 1), np.float32), np.zeros((3, 5, 1), np.float32))
    optimiser = tm.optim.adam()

    def everything():
        loss = lambda p, b: tm.mse(model.apply(p, b[0]), b[1])  # noqa: E731
        for settings in ({}, {"records": "recompute"}, {"order": 1}, {"learn_alpha": True}, {"mode": MODES[1]}):
            results = tm.meta_value_and_grad(loss, params, batch, batch, 0.01, 2, **settings)[1]
        optimiser.update(results, optimiser.init(results), results)
        tm.adapt(loss, params, batch, 0.01, 2)
        tm.hessian(FUNCTIONS["gather"], X)

    everything()
    with without_collector():
        everything()
        assert gc.collect() == 0


def test_every_node_is_freed():
    def alive():
        return sum(isinstance(thing, Node) for thing in gc.get_objects())

    with without_collector():
        before = alive()
        x = tm.Tensor(X)
        y = FUNCTIONS["softplus net"](x)
        (g,) = tm.pull([y], [x], [tm.ones_like(y)])
        (h,) = tm.push([g], [x], [g])
        (third,) = tm.pull([h], [x], [h])
        pullback = tm.vjp(FUNCTIONS["quartic"], X)[1]
        product = tm.grad_and_hvp(FUNCTIONS["quartic"], X)[2]
        pullback(1.0), product(X)
        assert alive() > before + 100
        del x, y, g, h, third, pullback, product
        assert alive() == before


def test_constants_record_nothing():
    x = tm.as_tensor(X)
    for _ in range(100):
        x = tm.tanh(x) * 2.0
    assert x.node.inputs == ()


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_twenty_thousand_ops_in_a_row(mode):
    x = tm.Tensor(0.5)
    y = x
    for _ in range(20_000):
        y = y * 1.0001
    slope = 1.0001**20_000
    assert y.item() == pytest.approx(0.5 * slope)
    results = tm.pull([y], [x], [tm.ones_like(y)]) if mode == "pull" else tm.push([y], [x], [tm.ones_like(x)])
    assert results[0].item() == pytest.approx(slope)
    del y, results  # 20 000 nodes, each held by the next
    deep = tm.Tensor(1.0)
    for _ in range(200_000):
        deep = -deep
    del deep


def test_deep_second_order():
    def f(x):
        y = x
        for _ in range(5_000):
            y = tm.sin(y) * 0.1 + x
        return y

    v = np.array(1.0)
    results = [tm.hvp(f, np.array(0.3), v, mode=mode) for mode in MODES[:3]]
    np.testing.assert_allclose(results, results[0], rtol=1e-12)


def test_sweeps_cost_only_what_lies_between(monkeypatch):
    """However long the history below an input is, it is not visited."""
    from tinymaml.autodiff import sweeps

    x = tm.Tensor(0.5)
    for _ in range(1_000):
        x = x * 1.0001
    y = tm.sin(x) * x
    nodes, reached = sweeps.between([y], [x])
    assert [node.primitive.name for node in nodes] == ["sin", "multiply"]
    assert len(reached) == 3


# Threads.


def test_threads_differentiate_at_once():
    def work(k, results):
        x = X * (1 + k)
        for _ in range(30):
            results[k] = (tm.grad(FUNCTIONS["softplus net"])(x), tm.hvp(FUNCTIONS["quartic"], x, X))

    together, alone = {}, {}
    threads = [threading.Thread(target=work, args=(k, together)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        work(k, alone)
        for one, other in zip(together[k], alone[k], strict=True):
            np.testing.assert_array_equal(one, other)

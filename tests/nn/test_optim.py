"""Optimisers against loops written out by hand, on pytrees; and schedules."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml import optim

drawn = settings(max_examples=20, deadline=None, derandomize=True, database=None)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
OPTIMISERS = {
    "sgd": lambda rate: optim.sgd(rate),
    "momentum": lambda rate: optim.momentum(rate, 0.8),
    "nesterov": lambda rate: optim.momentum(rate, 0.8, nesterov=True),
    "adam": lambda rate: optim.adam(rate),
}
every = pytest.mark.parametrize("name", OPTIMISERS)


def by_hand(name, x, gradients, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """One number, or array, after some steps, in float64."""
    x, u, m, v = np.array(x, np.float64), 0.0, 0.0, 0.0
    for t, g in enumerate(gradients):
        a = rate(t) if callable(rate) else rate
        if name == "sgd":
            x = x - a * g
        elif name == "momentum":
            u = 0.8 * u + g
            x = x - a * u
        elif name == "nesterov":
            u = 0.8 * u + g
            x = x - a * (0.8 * u + g)
        else:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            x = x - a * (m / (1 - beta1 ** (t + 1))) / (np.sqrt(v / (1 - beta2 ** (t + 1))) + epsilon)
    return x


def tree_of(rng, dtype):
    """Arrays of several shapes, one of them without axes."""
    w, b, scale = (rng.normal(size=shape) for shape in ((1, 3, 4), (1, 1, 4), ()))
    return tm.tree.map(lambda x: np.asarray(x, dtype), {"w": w, "b": [b, scale]})


def run(optimiser, params, gradients):
    state = optimiser.init(params)
    for grads in gradients:
        params, state = optimiser.update(grads, state, params)
    return params, state


@every
@DTYPES
@drawn
@given(seed=st.integers(0, 1000), steps=st.integers(0, 6), scheduled=st.booleans())
def test_against_a_loop(name, dtype, seed, steps, scheduled):
    rng = np.random.default_rng(seed)
    params = tree_of(rng, dtype)
    gradients = [tree_of(rng, dtype) for _ in range(steps)]
    rate = optim.warmup(optim.exponential(0.1, 0.5, every=3), 2) if scheduled else 0.05
    actual, _ = run(OPTIMISERS[name](rate), params, gradients)
    columns = [tm.tree.leaves(grads) for grads in gradients]
    for i, (x, y) in enumerate(zip(tm.tree.leaves(params), tm.tree.leaves(actual), strict=True)):
        expected = by_hand(name, x, [np.asarray(leaves[i], np.float64) for leaves in columns], rate)
        tolerance = 1e-12 if dtype is np.float64 else 1e-5
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@every
@DTYPES
def test_inputs_are_left_alone_and_dtypes_and_structures_kept(name, dtype):
    rng = np.random.default_rng(0)
    optimiser = OPTIMISERS[name](0.1)
    params, grads = tree_of(rng, dtype), tree_of(rng, dtype)
    state = optimiser.init(params)
    structure = tm.tree.flatten(state)[1]
    for _ in range(3):
        given_trees = (params, grads, state)
        copies = tm.tree.map(np.copy, given_trees)
        new = optimiser.update(grads, state, params)
        for one, other in zip(tm.tree.leaves(given_trees), tm.tree.leaves(copies), strict=True):
            np.testing.assert_array_equal(one, other)
        for x in tm.tree.leaves(new):
            assert isinstance(x, np.ndarray)
            assert not any(np.shares_memory(x, old) for old in tm.tree.leaves(given_trees))
        params, state = new
        assert tm.tree.flatten(state)[1] == structure
        assert tm.tree.flatten(params)[1] == tm.tree.flatten(grads)[1]
        assert {x.dtype for x in tm.tree.leaves(params)} == {np.dtype(dtype)}
        assert {x.dtype for x in tm.tree.leaves(state)} <= {np.dtype(dtype), np.dtype(np.int64)}
    assert state["iteration"] == 3


@every
def test_the_same_from_the_same_state(name):
    """The state is all there is: going on from a copy of it gives the same bits."""
    rng = np.random.default_rng(0)
    optimiser = OPTIMISERS[name](0.1)
    params, state = run(optimiser, tree_of(rng, np.float32), [tree_of(rng, np.float32) for _ in range(3)])
    grads = tree_of(rng, np.float32)
    one = optimiser.update(grads, state, params)
    other = OPTIMISERS[name](0.1).update(grads, *tm.tree.map(np.copy, (state, params)))
    for x, y in zip(tm.tree.leaves(one), tm.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_adams_first_step_is_the_rate_whatever_the_gradient(size):
    g = size * np.array([1.0, -2.0, 0.5])
    x, _ = run(optim.adam(0.01), np.zeros(3), [g])
    np.testing.assert_allclose(x, -0.01 * g / (np.abs(g) + 1e-8), rtol=1e-12)
    np.testing.assert_allclose(x, -0.01 * np.sign(g), rtol=3e-4)


def test_adam_with_a_constant_gradient_moves_by_the_rate():
    """Both averages are exact from the first step on, by the corrections for their start at 0."""
    x, _ = run(optim.adam(0.01), np.zeros(2), [np.array([3.0, -0.2])] * 50)
    np.testing.assert_allclose(x, [-0.5, 0.5], rtol=1e-6)


def test_adam_stands_still_without_a_gradient():
    x, _ = run(optim.adam(0.01), np.ones(3), [np.zeros(3)] * 5)
    np.testing.assert_array_equal(x, np.ones(3))


def test_adams_settings():
    rng = np.random.default_rng(0)
    x, gs = rng.normal(size=4), rng.normal(size=(5, 4))
    settings_ = {"beta1": 0.5, "beta2": 0.7, "epsilon": 0.1}
    results, _ = run(optim.adam(0.1, **settings_), x, gs)
    np.testing.assert_allclose(results, by_hand("adam", x, gs, 0.1, **settings_), rtol=1e-12)


@every
def test_the_way_to_the_bottom(name):
    """A quadratic of badly scaled curvature is minimised."""
    curvature = np.array([1.0, 5.0])
    optimiser = OPTIMISERS[name](0.05)
    x = np.array([1.0, 1.0])
    state = optimiser.init(x)
    for _ in range(500):
        x, state = optimiser.update(curvature * x, state, x)
    assert np.abs(x).max() < 1e-3


def test_momentum_without_decay_is_gradient_descent():
    rng = np.random.default_rng(0)
    x, gs = rng.normal(size=3), rng.normal(size=(4, 3))
    expected = run(optim.sgd(0.1), x, gs)[0]
    for nesterov in (False, True):
        np.testing.assert_allclose(run(optim.momentum(0.1, 0.0, nesterov), x, gs)[0], expected, rtol=1e-14)


def test_cosine():
    schedule = optim.cosine(1.0, 10, end=0.2)
    assert [schedule(i) for i in (0, 5, 10, 100)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert schedule(3) == pytest.approx(0.2 + 0.4 * (1 + math.cos(0.3 * math.pi)))
    values = [schedule(i) for i in range(11)]
    assert values == sorted(values, reverse=True)


def test_exponential():
    assert [optim.exponential(0.8, 0.5)(i) for i in range(3)] == pytest.approx([0.8, 0.4, 0.2])
    assert optim.exponential(0.8, 0.5, every=10)(10) == pytest.approx(0.4)
    assert optim.exponential(0.8, 0.5, every=10)(5) == pytest.approx(0.8 * math.sqrt(0.5))


def test_warmup():
    schedule = optim.warmup(0.4, 4)
    assert [schedule(i) for i in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    later = optim.warmup(optim.cosine(1.0, 10), 2)
    assert later(0) == pytest.approx(0.5) and later(7) == pytest.approx(optim.cosine(1.0, 10)(7))


@every
def test_a_schedule_is_asked_for_each_iteration(name):
    asked = []

    def schedule(iteration):
        asked.append(iteration)
        return 0.1

    run(OPTIMISERS[name](schedule), np.ones(2), [np.ones(2)] * 4)
    assert asked == [0, 1, 2, 3]

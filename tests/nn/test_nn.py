"""Layers: what they start from, and that they run with shared weights and with each task's own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml import nn

drawn = settings(max_examples=25, deadline=None, derandomize=True, database=None)
SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=4)
NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


def test_every_activation_is_tested():
    assert set(NUMPY) == set(nn.ACTIVATIONS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@drawn
@given(sizes=SIZES, initialiser=st.sampled_from(sorted(nn.INITIALISERS)))
def test_what_init_gives(dtype, sizes, initialiser):
    model = nn.mlp(sizes, initialiser=initialiser)
    params = model.init(np.random.default_rng(0), dtype)
    assert len(params) == len(sizes) - 1
    for layer, i, o in zip(params, sizes, sizes[1:], strict=False):
        assert layer.keys() == {"w", "b"}
        assert layer["w"].shape == (1, i, o) and layer["b"].shape == (1, 1, o)
        assert layer["w"].dtype == layer["b"].dtype == dtype
        assert not layer["b"].any() and layer["w"].all()
    again = model.init(np.random.default_rng(0), dtype)
    for one, other in zip(tm.tree.leaves(params), tm.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_parameters_are_float32_by_default():
    assert {x.dtype for x in tm.tree.leaves(nn.mlp([1, 2, 1]).init(np.random.default_rng(0)))} == {np.dtype(np.float32)}


def test_he_normal():
    w = nn.he_normal(np.random.default_rng(0), 200, 500)
    assert abs(w.mean()) < 4 * w.std() / math.sqrt(w.size)
    assert w.std() == pytest.approx(math.sqrt(2 / 200), rel=0.01)
    assert np.mean(np.abs(w) > 1.96 * w.std()) == pytest.approx(0.05, abs=0.005)


def test_xavier_uniform():
    w = nn.xavier_uniform(np.random.default_rng(0), 200, 400)
    limit = math.sqrt(6 / 600)
    assert 0.999 * limit < np.abs(w).max() <= limit
    assert w.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert abs(w.mean()) < 4 * w.std() / math.sqrt(w.size)


def test_truncated_normal():
    w = nn.truncated_normal(np.random.default_rng(0), 200, 500)
    assert 0.0199 < np.abs(w).max() <= 0.02
    assert w.std() == pytest.approx(0.01 * 0.8796, rel=0.01)  # of a normal cut at two sigmas
    assert abs(w.mean()) < 4 * w.std() / math.sqrt(w.size)


@pytest.mark.parametrize("activation", NUMPY)
@drawn
@given(sizes=SIZES, tasks=st.integers(1, 4), examples=st.integers(1, 4), own=st.booleans())
def test_apply_is_what_numpy_gives(activation, sizes, tasks, examples, own):
    rng = np.random.default_rng(0)
    model = nn.mlp(sizes, activation=activation, initialiser="xavier-uniform")
    params = tm.tree.map(lambda x: x + rng.normal(size=x.shape), model.init(rng, np.float64))
    if own:
        params = tm.tree.map(lambda x: rng.normal(size=(tasks, *x.shape[1:])), params)
    x = rng.normal(size=(tasks, examples, sizes[0]))
    y = model.apply(params, x)
    assert isinstance(y, tm.Tensor) and y.shape == (tasks, examples, sizes[-1])
    for t in range(tasks):
        h = x[t]
        for k, layer in enumerate(params):
            w, b = (layer[name][t if own else 0] for name in "wb")
            h = (NUMPY[activation](h) if k else h) @ w + b
        np.testing.assert_allclose(y.data[t], h, rtol=1e-12, atol=1e-12)


@drawn
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_linear(tasks, examples, inputs, outputs):
    rng = np.random.default_rng(0)
    model = nn.linear(inputs, outputs)
    params = model.init(rng)
    x = rng.normal(size=(tasks, examples, inputs)).astype(np.float32)
    y = model.apply(params, x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.data, x @ params["w"] + params["b"], rtol=1e-5, atol=1e-5)


def test_shared_and_repeated_weights_agree():
    rng = np.random.default_rng(0)
    model = nn.mlp([2, 5, 1], activation="tanh")
    params = model.init(rng, np.float64)
    x = rng.normal(size=(3, 4, 2))
    repeated = tm.tree.map(lambda p: np.repeat(p, 3, 0), params)
    np.testing.assert_allclose(model.apply(params, x).data, model.apply(repeated, x).data, rtol=1e-13)

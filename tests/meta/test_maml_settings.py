"""Every setting of the meta-gradient: step sizes, what is adapted, clipping; each against the recorded adaptation."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.maml_cases import (
    DRAWN,
    EXACT_MODES,
    STEPS,
    Problem,
    by_hand,
    close,
    directional,
    flat,
    inner,
    problem,
    problems,
    unrolled,
)

ALPHA = 0.2


class Network(NamedTuple):
    w: Any


def _per_task(p):
    tasks = len(p.support["x"])
    return np.linspace(0.1, 0.4, tasks).reshape(tasks, 1, 1)


# Every shape that a step size may have. Arrays may be negative in places, as learned ones become.
ALPHAS = {
    "a number": lambda p, rng: 0.3,
    "an array without axes": lambda p, rng: np.array(0.3),
    "a number for each layer": lambda p, rng: [0.1, 0.4],
    "a number for a layer, a tree for the other": lambda p, rng: [0.1, {"w": 0.4, "b": 0.2}],
    "a number for each parameter": lambda p, rng: [{"w": 0.1, "b": 0.4}, {"w": 0.2, "b": 0.3}],
    "like the parameters": lambda p, rng: tm.tree.map(lambda x: rng.normal(0.2, 0.2, x.shape), p.params),
    "shared by the tasks": lambda p, rng: tm.tree.map(lambda x: rng.normal(0.2, 0.2, (1, *x.shape[1:])), p.params),
    "one for each unit": lambda p, rng: [rng.normal(0.2, 0.2, (p.params[0]["b"].shape[2],)), np.array([0.3])],
    "one for each row": lambda p, rng: [{"w": rng.normal(0.2, 0.2, (2, 1)), "b": 0.1}, 0.2],
    "one for each task": lambda p, rng: _per_task(p),
    "one for each task and layer": lambda p, rng: [_per_task(p), 0.1],
}
ADAPTED = {
    "all": True,
    "all, spelt out": [{"w": True, "b": True}, {"w": True, "b": np.True_}],
    "the head (ANIL)": [False, True],
    "the body": [True, False],
    "the biases": [{"w": False, "b": True}, {"w": False, "b": True}],
    "a part": [{"w": True, "b": False}, False],
}
alphas, masks = pytest.mark.parametrize("alpha", ALPHAS), pytest.mark.parametrize("adapted", ADAPTED)


@alphas
@DRAWN
@given(p=problems(), steps=STEPS, mode=st.sampled_from(EXACT_MODES), records=st.sampled_from(["keep", "recompute"]))
def test_alpha_and_its_gradient(alpha, p, steps, mode, records):
    rates = ALPHAS[alpha](p, np.random.default_rng(0))
    plain = tm.meta_value_and_grad(*p, rates, steps, mode=mode, records=records)
    value, (grads, by_alpha) = tm.meta_value_and_grad(*p, rates, steps, mode=mode, records=records, learn_alpha=True)
    expected, (expected_grads, expected_by_alpha) = unrolled(p, rates, steps)
    close((value, grads), plain, 0)
    close((value, grads), (expected, expected_grads))
    close(by_alpha, expected_by_alpha)
    for g, a in zip(tm.tree.leaves(by_alpha), tm.tree.leaves(rates), strict=True):
        assert isinstance(g, np.ndarray) and g.shape == np.shape(a) and np.all(g != 0)
    close(tm.adapt(*p[:3], rates, steps), tm.tree.map(lambda x: x.data, by_hand(p, p.params, constants(rates), steps)))


def constants(trees):
    return tm.tree.map(lambda x: tm.Tensor(np.asarray(x, np.float64)), trees)


@alphas
@DRAWN
@given(p=problems(), steps=STEPS, seed=st.integers(0, 1000))
def test_the_gradient_by_alpha_against_a_finite_difference(alpha, p, steps, seed):
    rates = tm.tree.map(lambda a: np.asarray(a, np.float64), ALPHAS[alpha](p, np.random.default_rng(0)))

    def objective(rates):
        return np.mean(p.loss(tm.adapt(*p[:3], rates, steps), p.query).data)

    _, (_, by_alpha) = tm.meta_value_and_grad(*p, rates, steps, learn_alpha=True)
    v, slope = directional(objective, rates, seed)
    close(inner(by_alpha, v), slope, 1e-6)


@masks
@pytest.mark.parametrize("learn_alpha", [False, True])
@DRAWN
@given(p=problems(), steps=STEPS, mode=st.sampled_from(EXACT_MODES), records=st.sampled_from(["keep", "recompute"]))
def test_adapted(adapted, learn_alpha, p, steps, mode, records):
    mask = ADAPTED[adapted]
    rates = [{"w": 0.1, "b": 0.4}, {"w": 0.2, "b": 0.3}]
    settings = {"mode": mode, "records": records, "adapted": mask, "learn_alpha": learn_alpha}
    value, grads = tm.meta_value_and_grad(*p, rates, steps, **settings)
    expected, (by_params, by_alpha) = unrolled(p, rates, steps, adapted=mask)
    close(value, expected)
    close(grads, (by_params, by_alpha) if learn_alpha else by_params)
    near = tm.meta_value_and_grad(*p, rates, steps, **settings | {"mode": "finite-difference"})
    close(near, (value, grads), 1e-6)


@masks
@DRAWN
@given(p=problems(), steps=STEPS, seed=st.integers(0, 1000))
def test_adapted_against_a_finite_difference(adapted, p, steps, seed):
    mask = ADAPTED[adapted]

    def objective(params):
        return np.mean(p.loss(tm.adapt(p.loss, params, p.support, ALPHA, steps, adapted=mask), p.query).data)

    v, slope = directional(objective, p.params, seed)
    close(inner(tm.meta_value_and_grad(*p, ALPHA, steps, adapted=mask)[1], v), slope, 1e-6)


@masks
def test_what_is_not_adapted_comes_back_as_it_was(adapted):
    p = problem(0)
    structure = tm.tree.flatten(p.params)[1]
    phi = tm.adapt(*p[:3], ALPHA, 2, adapted=ADAPTED[adapted])
    chosen = tm.tree.spread(ADAPTED[adapted], structure, "adapted")
    for x, y, mask in zip(tm.tree.leaves(p.params), tm.tree.leaves(phi), chosen, strict=True):
        assert y.shape == (3, *x.shape[1:])
        assert (y != x).any() == bool(mask)


@DRAWN
@given(p=problems(), steps=STEPS, alpha=st.sampled_from([0.2, "tree"]))
def test_first_order_with_settings(p, steps, alpha):
    rates = [0.1, {"w": 0.4, "b": 0.2}] if alpha == "tree" else alpha
    mask = [{"w": True, "b": False}, True]

    def objective(params, rates):
        return tm.mean(p.loss(by_hand(p, params, rates, steps, adapted=mask, graph=False), p.query))

    arrays = tm.tree.map(np.asarray, rates)
    value, grads = tm.value_and_grad(objective, (0, 1))(p.params, arrays)
    for records in ("keep", "recompute"):
        settings = {"order": 1, "adapted": mask, "records": records}
        close(tm.meta_value_and_grad(*p, rates, steps, learn_alpha=True, **settings), (value, grads))
        close(tm.meta_value_and_grad(*p, rates, steps, **settings), (value, grads[0]))


@DRAWN
@given(p=problems(), bound=st.floats(1e-3, 0.3), steps=STEPS)
def test_clipping_by_element(p, bound, steps):
    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps)
    clipped = tm.meta_value_and_grad(*p, ALPHA, steps, clip_element=bound)
    close(clipped, (value, tm.tree.map(lambda g: np.clip(g, -bound, bound), grads)), 1e-15)


def by_norm(grads, bound):
    norm = np.linalg.norm(flat(grads))
    return tm.tree.map(lambda g: g * min(1.0, bound / norm) if norm else g, grads)


@DRAWN
@given(p=problems(), bound=st.floats(1e-3, 3.0), steps=STEPS, learn_alpha=st.booleans())
def test_clipping_by_norm(p, bound, steps, learn_alpha):
    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps, learn_alpha=learn_alpha)
    clipped = tm.meta_value_and_grad(*p, ALPHA, steps, learn_alpha=learn_alpha, clip_norm=bound)
    close(clipped, (value, by_norm(grads, bound)), 1e-14)
    assert np.linalg.norm(flat(clipped[1])) <= bound * (1 + 1e-12)


@DRAWN
@given(p=problems(), element=st.floats(1e-2, 0.3), norm=st.floats(1e-2, 1.0))
def test_clipping_by_element_comes_first(p, element, norm):
    value, grads = tm.meta_value_and_grad(*p, ALPHA, 2)
    clipped = tm.meta_value_and_grad(*p, ALPHA, 2, clip_element=element, clip_norm=norm)
    close(clipped, (value, by_norm(tm.tree.map(lambda g: np.clip(g, -element, element), grads), norm)), 1e-14)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_clipping_by_norm_neither_overflows_nor_vanishes(size):
    """In float32 the squares of these gradients are infinite, or zero."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(1, 3)).astype(np.float32)
    support = query = rng.normal(size=(2, 3)).astype(np.float32)
    p = Problem(lambda w, x: tm.sum(w * x, axis=1), w, support, query)
    scaled = p._replace(query=query * np.float32(size))
    plain = tm.meta_value_and_grad(*scaled, ALPHA, 1)[1]
    np.testing.assert_allclose(
        tm.meta_value_and_grad(*scaled, ALPHA, 1, clip_norm=size / 10)[1],
        plain / np.linalg.norm(plain.astype(np.float64)) * size / 10,
        rtol=1e-5,
    )


def test_clipping_leaves_a_gradient_of_zero_alone():
    p = Problem(lambda w, x: tm.sum(w * x, axis=1), np.ones((1, 3)), np.ones((2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(tm.meta_value_and_grad(*p, ALPHA, 1, clip_norm=1.0)[1], np.zeros((1, 3)))


@DRAWN
@given(problems(), STEPS, st.sampled_from(EXACT_MODES), st.sampled_from(["keep", "recompute"]))
def test_a_learned_loss(p, steps, mode, records):
    """Parameters that the support loss alone uses are reached through the inner steps, adapted or not."""

    def loss(params, batch):
        y = batch["y"]
        if "inner" in batch:
            return tm.mean((out(params["net"], batch) - y) ** 2 * tm.exp(params["scale"]), axis=(1, 2))
        return tm.mse(out(params["net"], batch), y)

    def out(net, batch):
        h = tm.tanh(tm.dense(batch["x"], net[0]["w"], net[0]["b"]))
        return tm.dense(h, net[1]["w"], net[1]["b"])

    params = {"net": p.params, "scale": np.full((1, 1, 1), 0.3)}
    inside = {**p.support, "inner": np.ones((len(p.support["x"]), 1))}
    scaled = Problem(loss, params, inside, p.query)
    for mask in ({"net": True, "scale": False}, True):
        _, grads = tm.meta_value_and_grad(*scaled, ALPHA, steps, mode=mode, records=records, adapted=mask)
        close(grads, unrolled(scaled, ALPHA, steps, adapted=mask)[1][0])
        assert grads["scale"].item() != 0


def test_named_tuples_and_lone_arrays_as_parameters():
    p = problem(5)
    x, y = p.support["x"], p.support["y"]
    lone = Problem(lambda w, b: tm.mse(tm.tanh(b[0] @ w), b[1]), np.ones((1, 2, 1)), (x, y), (x + 1, y))
    value, grads = tm.meta_value_and_grad(*lone, ALPHA, 2)
    wrapped = Problem(lambda n, b: lone.loss(n.w, b), Network(lone.params), lone.support, lone.query)
    result, tuples = tm.meta_value_and_grad(*wrapped, Network(ALPHA), 2, adapted=Network(True))
    assert isinstance(tuples, Network)
    close((result, tuples.w), (value, grads), 0)

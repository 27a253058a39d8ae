"""The explicit meta-gradient equals differentiating through the whole recorded adaptation, and a finite difference."""

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


@DRAWN
@given(problems(), st.integers(0, 5), st.sampled_from(EXACT_MODES), st.sampled_from(["keep", "recompute"]))
def test_equals_the_gradient_through_the_recorded_adaptation(p, steps, mode, records):
    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps, mode=mode, records=records)
    expected, (expected_grads, _) = unrolled(p, ALPHA, steps)
    close(value, expected)
    close(grads, expected_grads)
    assert tm.tree.flatten(grads)[1] == tm.tree.flatten(p.params)[1]
    for g, x in zip(tm.tree.leaves(grads), tm.tree.leaves(p.params), strict=True):
        assert (g.shape, g.dtype) == (x.shape, x.dtype)


@DRAWN
@given(problems(), st.integers(0, 5))
def test_equals_the_gradient_through_adapt(p, steps):
    through = tm.grad(lambda params: tm.mean(p.loss(tm.adapt(p.loss, params, p.support, ALPHA, steps), p.query)))
    close(tm.meta_value_and_grad(*p, ALPHA, steps)[1], through(p.params))


@pytest.mark.parametrize("steps", range(6))
@DRAWN
@given(p=problems(), seed=st.integers(0, 1000))
def test_equals_a_finite_difference_of_the_meta_objective(steps, p, seed):
    def objective(params):
        return np.mean(p.loss(tm.adapt(p.loss, params, p.support, ALPHA, steps), p.query).data)

    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps)
    v, slope = directional(objective, p.params, seed)
    close(value, objective(p.params))
    close(inner(grads, v), slope, 1e-6)


@DRAWN
@given(problems(), STEPS)
def test_the_finite_difference_mode_is_near(p, steps):
    close(
        tm.meta_value_and_grad(*p, ALPHA, steps, mode="finite-difference")[1],
        tm.meta_value_and_grad(*p, ALPHA, steps)[1],
        1e-6,
    )


@DRAWN
@given(problems(), STEPS, st.sampled_from(EXACT_MODES), st.booleans())
def test_recomputed_records_give_the_same_bits(p, steps, mode, learn_alpha):
    kept, again = (
        tm.meta_value_and_grad(*p, ALPHA, steps, mode=mode, records=records, learn_alpha=learn_alpha)
        for records in ("keep", "recompute")
    )
    for one, other in zip(tm.tree.leaves(kept), tm.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@DRAWN
@given(problems(), STEPS)
def test_order_one_is_first_order_maml(p, steps):
    def objective(params):
        return tm.mean(p.loss(by_hand(p, params, ALPHA, steps, graph=False), p.query))

    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps, order=1)
    expected, expected_grads = tm.value_and_grad(objective)(p.params)
    close(value, expected)
    close(grads, expected_grads)
    assert np.linalg.norm(flat(grads) - flat(tm.meta_value_and_grad(*p, ALPHA, steps)[1])) > 1e-8


@DRAWN
@given(problems(), st.integers(0, 5))
def test_float32_follows_float64(p, steps):
    single = Problem(p.loss, *(tm.tree.map(lambda x: x.astype(np.float32), part) for part in p[1:]))
    result = tm.meta_value_and_grad(*single, ALPHA, steps, learn_alpha=True)
    assert {x.dtype for x in tm.tree.leaves(result)} == {np.dtype(np.float32)}
    close(result, tm.meta_value_and_grad(*p, ALPHA, steps, learn_alpha=True), 2e-5)
    assert {x.dtype for x in tm.tree.leaves(tm.adapt(*single[:3], ALPHA, steps))} == {np.dtype(np.float32)}


def task(trees, t):
    """The part of one task; what is shared stays whole."""
    return tm.tree.map(lambda x: x[t : t + 1] if len(x) > 1 else x, trees)


@DRAWN
@given(problems(), STEPS)
def test_every_task_is_by_itself(p, steps):
    """A batch gives each task what it gets alone; the meta-gradient of shared parameters is the mean."""
    together = tm.adapt(*p[:3], ALPHA, steps)
    value, grads = tm.meta_value_and_grad(*p, ALPHA, steps)
    tasks = len(p.support["x"])
    values, alone_grads = [], []
    for t in range(tasks):
        alone = Problem(p.loss, *(task(part, t) for part in p[1:]))
        close(task(together, t), tm.adapt(*alone[:3], ALPHA, steps))
        value_of_one, grads_of_one = tm.meta_value_and_grad(*alone, ALPHA, steps)
        values.append(value_of_one)
        alone_grads.append(grads_of_one)
    close(value, np.mean(values))
    is_per_task = len(p.params[0]["w"]) == tasks
    expected = tm.tree.map(lambda *gs: np.concatenate(gs) / tasks if is_per_task else sum(gs) / tasks, *alone_grads)
    close(grads, expected)


def test_one_task_that_changes_leaves_the_others_alone():
    p = problem(0, tasks=4)
    changed = tm.tree.map(np.copy, p.support)
    changed["y"][2] += 5
    before, after = tm.adapt(*p[:3], ALPHA, 3), tm.adapt(p.loss, p.params, changed, ALPHA, 3)
    for one, other in zip(tm.tree.leaves(before), tm.tree.leaves(after), strict=True):
        same = [0, 1, 3]
        np.testing.assert_array_equal(one[same], other[same])
        assert (one[2] != other[2]).any()


def test_adapt_is_gradient_descent_in_numpy():
    """One linear layer and squared error, for which the gradient is known."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 5, 1)), rng.normal(size=(1, 2, 1))
    adapted = tm.adapt(lambda w, batch: tm.mse(tm.matmul(batch[0], w), batch[1]), w, (x, y), 0.1, 4)
    for t in range(3):
        expected = w[0]
        for _ in range(4):
            expected = expected - 0.1 * 2 / 5 * x[t].T @ (x[t] @ expected - y[t])
        close(adapted[t], expected)


def test_the_inputs_are_left_alone_and_the_outputs_are_new():
    p = problem(1, per_task=True)
    copies = tm.tree.map(np.copy, tuple(p[1:]))
    for steps in (0, 2):
        phi = tm.adapt(*p[:3], ALPHA, steps, adapted=[False, True])
        _, grads = tm.meta_value_and_grad(*p, ALPHA, steps)
        for x in tm.tree.leaves([phi, grads]):
            assert all(not np.shares_memory(x, given) for given in tm.tree.leaves(tuple(p[1:])))
            x += 1  # the caller's own, to be written to
    for one, other in zip(tm.tree.leaves(copies), tm.tree.leaves(tuple(p[1:])), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("records", ["keep", "recompute"])
def test_no_steps_is_the_gradient_of_the_query_loss(records):
    p = problem(2)
    value, grads = tm.meta_value_and_grad(*p, ALPHA, 0, records=records)
    close((value, grads), tm.value_and_grad(lambda params: tm.mean(p.loss(params, p.query)))(p.params))
    close(tm.adapt(*p[:3], ALPHA, 0), tm.tree.map(lambda x: np.repeat(x, 3, 0), p.params))
    _, (_, by_alpha) = tm.meta_value_and_grad(*p, ALPHA, 0, learn_alpha=True)
    assert by_alpha == 0.0  # no step uses it


def test_steps_may_be_numpys():
    p = problem(2)
    close(tm.adapt(*p[:3], ALPHA, np.int64(2)), tm.adapt(*p[:3], ALPHA, 2))


def test_a_cross_entropy_loss_too():
    rng = np.random.default_rng(3)
    model = tm.nn.mlp([3, 4, 3], activation="softplus", initialiser="xavier-uniform")
    params = model.init(rng, np.float64)

    def batch():
        return {"x": rng.normal(size=(2, 5, 3)), "y": rng.integers(0, 3, size=(2, 5))}

    def loss(params, batch):
        return tm.softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])

    p = Problem(loss, params, batch(), batch())
    close(tm.meta_value_and_grad(*p, 0.4, 3)[1], unrolled(p, 0.4, 3)[1][0])


def test_a_loss_with_a_gradient_inside():
    """A gradient penalty: the inner loss differentiates by its own input, so the meta-gradient is of third order."""

    def loss(params, batch):
        x, y = batch["x"], batch["y"]

        def out(x):
            return tm.tanh(x @ params["w"]) @ params["u"]

        slope = tm.grad(lambda x: tm.sum(out(x)))(tm.Tensor(x))
        return tm.mse(out(x), y) + 0.1 * tm.mean(slope * slope, axis=(1, 2))

    p = problem(4)
    rng = np.random.default_rng(4)
    penalised = Problem(loss, {"w": rng.normal(size=(1, 2, 3)), "u": rng.normal(size=(1, 3, 1))}, p.support, p.query)
    value, grads = tm.meta_value_and_grad(*penalised, ALPHA, 2)
    expected, (expected_grads, _) = unrolled(penalised, ALPHA, 2)
    close((value, grads), (expected, expected_grads))
    v, slope = directional(
        lambda params: np.mean(loss(tm.adapt(loss, params, p.support, ALPHA, 2), p.query).data), penalised.params, 0
    )
    close(inner(grads, v), slope, 1e-6)

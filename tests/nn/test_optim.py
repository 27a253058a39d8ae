"""Optimisers against loops written out by hand, on pytrees; and schedules."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml import optim
from tinymaml.autodiff.tracing import RecordingError
from tinymaml.kernels import cpu

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
    actual, _ = run(optim.adam(0.1, **settings_), x, gs)
    np.testing.assert_allclose(actual, by_hand("adam", x, gs, 0.1, **settings_), rtol=1e-12)


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


def rates(schedule):
    """A schedule as a function from an iteration to a number."""
    return lambda iteration: schedule(iteration).item()


def test_cosine():
    schedule = rates(optim.cosine(1.0, 10, end=0.2))
    assert [schedule(i) for i in (0, 5, 10, 100)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert schedule(3) == pytest.approx(0.2 + 0.4 * (1 + math.cos(0.3 * math.pi)))
    values = [schedule(i) for i in range(11)]
    assert values == sorted(values, reverse=True)


def test_exponential():
    each, slow = rates(optim.exponential(0.8, 0.5)), rates(optim.exponential(0.8, 0.5, every=10))
    assert [each(i) for i in range(3)] == pytest.approx([0.8, 0.4, 0.2])
    assert slow(10) == pytest.approx(0.4)
    assert slow(5) == pytest.approx(0.8 * math.sqrt(0.5))


def test_warmup():
    schedule = rates(optim.warmup(0.4, 4))
    assert [schedule(i) for i in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    later = rates(optim.warmup(optim.cosine(1.0, 10), 2))
    assert later(0) == pytest.approx(0.5) and later(7) == pytest.approx(rates(optim.cosine(1.0, 10))(7))


@pytest.mark.parametrize("iteration", [3, np.array(3), np.array(3.0), tm.as_tensor(np.array(3))], ids=repr)
def test_a_schedule_takes_an_iteration_of_any_kind(iteration):
    for schedule in (optim.cosine(1.0, 10), optim.exponential(1.0, 0.5), optim.warmup(1.0, 10)):
        rate = schedule(iteration)
        assert (rate.shape, rate.dtype) == ((), np.float64)
        assert rate.item() == schedule(3).item()


@every
def test_a_schedule_is_asked_for_each_iteration(name):
    asked = []

    def schedule(iteration):
        assert (iteration.shape, iteration.dtype) == ((), np.float64)
        asked.append(iteration.item())
        return 0.1

    run(OPTIMISERS[name](schedule), np.ones(2), [np.ones(2)] * 4)
    assert asked == [0, 1, 2, 3]


# Recorded steps.

SCHEDULES = {
    "number": 0.05,
    "own": optim.warmup(optim.cosine(0.1, 6), 3),
    "exponential": optim.exponential(0.1, 0.5, every=3),
    "user's": lambda i: tm.where(i < 2, 0.1, 0.1 / (1 + i)),
}


def assert_same_bits(one, other):
    for x, y in zip(tm.tree.leaves(one), tm.tree.leaves(other), strict=True):
        assert type(x) is type(y) is np.ndarray
        assert (x.shape, x.dtype, x.tobytes()) == (y.shape, y.dtype, y.tobytes())


@every
@DTYPES
@pytest.mark.parametrize("rate", SCHEDULES)
def test_an_update_is_recorded_to_the_same_bits(name, dtype, rate):
    rng = np.random.default_rng(0)
    optimiser = OPTIMISERS[name](SCHEDULES[rate])
    params, grads = tree_of(rng, dtype), tree_of(rng, dtype)
    state = optimiser.init(params)

    def step(carried, grads):
        params, state = carried
        params, state = optimiser.update(grads, state, params)
        return (params, state), tm.sum(params["w"])  # of what an update gives one may go on computing

    eager = replayed = (params, state)
    program = tm.record(step, eager, grads)
    for _ in range(9):
        eager, replayed = step(eager, grads)[0], program(replayed, grads)[0]
        assert_same_bits(replayed, eager)
    assert_same_bits(program.repeat(9, (params, state), grads)[0], eager)
    assert int(eager[1]["iteration"]) == 9


@pytest.mark.parametrize("find", [cpu.find, cpu.numpy_kernel])
def test_adams_scales_are_those_of_python(find):
    """To the last bit, with Numba and without."""
    bias_correction = find("optim", "bias_correction")
    for beta1, beta2, rate in ((0.9, 0.999, 1e-3), (0.5, 0.97, 0.3), (0.0, 0.999999, 1.0)):
        for iteration in (*range(200), 10**4, 10**6):
            scales = np.empty(2)
            bias_correction([scales], [np.array(float(iteration)), np.array(rate)], beta1=beta1, beta2=beta2)
            expected = rate / (1 - beta1 ** (iteration + 1)), 1 / (1 - beta2 ** (iteration + 1))
            assert tuple(scales.tolist()) == expected


def test_without_parameters():
    for make in OPTIMISERS.values():
        params, state = run(make(0.1), {"nothing": []}, [{"nothing": []}] * 2)
        assert params == {"nothing": []} and int(state["iteration"]) == 2


@pytest.mark.parametrize(("rate", "shown"), [(np.nan, "nan"), (-1.0, "-1.0"), (np.inf, "inf")])
@pytest.mark.parametrize("start", [0, 4])
def test_a_schedule_that_gives_no_rate_is_refused_in_a_recorded_step_too(rate, shown, start):
    """From the iteration on at which it does so: a rate that falls linearly, say, one day is below 0."""
    optimiser = optim.sgd(lambda i: tm.where(i < start, 0.1, rate))
    params = np.ones(2)
    for step in (optimiser.update, tm.record(optimiser.update, params, optimiser.init(params), params)):
        moved, state = params, optimiser.init(params)
        for _ in range(start):
            moved, state = step(params, state, moved)
        with pytest.raises(ValueError, match=f"^learning_rate: the schedule gave {shown} at iteration {start}, expect"):
            step(params, state, moved)


def test_bad_iterations_and_schedules():
    params = np.ones(2)
    optimiser = optim.sgd(0.1)
    for iteration in (np.zeros(1, np.int64), np.zeros(()), 1.5):
        with pytest.raises(
            ValueError, match=r"^the optimiser's state\['iteration'\] must be an int64 array without axes"
        ):
            optimiser.update(params, {"iteration": iteration}, params)
    several = optim.sgd(lambda i: np.ones(3))
    with pytest.raises(ValueError, match=r"^learning_rate: the schedule gave an array of shape \(3,\), expected one"):
        several.update(params, several.init(params), params)
    decided = optim.sgd(lambda i: 0.1 if i < 2 else 0.01)
    decided.update(params, decided.init(params), params)
    with pytest.raises(RecordingError, match="asks for the value of an array while a step is recorded"):
        tm.record(decided.update, params, decided.init(params), params)

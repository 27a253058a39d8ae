"""Whole meta-steps on a GPU, eager and recorded, equal the CPU's."""

import re

import numpy as np
import pytest

import tinymaml as tm
from tests.cases import gpu_cases
from tests.cases.step_cases import TASKS, classification, normal, regression
from tinymaml import optim, tree
from tinymaml.autodiff.dispatch import on_gpu
from tinymaml.device import to_device, to_host
from tinymaml.meta.maml import NonFiniteError

pytestmark = pytest.mark.usefixtures("gpu")

NEAR = {np.float32: 2e-4, np.float64: 1e-11}


def close(actual, expected, limit):
    """Against the norm of all arrays: a bias before batch norm has a gradient of nothing but rounding."""
    actual, expected = tree.leaves(actual), tree.leaves(expected)
    assert len(actual) == len(expected)
    whole = np.sqrt(sum(np.linalg.norm(y) ** 2 for y in expected))
    for i, (x, y) in enumerate(zip(actual, expected, strict=True)):
        assert on_gpu(x) and x.shape == y.shape and x.dtype == y.dtype, f"leaf {i}"
        assert np.linalg.norm(x.get() - y) <= limit * whole, f"leaf {i}"


def same(actual, expected):
    for x, y in zip(tree.leaves(actual), tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x.get(), y.get(), strict=True)


STEPS = {
    "regression": lambda dtype: regression(dtype),
    "first order": lambda dtype: regression(dtype, order=1),
    "reverse over reverse": lambda dtype: regression(dtype, mode="reverse-over-reverse"),
    "clipped": lambda dtype: regression(dtype, clip_norm=0.01),
    "max-pooling": lambda dtype: classification("max-pool", dtype),
    "strides": lambda dtype: classification("stride", dtype),
    "images, first order": lambda dtype: classification("max-pool", dtype, order=1),
}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", STEPS)
def test_a_meta_step(name, dtype):
    step, arguments = STEPS[name](dtype)
    expected = step(*arguments)
    there = to_device(arguments, "gpu")
    eager = step(*there)
    close(eager, expected, NEAR[dtype])
    program = tm.record(step, *there)
    replayed = [program(*there) for _ in range(3)]  # the first is not yet by the graph
    close(replayed[0], expected, NEAR[dtype])
    for actual in replayed[1:]:
        same(actual, replayed[0])
    with gpu_cases.lanes_reversed():
        same(program(*there), replayed[0])


def test_learned_step_sizes():
    _, (params, *_, support, query) = regression(np.float64)

    def loss(p, batch):
        return tm.mse(tm.tanh(tm.dense(batch["x"], p["w"], p["b"])), batch["y"])

    params = {"w": normal(1, 2, 1, dtype=np.float64), "b": normal(1, 1, 1, dtype=np.float64)}
    alpha = {"w": np.full((1, 2, 1), 0.1), "b": np.full((1, 1, 1), 0.2)}

    def learn(params, alpha, support, query):
        return tm.meta_value_and_grad(loss, params, support, query, alpha, 2, learn_alpha=True)

    expected = learn(params, alpha, support, query)
    there = to_device((params, alpha, support, query), "gpu")
    close(learn(*there), expected, 1e-11)
    close(tm.record(learn, *there)(*there), expected, 1e-11)


def test_arguments_come_from_anywhere():
    step, arguments = regression(np.float64)
    there = to_device(arguments, "gpu")
    program = tm.record(step, *there)
    same(program(*arguments), program(*there))
    other = tree.map(lambda x: x + x, arguments)
    close(program(*other), step(*other), 1e-11)
    close(program(*arguments), step(*arguments), 1e-11)


def test_results_are_not_overwritten_by_the_next_call():
    step, arguments = regression(np.float64)
    program = tm.record(step, *to_device(arguments, "gpu"))
    first = program(*arguments)
    before = to_host(first)
    program(*tree.map(lambda x: x + x, arguments))
    for x, y in zip(tree.leaves(first), tree.leaves(before), strict=True):
        np.testing.assert_array_equal(x.get(), y)


def test_closed_over_arrays_are_read_anew():
    here, there = normal(3, 4), to_device(normal(3, 4, seed=1), "gpu")
    step = lambda x: tm.add(tm.multiply(x, here), there)  # noqa: E731
    x = to_device(np.ones((3, 4), np.float32), "gpu")
    program = tm.record(step, x)
    np.testing.assert_array_equal(program(x).get(), here + there.get())
    here *= 2
    there.set(normal(3, 4, seed=2))
    np.testing.assert_array_equal(program(x).get(), here + there.get())


def test_what_is_not_finite():
    step, arguments = regression()
    there = to_device(arguments, "gpu")
    program = tm.record(step, *there)
    bad = tree.map(np.copy, arguments)
    bad[3]["x"][2] = np.nan
    with pytest.raises(NonFiniteError) as eager:
        step(*to_device(bad, "gpu"))
    with pytest.raises(NonFiniteError, match=re.escape(str(eager.value))) as replayed:
        program(*bad)
    assert replayed.value.tasks == eager.value.tasks == [2]
    close(program(*there), step(*arguments), NEAR[np.float32])


def test_labels_out_of_range():
    step, (params, support, query) = classification("stride")
    program = tm.record(step, *to_device((params, support, query), "gpu"))
    wrong = {**support, "y": support["y"] + 1}
    for run in (step, program):
        with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got 1 to 3"):
            run(*to_device((params, wrong, query), "gpu"))


def test_arrays_here_and_there():
    x = to_device(normal(3, 4), "gpu")
    with pytest.raises(TypeError, match=r"multiply: an array of shape \(3, 4\) is on the CPU and another one on a GPU"):
        tm.multiply(x, normal(3, 4))
    program = tm.record(lambda x: tm.exp(x), normal(3, 4))
    with pytest.raises(TypeError, match="is on a GPU, the program was recorded for the CPU"):
        program(x)
    with pytest.raises(TypeError, match=r"use \.numpy\(\)"):
        np.asarray(tm.exp(x))
    assert "Tensor(" in repr(tm.exp(x))
    np.testing.assert_array_equal(tm.Tensor(x).numpy(), x.get())


def training(dtype):
    """A step that goes on from its own result, and counts."""
    step, (params, state, support, query) = regression(dtype)

    def go_on(carried, support, query):
        value, params, state = step(carried["params"], carried["state"], support, query)
        count = tm.add(carried["count"], 1.0)
        return {"params": params, "state": state, "count": count, "swapped": carried["swapped"][::-1]}, value

    swapped = [np.zeros(3, dtype), np.ones(3, dtype)]
    carried = {"params": params, "state": state, "count": np.zeros((), dtype), "swapped": swapped}
    return go_on, (carried, support, query)


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_repeated(where):
    step, arguments = training(np.float64)
    program = tm.record(step, *to_device(arguments, where))
    carried, value = program.repeat(5, *arguments)
    one_by_one = arguments[0]
    for _ in range(5):
        one_by_one, last = program(one_by_one, *arguments[1:])
    for x, y in zip(tree.leaves((carried, value)), tree.leaves((one_by_one, last)), strict=True):
        np.testing.assert_array_equal(to_host(x), to_host(y))
    assert float(carried["count"]) == 5
    assert [float(x[0]) for x in to_host(carried["swapped"])] == [1, 0]
    again, _ = program.repeat(1, carried, *arguments[1:])
    assert float(again["count"]) == 6


def test_repeat_refuses():
    step, arguments = training(np.float64)
    program = tm.record(step, *arguments)
    for count in (0, True, 1.5):
        with pytest.raises(ValueError, match="count must be a whole number >= 1"):
            program.repeat(count, *arguments)
    with pytest.raises(TypeError, match="a pair whose first part is like its first argument"):
        tm.record(lambda x: tm.exp(x), normal(3)).repeat(2, normal(3))


def test_one_update_of_all_parameters():
    step, arguments = regression()
    program = tm.record(step, *to_device(arguments, "gpu"))
    launched = [launch.name for launch in program._executable.plan.launches]
    assert launched.count("adam<float>") == 1
    assert "optim.adam" in program.explain() and "CUDA graph" in program.explain()
    assert program.picture().startswith("<svg")


def test_optimisers():
    _, (params, *_) = regression(np.float64)
    there = to_device(params, "gpu")
    grads = tree.map(np.sin, params)
    for optimiser in (optim.sgd(0.1), optim.momentum(0.1), optim.adam(0.1)):
        state, state_there = optimiser.init(params), optimiser.init(there)
        for _ in range(2):
            params_after, state = optimiser.update(grads, state, params)
            there_after, state_there = optimiser.update(to_device(grads, "gpu"), state_there, there)
        close(there_after, params_after, 1e-12)


def test_transforms():
    x = normal(4, seed=3, dtype=np.float64)
    there = to_device(x, "gpu")

    def f(x):
        return tm.sum(tm.exp(tm.sin(x)) * x)

    for transform in (tm.grad(f), lambda x: tm.hvp(f, x, x), lambda x: tm.transforms.hessian(f, x)):
        close([transform(there)], [transform(x)], 1e-12)
    unused = tm.grad(lambda x, y: tm.sum(x), 1)
    close([unused(there, there)], [unused(x, x)], 0.0)


def test_tasks_that_share_nothing():
    """Parameters of each task's own, and one that no step depends on."""
    _, (params, *_, support, _query) = regression(np.float64)
    of_each_task = tree.map(lambda x: np.repeat(x, TASKS, 0), params)
    model = tm.nn.mlp([2, 8, 8, 1])

    def adapt(params, support):
        loss = lambda p, batch: tm.mse(model.apply(p, batch["x"]), batch["y"])  # noqa: E731
        return tm.maml.adapt(loss, params, support, 0.1, 2)

    close(adapt(*to_device((of_each_task, support), "gpu")), adapt(of_each_task, support), 1e-11)

"""Optimisers' kernels on the GPU equal the reference."""

import numpy as np
import pytest

import tinymaml as tm
from tests.cases import gpu_cases
from tinymaml import optim, tree
from tinymaml.device import to_device, to_host

pytestmark = pytest.mark.usefixtures("gpu")

STATIC = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (2, 300), (4, 5, 64)])
def test_adam(shape, dtype):
    rng = np.random.default_rng(0)
    x, g, m, v = (rng.standard_normal(shape).astype(dtype) for _ in range(4))
    gpu_cases.check(("optim", "adam"), [(shape, dtype)] * 3, [x, g, m, abs(v), np.array([0.01, 1.5])], STATIC)


@pytest.mark.parametrize("iteration", [0, 1, 999, 10**6, 2**40])
def test_what_depends_on_the_iteration(iteration):
    gpu_cases.check(("optim", "next_iteration"), [((), np.int64), ((), np.float64)], [np.array(iteration)], {})
    betas = {"beta1": 0.9, "beta2": 0.999}
    arrays = [np.array(float(iteration)), np.array(0.01)]
    gpu_cases.check(("optim", "bias_correction"), [((2,), np.float64)], arrays, betas)


@pytest.mark.parametrize("make", [optim.sgd, optim.momentum, optim.adam])
@pytest.mark.parametrize("rate", [0.1, optim.warmup(optim.cosine(0.1, 6), 3)], ids=["number", "schedule"])
def test_a_recorded_update_carries_its_iteration(make, rate):
    """Repeated on the GPU it gives what it gives one by one, and what the CPU gives."""
    optimiser = make(rate)
    params = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.ones(2)}

    def step(carried):
        params, state = carried
        return optimiser.update(tree.map(tm.sin, params), state, params), ()

    start = expected = (params, optimiser.init(params))
    for _ in range(7):
        params, state = expected
        expected = optimiser.update(tree.map(np.sin, params), state, params)
    program = tm.record(step, to_device(start, "gpu"))
    actual = to_host(program.repeat(7, to_device(start, "gpu"))[0])
    for x, y in zip(tree.leaves(actual), tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-12)
    assert int(actual[1]["iteration"]) == 7
    if make is optim.adam:
        names = [launch.name for launch in program._executable.plan.launches]
        assert names.count("adam<double>") == names.count("bias_correction<double>") == 1


def test_a_bad_rate_on_the_gpu():
    optimiser = optim.sgd(lambda i: 0.25 - 0.1 * i)
    start = to_device((np.ones(2), optimiser.init(np.ones(2))), "gpu")
    program = tm.record(lambda carried: (optimiser.update(carried[0], carried[1], carried[0]), ()), start)
    program.repeat(3, start)
    with pytest.raises(ValueError, match=r"^learning_rate: the schedule gave -0\.0"):
        program.repeat(4, start)

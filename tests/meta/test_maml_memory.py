"""What stays alive: activations with the steps only where records are kept, and nothing once a call is over."""

import gc
import tracemalloc

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.maml_cases import problem
from tinymaml.autodiff.tensor import Node

ALPHA = 0.05


def peak(steps, **settings):
    """The most bytes that were alive at once in a meta-step, of large activations beside few parameters."""
    p = problem(0, tasks=2, examples=2000, hidden=20)
    tm.meta_value_and_grad(*p, ALPHA, steps, **settings)  # what is made once is made now
    tracemalloc.start()
    try:
        tm.meta_value_and_grad(*p, ALPHA, steps, **settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ONE = 2 * 2000 * 20 * 8  # bytes of one layer's activations
ITERATES = 2 * (2 * 20 + 20 + 20 + 1) * 8  # bytes of one step's parameters for both tasks


@pytest.mark.parametrize("mode", ["forward-over-reverse", "reverse-over-reverse", "reverse-over-forward"])
@pytest.mark.parametrize("learn_alpha", [False, True])
def test_memory_for_activations_is_constant_with_recomputation(mode, learn_alpha):
    few, many = (peak(steps, mode=mode, learn_alpha=learn_alpha, records="recompute") for steps in (2, 10))
    assert few > 3 * ONE, "the activations are what is measured"
    # Eight more iterates, with the tensors and lists that hold them (under 4 kB a step).
    assert many - few < 8 * (ITERATES + 4096) < ONE / 4


def test_memory_grows_with_kept_records():
    few, many = peak(2, records="keep"), peak(10, records="keep")
    assert many - few > 8 * 3 * ONE
    assert peak(10, records="recompute") < many / 2


def test_first_order_keeps_no_records():
    few, many = peak(2, order=1), peak(10, order=1)
    assert many - few < 16 * 1024


def test_adapt_keeps_no_records():
    p = problem(0, tasks=2, examples=2000, hidden=20)
    peaks = []
    for steps in (2, 2, 10):
        tracemalloc.start()
        tm.adapt(*p[:3], ALPHA, steps)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 16 * 1024


def alive():
    """How many nodes and tensors there are, anywhere."""
    return sum(isinstance(x, Node | tm.Tensor) for x in gc.get_objects())


def test_nothing_leaks_without_the_garbage_collector():
    p = problem(1)
    arguments = (*p, ALPHA, 2)

    optimiser = tm.optim.adam(1e-3)
    params, state = p.params, optimiser.init(p.params)
    gc.collect()
    before = alive()
    gc.disable()
    try:
        sizes = []
        tracemalloc.start()
        for iteration in range(1000):
            records = "keep" if iteration % 2 else "recompute"
            _, grads = tm.meta_value_and_grad(p.loss, params, *arguments[2:], records=records)
            params, state = optimiser.update(grads, state, params)
            if iteration in (99, 999):
                sizes.append(tracemalloc.get_traced_memory()[0])
        assert sizes[1] - sizes[0] < 20_000, "bytes alive after 100 and after 1000 meta-steps"
        del grads
        assert alive() == before
    finally:
        tracemalloc.stop()
        gc.enable()


def test_an_error_leaves_nothing_behind():
    p = problem(2)
    before = alive()
    with pytest.raises(tm.NonFiniteError):
        tm.meta_value_and_grad(*p._replace(query={**p.query, "y": np.full((3, 4, 1), np.nan)}), ALPHA, 2)
    gc.collect()
    assert alive() == before

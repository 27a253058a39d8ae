"""The pool of threads: the same bits for any number of them, errors that reach the caller, bad settings."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.kernels.cpu import threads
from tinymaml.ops.elementwise import descend


@pytest.fixture
def use(monkeypatch):
    """Sets the number of threads."""

    def change(count):
        monkeypatch.setattr(threads, "count", lambda: count)
        threads._pool.cache_clear()

    yield change
    threads._pool.cache_clear()


RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv():
    x, w = normal(7, 3, 14, 14, 16), normal(7, 3, 3, 16, 32)
    value, pullback = tm.vjp(lambda x, w: tm.conv2d(x, w, stride=2), x, w)
    return [value, *pullback(np.ones_like(value))]


def elementwise():
    a, row, shared, number = normal(5, 300, 200), normal(200), normal(1, 300, 200), np.float32(0.3)
    found = [tm.add(a, row), tm.multiply(shared, a), tm.subtract(number, a), tm.greater(a, row), tm.exp(a)]
    return [y.data for y in (*found, descend(a, number, normal(5, 300, 200)), descend(shared, number, a))]


@pytest.mark.parametrize("work", [conv, elementwise])
def test_results_do_not_depend_on_the_number_of_threads(use, work):
    global RNG
    found = []
    for count in (1, 2, 3, 8):
        use(count)
        RNG = np.random.default_rng(0)
        found.append(work())
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_large_arrays_are_numpys(use):
    use(3)
    a, row = normal(4, 300, 200), normal(300, 1)
    np.testing.assert_array_equal(tm.multiply(a, row).data, a * row)
    np.testing.assert_array_equal(tm.add(a[:, :1], a).data, a[:, :1] + a)


def test_errors_in_a_thread_reach_the_caller(use):
    use(3)

    def run(first, last):
        if first <= 4 < last:
            raise ArithmeticError(f"{first} {last}")

    with pytest.raises(ArithmeticError, match="3 6"):
        threads.over_tasks(9, 1 << 40, run)


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_threads_is_refused(monkeypatch, asked):
    monkeypatch.setenv("TINYMAML_THREADS", asked)
    with pytest.raises(ValueError, match="TINYMAML_THREADS must be a whole number >= 1"):
        threads.count.__wrapped__()

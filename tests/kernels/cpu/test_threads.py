"""Threads: the same bits for any number of them, errors that reach the caller, launches from several sides at once."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.kernels.cpu import numba_is_used, threads
from tinymaml.ops.elementwise import descend

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv():
    x, w = normal(7, 3, 14, 14, 16), normal(7, 3, 3, 16, 32)
    value, pullback = tm.vjp(lambda x, w: tm.conv2d(x, w, stride=2), x, w)
    return [value, *pullback(np.ones_like(value))]


def elementwise():
    a, row, shared, number = normal(5, 300, 200), normal(200), normal(1, 300, 200), np.float32(0.3)
    results = [tm.add(a, row), tm.multiply(shared, a), tm.subtract(number, a), tm.greater(a, row), tm.exp(a)]
    return [y.data for y in (*results, descend(a, number, normal(5, 300, 200)), descend(shared, number, a))]


@pytest.mark.parametrize("work", [conv, elementwise])
def test_results_do_not_depend_on_the_number_of_threads(same_on_any_threads, work):
    def anew():
        global RNG
        RNG = np.random.default_rng(0)
        return work()

    same_on_any_threads(anew)


def test_large_arrays_are_numpys(use_threads):
    use_threads(3)
    a, row = normal(4, 300, 200), normal(300, 1)
    np.testing.assert_array_equal(tm.multiply(a, row).data, a * row)
    np.testing.assert_array_equal(tm.add(a[:, :1], a).data, a[:, :1] + a)


def test_errors_in_a_thread_reach_the_caller(use_threads):
    use_threads(3)

    def run(first, last):
        if first <= 4 < last:
            raise ArithmeticError(f"{first} {last}")

    with pytest.raises(ArithmeticError, match="3 6"):
        threads.over_tasks(9, 1 << 40, run)


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "1025", "99999999999999999999", "9" * 5000])
def test_a_bad_number_of_threads_is_refused(monkeypatch, asked):
    monkeypatch.setenv("TINYMAML_THREADS", asked)
    with pytest.raises(ValueError, match="TINYMAML_THREADS must be a whole number from 1 to 1024"):
        threads.count.__wrapped__()


needs_numba = pytest.mark.skipif(not numba_is_used(), reason="needs Numba: these threads run its kernels")


@needs_numba
def test_threads_that_sleep_are_woken(use_threads):
    use_threads(3)
    x = normal(6, 40_000)
    for pause in (0, 0.05, 0, 0, 0.02):
        time.sleep(pause)
        np.testing.assert_array_equal(descend(x, np.float32(0.5), x).data, x - np.float32(0.5) * x)


@needs_numba
def test_launches_from_several_threads_at_once(use_threads):
    use_threads(3)
    x, w = normal(6, 3, 20, 20, 16), normal(6, 3, 3, 16, 32)
    expected, wrong = tm.conv2d(x, w).data, []

    def repeat():
        for _ in range(30):
            if not np.array_equal(tm.conv2d(x, w).data, expected):
                wrong.append(1)

    callers = [threading.Thread(target=repeat) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def _failing(out, bad, first, last):
    for t in range(first, last):
        if t == bad:
            raise ValueError
        out[t] += 1


@pytest.fixture(scope="module")
def failing():
    """A kernel that raises at one task."""
    from numba import njit

    from tinymaml.kernels.cpu.compiled.thread_pool import Kernel, distribute

    kernel = njit(nogil=True)(_failing)
    out = distribute(kernel)
    return Kernel(kernel, njit(nogil=True)(lambda job, *arguments: out(job, arguments)))


@needs_numba
@pytest.mark.parametrize("bad", [0, 3, 6])
@pytest.mark.parametrize("count", [1, 3])
def test_a_part_that_fails_reaches_the_caller_and_the_next_launch_is_whole(use_threads, failing, count, bad):
    from tinymaml.kernels.cpu.compiled.thread_pool import Launch

    use_threads(count)
    expected = (ValueError, None) if count == 1 else (MemoryError, "could not allocate")  # alone it raises its own
    with pytest.raises(expected[0], match=expected[1]):
        Launch(7, 1 << 40, failing, (np.zeros(7), bad)).run()
    out = np.zeros(7)
    Launch(7, 1 << 40, failing, (out, -1)).run()
    np.testing.assert_array_equal(out, 1)


@needs_numba
def test_a_launch_that_does_not_compile_leaves_the_next_one_whole(use_threads, failing):
    from numba.core.errors import TypingError

    from tinymaml.kernels.cpu.compiled.thread_pool import Launch

    use_threads(3)
    with pytest.raises(TypingError):
        Launch(7, 1 << 40, failing, ("no array", -1)).run()
    out = np.zeros(7)
    Launch(7, 1 << 40, failing, (out, -1)).run()
    np.testing.assert_array_equal(out, 1)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:.*os.fork:RuntimeWarning"
)


def in_a_child(work):
    """Whether work() gives True in a forked process, which is ended if it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        done = False
        try:
            done = work()
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def another_thread_inside(wait_there):
    """A thread runs wait_there(inside, until) meanwhile: it sets `inside` and waits for `until`."""
    inside, until = threading.Event(), threading.Event()
    other = threading.Thread(target=wait_there, args=(inside, until))
    other.start()
    assert inside.wait(20)
    try:
        yield
    finally:
        until.set()
        other.join()


@forks
def test_threads_after_a_fork(use_threads):
    use_threads(2)
    x, w = normal(6, 3, 20, 20, 16), normal(6, 3, 3, 16, 32)
    expected = tm.conv2d(x, w).data
    assert in_a_child(lambda: np.array_equal(tm.conv2d(x, w).data, expected))


@forks
def test_a_program_that_another_thread_runs_can_be_called_after_a_fork(use_threads):
    use_threads(2)
    x = normal(6, 300, 200)
    program = tm.record(lambda x: tm.exp(x) * tm.sum(x, axis=2, keepdims=True), x)
    expected, run = program(x), program._executable.run

    def call(inside, until):
        def slowly():
            inside.set()
            until.wait()
            run()

        program._executable.run = slowly
        np.testing.assert_array_equal(program(x), expected)

    def child():
        program._executable.run = run
        return np.array_equal(program(x), expected)

    with another_thread_inside(call):
        assert in_a_child(child)


@forks
@needs_numba
def test_workers_that_another_thread_has_are_not_missed_after_a_fork(use_threads):
    from tinymaml.kernels.cpu.compiled import thread_pool

    use_threads(2)
    x = normal(6, 40_000)
    expected = descend(x, np.float32(0.5), x).data
    lock = thread_pool._thread_pool(1)._free

    def hold(inside, until):
        with lock:
            inside.set()
            until.wait()

    with another_thread_inside(hold):
        assert in_a_child(lambda: np.array_equal(descend(x, np.float32(0.5), x).data, expected))


def _step(x):
    return tm.tanh(x) * x + tm.sum(x, axis=1, keepdims=True)


@forks
@needs_numba
def test_steps_can_be_recorded_after_a_fork_while_another_thread_records(use_threads, tmp_path, monkeypatch):
    """What the compiler has locked, its own state included, is not left so in the child."""
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path))
    use_threads(2)
    x = normal(6, 40)
    expected = tm.record(_step, x)(x)

    def record(inside, until):
        columns = 41
        while not until.is_set():
            tm.record(_step, normal(6, columns))
            columns += 1
            inside.set()

    with another_thread_inside(record):
        for rows in range(1, 6):
            assert in_a_child(lambda rows=rows: np.array_equal(tm.record(_step, x[:rows])(x[:rows]), expected[:rows]))

"""What is placed together does not overlap; tasks are apart only where they do not meet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml.autodiff.tensor import constant
from tinymaml.autodiff.tracing import Call, traced, tracing
from tinymaml.compile import fusion, memory_plan, passes
from tinymaml.kernels import cpu

needs_numba = pytest.mark.skipif(not cpu.numba_is_used(), reason="tasks are apart in machine code; needs numba")

INTERVAL = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5000)).map(
    lambda t: (min(t[:2]), max(t[:2]), t[2])
)


@settings(deadline=None, derandomize=True, database=None)
@given(intervals=st.lists(INTERVAL, max_size=30))
def test_blocks_in_use_at_the_same_time_do_not_overlap(intervals):
    offsets, total = memory_plan.place(intervals)
    for i, (first, last, size) in enumerate(intervals):
        assert offsets[i] % memory_plan.ALIGN == 0 and offsets[i] >= 0 and offsets[i] + size <= total
        for j in range(i):
            other_first, other_last, other = intervals[j]
            if first <= other_last and other_first <= last and size and other:
                assert offsets[i] + size <= offsets[j] or offsets[j] + other <= offsets[i]
    most = max((sum(s for f, e, s in intervals if f <= t <= e) for t in range(21)), default=0)
    assert total >= most


def test_memory_is_not_more_than_what_is_alive_in_a_chain():
    _, total = memory_plan.place([(i, i + 1, 640) for i in range(100)])
    assert total == 2 * 640


def calls_of(step, *shapes):
    with tracing() as trace:
        step(*[constant(trace.input(shape, np.float32)) for shape in shapes])
    return trace.calls


def regions_of(step, *shapes):
    calls = calls_of(step, *shapes)
    tasks = passes.count_tasks(calls)
    return tasks, [
        (r.apart, [c.name.split(".")[1] for c in r.calls]) for r in passes.regions(calls, tasks, lambda c: True)
    ]


def test_a_sum_over_tasks_stands_between():
    tasks, found = regions_of(lambda x: tm.exp(x - tm.sum(tm.exp(x), 0, keepdims=True)), (6, 3))
    assert tasks == 6
    assert found == [(True, ["exp"]), (False, ["sum_to"]), (True, ["subtract", "exp"])]


def test_sums_within_tasks_stay_apart():
    _, found = regions_of(lambda x: tm.exp(tm.sum(x, 1)) * 2, (6, 3, 4))
    assert [apart for apart, _ in found] == [True]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: tm.exp(x)[::-1] + x,  # another task's
        lambda x: tm.broadcast_to(tm.exp(x)[:1], (6, 3)) + x,  # the first task's, for all
        lambda x: tm.reshape(tm.exp(x), (3, 6)) * 2,  # cut otherwise
        lambda x: tm.exp(x)[1:4] * 2,
        lambda x: tm.transpose(tm.exp(x)) * 2,
    ],
)
def test_what_crosses_tasks_is_not_apart(step):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    _, found = regions_of(step, (6, 3))
    assert len(found) > 1
    program = tm.record(step, x, threads=2)
    np.testing.assert_allclose(program(x), step(tm.as_tensor(x)).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: tm.broadcast_to(x[:1], (6, 3, 3)) - x,
        lambda x: x[:1] * x,
        lambda x: tm.matmul(tm.broadcast_to(x[:1], (6, 3, 3)), x),
        lambda x: tm.matmul(x[:1], x),
    ],
)
def test_an_argument_read_for_each_task_and_its_first_entry_for_all(step):
    x = np.random.default_rng(0).normal(size=(6, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(tm.record(step, x, threads=2)(x), step(tm.as_tensor(x)).numpy(), rtol=1e-6)


@needs_numba
def test_fused_are_neighbours_that_share_something():
    def step(x, y):
        a = tm.relu(x * 2 + 1)
        b = y * y  # shares nothing with the others
        return a, b, tm.sum(a * x)

    program = tm.record(step, *[np.ones((6, 3), np.float32)] * 2)
    groups = [c.static["parts"] for r in program._assembly.regions for c in r.calls if c.name == "fused"]
    assert sorted(len(parts) for parts in groups) == [1, 4]


def test_a_group_has_a_largest_size():
    def step(x):
        for _ in range(50):
            x = x * x
        return x

    found = passes.regions(calls_of(step, (4, 4)), 4, lambda call: True)
    fusion.fuse(found[0], lambda call: True, {found[0].calls[-1].outs[0].root})
    assert max(len(call.static["parts"]) for call in found[0].calls) <= fusion.MOST


def test_dead_calls():
    calls = calls_of(lambda x: (tm.exp(x), tm.sin(x)), (3, 2))
    assert [c.name for c in passes.eliminate_dead(calls, [calls[1].outs[0]])] == ["elementwise.sin"]
    assert passes.eliminate_dead(calls, []) == []


def test_operands_that_move_with_the_tasks():
    x = np.ones((4, 3))
    call = Call("linear.linear", [traced((4, 3, 1), np.float64, None)], [])
    assert passes.moves(call, x, 4) is True
    assert passes.moves(call, x[:1], 4) is False
    assert passes.moves(call, np.broadcast_to(x[:1], (4, 3)), 4) is False
    assert passes.moves(call, x[:2], 4) is None
    elementwise = Call("elementwise.add", [traced((4, 4, 3), np.float64, None)], [])
    assert passes.moves(elementwise, x, 4) is False, "its first axis meets the second of what comes out"

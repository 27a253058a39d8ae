"""What is placed together does not overlap; rows are split only where they do not depend on each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tinymaml.autodiff.tensor import constant
from tinymaml.autodiff.tracing import Call, declare_tasks, traced, tracing
from tinymaml.compile import fusion, memory_plan, passes, regions
from tinymaml.kernels import cpu
from tinymaml.kernels.names import KernelName

needs_numba = pytest.mark.skipif(not cpu.numba_is_used(), reason="rows are split in machine code; needs numba")

INTERVAL = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5000)).map(
    lambda t: (min(t[:2]), max(t[:2]), t[2])
)


@settings(deadline=None, derandomize=True, database=None)
@given(intervals=st.lists(INTERVAL, max_size=30))
def test_blocks_in_use_at_the_same_time_do_not_overlap(intervals):
    offsets, total = memory_plan.assign_offsets(intervals)
    for i, (first, last, size) in enumerate(intervals):
        assert offsets[i] % memory_plan.ALIGN == 0 and offsets[i] >= 0 and offsets[i] + size <= total
        for j in range(i):
            other_first, other_last, other = intervals[j]
            if first <= other_last and other_first <= last and size and other:
                assert offsets[i] + size <= offsets[j] or offsets[j] + other <= offsets[i]
    most = max((sum(s for f, e, s in intervals if f <= t <= e) for t in range(21)), default=0)
    assert total >= most


def test_memory_is_not_more_than_what_is_alive_in_a_chain():
    _, total = memory_plan.assign_offsets([(i, i + 1, 640) for i in range(100)])
    assert total == 2 * 640


def calls_of(step, *shapes):
    with tracing() as trace:
        step(*[constant(trace.input(shape, np.float32)) for shape in shapes])
    return trace.calls


def regions_of(step, *shapes, tasks=()):
    calls = calls_of(step, *shapes)
    return [
        (region.rows, [call.kernel.name for call in region.calls])
        for region in regions.split_by_rows(calls, tasks, lambda call: True)
    ]


def test_a_sum_over_tasks_stands_between():
    results = regions_of(lambda x: tm.exp(x - tm.sum(tm.exp(x), 0, keepdims=True)), (6, 3))
    assert results == [(6, ["exp"]), (0, ["sum_to"]), (6, ["subtract", "exp"])]


def test_sums_within_rows_are_split():
    assert [rows for rows, _ in regions_of(lambda x: tm.exp(tm.sum(x, 1)) * 2, (6, 3, 4))] == [6]


def test_declared_tasks_are_what_is_split():
    """Of two axes of which one has more numbers, the smaller one if the step says that it is that of the tasks."""

    def step(x, y):
        return tm.exp(x) * 2, tm.sin(y) * 2

    small, large = (6, 3), (40, 50)
    assert regions_of(step, small, large, tasks=[6]) == [(0, ["sin", "multiply"]), (6, ["exp", "multiply"])]
    assert regions_of(step, small, large, tasks=[1]) == [(0, ["exp", "multiply", "sin", "multiply"])]
    both = [(6, ["exp", "multiply"]), (40, ["sin", "multiply"])]
    assert regions_of(step, small, large, tasks=[6, 40]) == regions_of(step, small, large) == both


def test_rows_of_different_numbers_wait_for_each_other():
    """An array read by other rows than it was made by is whole before it is read."""
    results = regions_of(lambda x: tm.sin(tm.reshape(tm.exp(x), (3, 8)) * 2), (6, 4))
    assert results == [(6, ["exp"]), (3, ["multiply", "sin"])]


@needs_numba
@pytest.mark.parametrize("tasks", [(), (6,), (40,)])
def test_a_program_with_rows_of_two_numbers_gives_the_bits_of_the_step(tasks):
    def step(x, y):
        for count in tasks:
            declare_tasks(count)
        mixed = tm.exp(x) @ tm.sin(y[:3, :4])
        return tm.sin(mixed) * 2, tm.exp(y) * y + tm.sum(y, 1, keepdims=True), tm.sum(mixed)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(40, 50))
    program = tm.record(step, x, y, threads=3)
    regions = program._executable.memory.shards
    assert {region.rows for region in regions} == set(tasks or (6, 40))
    for one, other in zip(program(x, y), step(tm.as_tensor(x), tm.as_tensor(y)), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize("steps", [0, 1])
def test_the_meta_gradient_declares_its_tasks(steps):
    def loss(p, batch):
        return tm.mse(tm.matmul(batch["x"], p["w"]), batch["y"])

    with tracing() as trace:
        arrays = [constant(trace.input(s, np.float32)) for s in [(1, 3, 2), (7, 5, 3), (7, 5, 2)]]
        batch = {"x": arrays[1], "y": arrays[2]}
        tm.meta_value_and_grad(loss, {"w": arrays[0]}, batch, batch, 0.1, steps)
    assert trace.tasks == {7}


def test_nothing_is_declared_where_nothing_is_recorded():
    declare_tasks(3)
    with tracing() as trace:
        assert trace.tasks == set()


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
def test_what_crosses_rows_is_not_split(step):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    assert len(regions_of(step, (6, 3))) > 1
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
    calls = [call for region in program._executable.regions for call in region.calls]
    groups = [call.parts for call in calls if isinstance(call, fusion.FusedCall)]
    assert sorted(len(parts) for parts in groups) == [1, 4]


def test_a_group_has_a_largest_size():
    def step(x):
        for _ in range(50):
            x = x * x
        return x

    calls = calls_of(step, (4, 4))
    fused = fusion.fuse(calls, lambda call: True, {calls[-1].outs[0].root})
    assert max(len(call.parts) for call in fused) <= fusion.MOST


def test_dead_calls():
    calls = calls_of(lambda x: (tm.exp(x), tm.sin(x)), (3, 2))
    assert [call.kernel for call in passes.eliminate_dead(calls, [calls[1].outs[0]])] == [("elementwise", "sin")]
    assert passes.eliminate_dead(calls, []) == []


def test_strides_from_row_to_row():
    def strides(name, shape, x):
        return regions.row_strides(Call(name, [traced(shape, np.float64, None)], [x]), 4)

    product, sum_of = KernelName("linear", "linear"), KernelName("elementwise", "add")
    x = np.ones((4, 3, 2))
    assert strides(product, (4, 3, 1), x) == [48]
    assert strides(product, (4, 3, 1), x[:1]) == [None]
    assert strides(product, (4, 3, 1), np.broadcast_to(x[:1], x.shape)) == [0]
    assert strides(product, (4, 3, 1), x[:2]) is None
    assert strides(product, (3, 3, 1), x) is None
    assert strides(sum_of, (4, 4, 3, 2), x) == [None], "its first axis meets the second of what comes out"
    assert strides(KernelName("shape", "gather"), (4, 3), x) is None

"""A recorded step gives what the step gives, to the same bits, and refuses what it could not give."""

import threading
import tracemalloc

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.step_cases import POINTS, TASKS, classification, normal, regression
from tinymaml import nn, tree
from tinymaml.autodiff.tracing import RecordingError
from tinymaml.kernels import cpu
from tinymaml.ops.reduce import _max_last


def same(actual, expected):
    actual, expected = tree.leaves(actual), tree.leaves(expected)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), strict=True)


# What it computes.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 1},
        {"steps": 0},
        {"steps": 5, "records": "recompute"},
        {"mode": "reverse-over-reverse"},
        {"mode": "reverse-over-forward"},
        {"clip_element": 0.01},
        {"clip_norm": 0.01},
        {"clip_norm": 1e6},
    ],
    ids=str,
)
def test_a_meta_step(options, dtype):
    step, arguments = regression(dtype, **options)
    program = tm.record(step, *arguments)
    for seed in (0, 1):
        _, other = regression(dtype, seed, **options)
        same(program(*other), step(*other))


@pytest.mark.parametrize("downsample", ["stride", "max-pool"])
@pytest.mark.parametrize("options", [{}, {"order": 1}, {"records": "recompute"}], ids=str)
def test_a_meta_step_on_images(downsample, options):
    step, arguments = classification(downsample, **options)
    same(tm.record(step, *arguments)(*arguments), step(*arguments))


def test_learned_step_sizes_and_parameters_that_are_not_adapted():
    model = nn.mlp([2, 4, 1])
    params = model.init(np.random.default_rng(0))
    alpha = tree.map(lambda p: np.full_like(p, 0.05), params)
    batch = {"x": normal(TASKS, POINTS, 2), "y": normal(TASKS, POINTS, 1, seed=1)}
    adapted = [True, False] if isinstance(params, list) else None

    def step(params, alpha, batch):
        return tm.meta_value_and_grad(
            lambda p, b: tm.mse(model.apply(p, b["x"]), b["y"]),
            params, batch, batch, alpha, 2, learn_alpha=True, adapted=adapted,
        )  # fmt: skip

    same(tm.record(step, params, alpha, batch)(params, alpha, batch), step(params, alpha, batch))


def test_adaptation_alone_and_other_derivatives():
    x, v = normal(TASKS, 7), normal(TASKS, 7, seed=1)

    def f(x):
        return tm.sum(tm.tanh(x) * x[:, ::-1] + tm.exp(-(x**2)))

    for step in (
        lambda x, v: tm.grad(f)(x),
        lambda x, v: tm.hvp(f, x, v),
        lambda x, v: tm.hvp(f, x, v, mode="reverse-over-reverse"),
        lambda x, v: tm.adapt(lambda p, b: tm.mse(p, b), x, v, 0.1, 3),
    ):
        for one, other in zip(tree.leaves(tm.record(step, x, v)(x, v)), tree.leaves(step(x, v)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_views_down_to_one_number():
    x = normal(3, 4)

    def step(x):
        return x[1, 2] * 2, x[0][1] + x[-1, ..., 0], x[:, None, 3], x.reshape(-1)[5:7].T

    same(tm.record(step, x)(x), [part.numpy() for part in step(tm.as_tensor(x))])


def test_indices_gathers_and_joins():
    x, i = normal(4, 5), np.array([3, 0, 0])

    def step(x, i):
        picked = tm.getitem(tm.transpose(x), (i, slice(None)))
        return tm.concatenate([picked, x[:3, :4]], 1), tm.max(x, 1), tm.logsumexp(x, 0), tm.sum(x[1:, None], (0, 2))

    for one, other in zip(tm.record(step, x, i)(x, i), step(x, i), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-6)


@pytest.mark.parametrize("make", [regression, lambda: classification("stride")])
def test_any_number_of_threads_gives_the_same_bits(make):
    step, arguments = make()
    expected = tm.record(step, *arguments, threads=1)(*arguments)
    for threads in (2, 3, 4, 9):
        same(tm.record(step, *arguments, threads=threads)(*arguments), expected)


def test_training_for_a_while_is_the_same():
    step, (params, state, support, query) = regression()
    program = tm.record(step, params, state, support, query)
    one = other = (params, state)
    for _ in range(20):
        value, *one = program(*one, support, query)
        expected, *other = step(*other, support, query)
    same((value, one), (expected, other))


@pytest.mark.skipif(not cpu.numba_is_used(), reason="NumPy decides itself what its threads share; needs numba")
def test_threads_share_one_large_task():
    def step(x, y):
        return tm.relu(x * y + x) * (x - y), tm.exp(x)

    x, y = normal(1, 600, 500), normal(1, 600, 500, seed=1)
    for shape in ((1, 600, 500), (1, 1, 600, 500), (600, 500)):
        one, other = x.reshape(shape), y.reshape(shape)
        expected = tm.record(step, one, other, threads=1)(one, other)
        program = tm.record(step, one, other, threads=2)
        same(program(one, other), expected)
        steps = program._executable.runs[0].__self__._steps
        assert (steps[:, 6] == 2).all(), "every launch has two workers"


# What is refused.


def _branch(x):
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "step",
    [
        lambda x: float(tm.sum(x)) * x,
        lambda x: x * tm.sum(x).item(),
        lambda x: x * int(tm.sum(x)),
        _branch,
        lambda x: np.mean(x.numpy()) * x,
        lambda x: np.asarray(x) * 2,
        lambda x: tm.Tensor(np.array(tm.exp(x))),
        lambda x: np.linalg.norm(x.data) * x,
        lambda x: x.data.sum() * x,
        lambda x: x.data[0] * x,
        lambda x: x * x.data.tolist()[0],
        lambda x: x[x > 0],
        lambda x: tm.stack(list(x.data)),
        lambda x: tm.sum(x) * (0 in x.data),
    ],
)
def test_values_are_not_there_while_recording(step):
    with pytest.raises(RecordingError, match="while a step is recorded"):
        tm.record(step, np.ones(3))


def test_a_recorded_step_that_shows_its_tensors():
    def step(x):
        assert "recorded" in repr(x)
        return x + 1

    same(tm.record(step, np.ones(3))(np.ones(3)), np.full(3, 2.0))


def test_recordings_and_programs_inside_a_recording():
    double = tm.record(lambda x: x * 2, np.ones(3))
    with pytest.raises(RecordingError, match="is being recorded already"):
        tm.record(lambda x: tm.record(lambda y: y, np.ones(2))(np.ones(2)), np.ones(3))
    with pytest.raises(RecordingError, match="called while a step is recorded"):
        tm.record(double, np.ones(3))
    assert tm.sum(np.ones(3)).item() == 3, "the refusals have left the recording"


def test_a_variable_from_outside():
    outer = tm.Tensor(np.ones(3))
    with pytest.raises(RecordingError, match="depends on a variable from outside"):
        tm.record(lambda x: outer * x, np.ones(3))
    same(tm.record(lambda x: tm.stop_gradient(outer) * x, np.ones(3))(np.full(3, 2.0)), np.full(3, 2.0))


def test_computed_labels():
    def step(logits, x):
        return tm.softmax_cross_entropy(logits, _max_last(x)[1])

    with pytest.raises(RecordingError, match="give them to it as an argument"):
        tm.record(step, normal(2, 3, 1, 4), normal(2, 3, 4))


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 1025, 10**9])
def test_bad_numbers_of_threads(threads):
    with pytest.raises(ValueError, match="threads must be a whole number from 1 to 1024, or None"):
        tm.record(lambda x: x, np.ones(3), threads=threads)


@pytest.mark.parametrize("leaf", [1.5, "text", [1, 2.0]])
def test_examples_that_are_no_arrays(leaf):
    with pytest.raises(TypeError, match=r"\['rate'\].* must be a NumPy array"):
        tm.record(lambda x: x["a"], {"a": np.ones(3), "rate": leaf})


def test_tensors_as_arguments():
    with pytest.raises(TypeError, match="is a tensor"):
        tm.record(lambda x: x, tm.Tensor(np.ones(3)))
    with pytest.raises(TypeError, match="is a tensor"):
        tm.record(lambda x: x, np.ones(3))(tm.Tensor(np.ones(3)))


def test_arguments_unlike_the_examples():
    program = tm.record(lambda p: p["a"] + p["b"][0], {"a": np.ones(3), "b": [np.ones((2, 3))]})
    good = {"a": np.ones(3), "b": [np.ones((2, 3))]}
    for bad, message in (
        ({**good, "a": np.ones(4)}, r"\['a'\] is \(4,\) float64.*recorded for \(3,\) float64"),
        ({**good, "b": [np.ones((2, 3), np.float32)]}, r"\['b'\]\[0\] is \(2, 3\) float32"),
        ({**good, "b": [2.0]}, r"\['b'\]\[0\] must be a NumPy array"),
        ({"a": np.ones(3)}, "'b'"),
        ({**good, "c": np.ones(1)}, "'c'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            program(bad)
    with pytest.raises(ValueError):
        program(good, good)
    same(program(good), np.full((2, 3), 2.0))


# What could go wrong and does not.


def test_arrays_closed_over_are_read_anew():
    scale, batch = np.ones(3), normal(TASKS, 3, dtype=np.float64)
    program = tm.record(lambda x: x * scale + tm.sum(batch, 0), np.ones(3))
    for value in (1.0, 5.0):
        scale[:], batch[:] = value, value
        same(program(np.ones(3)), np.full(3, value * (1 + TASKS)))


def test_strided_closed_over_arrays_are_read_anew():
    whole = np.zeros((TASKS, 8, 4))
    model = nn.mlp([4, 3, 1])
    params = model.init(np.random.default_rng(0), np.float64)

    def step(params):
        return tm.mse(model.apply(params, whole[:, ::2]), whole[:, 1::2, :1])

    program = tm.record(step, params)
    for seed in (1, 2):
        whole[...] = normal(*whole.shape, seed=seed)
        same(program(params), step(params).numpy())


def test_copies_of_closed_over_arrays_are_made_anew():
    base, index = np.zeros((4, 6)), np.array([0, 1], np.int32)

    def step(x):
        return x + tm.reshape(base[:, ::2], (12,)) + tm.sum(tm.getitem(base, index))

    program = tm.record(step, np.zeros(12))
    base[...], index[:] = np.arange(24.0).reshape(4, 6), (2, 3)
    same(program(np.zeros(12)), step(np.zeros(12)).numpy())


def test_inputs_that_are_strided_aliased_or_outputs():
    program = tm.record(lambda x, y: (x + 2 * y, x - y), np.ones((4, 6)), np.ones((4, 6)))
    base = normal(12, 8, dtype=np.float64)
    x, y = base[::3, ::-1][:, :6], base[:6, :4].T
    same(program(x, y), (x + 2 * y, x - y))
    same(program(x, x), (3 * x, x * 0))
    frozen = np.broadcast_to(np.float64(3), (4, 6))
    same(program(frozen, x), (3 + 2 * x, 3 - x))
    first, second = program(x, y)
    same(program(second, first), (second + 2 * first, second - first))


def test_outputs_that_are_inputs_views_or_constants():
    def step(x):
        y = x * 2
        return {
            "in": x,
            "turned": x.T,
            "twice": [y, y],
            "spread": tm.broadcast_to(y[:1], (3, 2)),
            "fixed": np.arange(3),
            "n": 7,
        }

    x = normal(2, 2)
    program = tm.record(step, x)
    results = program(x)
    same(
        results,
        {
            "in": x,
            "turned": x.T,
            "twice": [2 * x, 2 * x],
            "spread": np.broadcast_to(2 * x[:1], (3, 2)),
            "fixed": np.arange(3),
            "n": 7,
        },
    )
    assert not np.shares_memory(results["in"], x)
    for leaf in tree.leaves({key: value for key, value in results.items() if key != "n"}):
        leaf[...] = -1  # the caller's own
    same(program(x)["twice"], [2 * x, 2 * x])
    assert program(x)["fixed"].tolist() == [0, 1, 2]


def test_views_of_the_programs_memory_on_request():
    program = tm.record(lambda x: x * 2, np.ones(3), copy=False)
    first = program(np.ones(3))
    program(np.zeros(3))
    assert first.tolist() == [0, 0, 0]


def test_two_programs_alive_at_once():
    one, arguments = regression()
    other, others = regression(seed=4, steps=1)
    a, b = tm.record(one, *arguments), tm.record(other, *others)
    for _ in range(3):
        same(a(*arguments), one(*arguments))
        same(b(*others), other(*others))


def test_a_program_called_from_several_threads():
    step, arguments = regression()
    program = tm.record(step, *arguments)
    cases = [regression(seed=seed)[1] for seed in range(4)]
    expected = [step(*case) for case in cases]
    failures = []

    def work(i):
        try:
            for _ in range(20):
                same(program(*cases[i]), expected[i])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_what_is_not_finite_raises_as_in_the_step_and_leaves_nothing_behind():
    step, arguments = regression()
    program = tm.record(step, *arguments)
    params, state, support, query = arguments
    bad = {**support, "y": support["y"].copy()}
    bad["y"][3, 0] = np.nan
    with np.errstate(all="ignore"):
        with pytest.raises(tm.NonFiniteError) as expected:
            step(params, state, bad, query)
        with pytest.raises(tm.NonFiniteError) as actual:
            program(params, state, bad, query)
    assert str(actual.value) == str(expected.value)
    assert actual.value.tasks == expected.value.tasks == [3]
    same(program(*arguments), step(*arguments))


def test_labels_out_of_range_are_refused_before_anything_runs():
    step, (params, support, query) = classification("stride")
    program = tm.record(step, params, support, query)
    for label in (3, -1, 1 << 40):
        bad = {**query, "y": query["y"].copy()}
        bad["y"][2, 1] = label
        with pytest.raises(ValueError, match="labels must be in"):
            program(params, support, bad)
    same(program(params, support, query), step(params, support, query))


def test_a_step_that_raises_while_it_is_recorded():
    def step(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tm.record(step, np.ones(3))
    assert tm.record(lambda x: x + 1, np.ones(3))(np.ones(3)).tolist() == [2, 2, 2]


def test_shapes_without_numbers():
    for shape in ((0, 3), (3, 0), (0,)):
        x = np.ones(shape)
        same(tm.record(lambda x: (x * 2 + 1, tm.sum(x)), x)(x), (x * 2 + 1, np.float64(0)))


def test_a_step_that_computes_nothing():
    assert tm.record(lambda: 3)() == 3
    same(tm.record(lambda x: (), np.ones(2))(np.ones(2)), ())


# What it costs.


def test_dead_calls_are_eliminated():
    def step(x):
        tm.exp(tm.exp(x))
        return x + 1

    explained = tm.record(step, np.ones(3)).explain()
    assert "1 launches" in explained and "2 dead ones eliminated" in explained


@pytest.mark.skipif(not cpu.numba_is_used(), reason="NumPy's kernels make temporaries; needs numba")
def test_a_call_allocates_nothing():
    step, arguments = regression()
    program = tm.record(step, *arguments, copy=False)
    for _ in range(3):
        program(*arguments)
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(10):
            program(*arguments)
        grown = [s for s in tracemalloc.take_snapshot().compare_to(before, "filename") if "tracemalloc" not in str(s)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(s.size_diff for s in grown) < 10_000
    assert peak < 50_000, "of which nothing is an array of the step's: these have at least 8 * 25 * 8 numbers"


def test_memory_is_used_again():
    def step(x):
        for _ in range(50):
            x = tm.tanh(x @ x)
        return x

    program = tm.record(step, normal(1, 64, 64))
    assert program._executable.memory.arena <= 4 * 64 * 64 * 4


def test_explained_and_drawn():
    step, arguments = classification("max-pool")
    program = tm.record(step, *arguments, threads=2)
    explained = program.explain()
    for part in ("conv.conv2d", "GFLOP", "memory:", "threads: 2"):
        assert part in explained
    assert program.picture().startswith("<svg") and program.picture().count("<rect") > 10


def test_labels_are_gathered_and_joined_and_their_range_is_asked_of_where_they_come_from():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4))
    one, other = np.array([[0, 1], [2, 3]]), np.array([[3, 2, 1], [0, 0, 1]])

    def step(logits, one, other):
        labels = tm.take(tm.concatenate([one, other], 1), [4, 0, 2], 1)
        return tm.softmax_cross_entropy(logits, labels)

    program = tm.record(step, logits, one, other)
    expected = tm.softmax_cross_entropy(logits, np.concatenate([one, other], 1)[:, [4, 0, 2]]).numpy()
    same(program(logits, one, other), expected)
    same(step(logits, one, other).numpy(), expected)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\), got 0 to 9"):
        program(logits, np.array([[0, 1], [9, 3]]), other)

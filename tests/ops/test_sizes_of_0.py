"""Axes without entries: every kernel gives what there is to give, zeros for empty sums, on every device."""

from itertools import product

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import tree
from tinymaml.autodiff.tensor import Tensor


def ones(*shape):
    return np.ones(shape, np.float32)


def conv(tasks, images, channels, filters, stride=1):
    x, w, b = ones(tasks, images, 4, 5, channels), ones(tasks, 3, 2, channels, filters), ones(tasks, 1, 1, 1, filters)
    return _with_gradients(lambda x, w, b: tm.conv2d(x, w, b, stride=stride), x, w, b)


def linear(tasks, rows, inputs, outputs):
    return _with_gradients(tm.linear, ones(tasks, rows, inputs), ones(tasks, inputs, outputs), ones(tasks, 1, outputs))


def plain_linear(rows, inputs, outputs):
    return _with_gradients(tm.linear, ones(rows, inputs), ones(inputs, outputs))


def norm(tasks, channels):
    params = ones(tasks, channels), ones(tasks, channels)
    return _with_gradients(lambda x, g, b: tm.relu(tm.batch_norm(x, g, b)), ones(tasks, 6, channels), *params)


def strided_conv(*sizes):
    return conv(*sizes, stride=2)


def pool(tasks, images, channels):
    def all_of(x):
        kinds = [tm.max_pool2d(x, 2), tm.avg_pool2d(x, 2), tm.max_pool2d(x, 3, stride=2, padding="SAME")]
        return tm.concatenate(kinds, 1)

    return _with_gradients(all_of, ones(tasks, images, 4, 4, channels))


def squares(tasks):
    return _with_gradients(lambda p: tm.mse(p, 2 * p), ones(tasks, 4))


def entropy(tasks):
    labels = np.zeros((tasks, 3), np.int64)
    return _with_gradients(lambda x: tm.softmax_cross_entropy(x, labels), ones(tasks, 3, 4))


def elementwise(rows, columns):
    return _with_gradients(lambda x, y: tm.tanh(x) * tm.exp(y) + tm.relu(x) / tm.sigmoid(y), ones(rows, columns),
                           ones(1, columns))  # fmt: skip


def sums(rows, columns, more):
    x = ones(rows, columns, more)
    return _with_gradients(
        lambda x: tm.sum(tm.concatenate([tm.sum(x, a).reshape(-1) for a in (0, 1, 2, (0, 2), None)])), x
    )


def shapes(rows, columns):
    x, i = ones(rows, columns), np.zeros(0, np.int64)
    return _with_gradients(lambda x: tm.concatenate([x[i], x, x[:, :0].reshape(0, columns), x[::-1] * 2]), x)


def _with_gradients(function, *arrays):
    """(a step that gives the function's value and all its derivatives, its arguments)."""
    with np.errstate(all="ignore"):
        g = np.ones(function(*map(tm.as_tensor, arrays)).shape, np.float32)

    def step(*arguments):
        *xs, g = arguments
        y, pullback = tm.vjp(function, *xs)
        return y, pullback(g), tm.jvp(function, xs, xs)[1]

    return step, (*arrays, g)


SIZES = {
    conv: (2, 2, 3, 5), strided_conv: (2, 2, 3, 5), linear: (2, 3, 4, 5), plain_linear: (3, 4, 5), norm: (2, 3),
    pool: (2, 2, 3), squares: (2,), entropy: (2,), elementwise: (3, 4), sums: (3, 4, 2), shapes: (3, 4),
}  # fmt: skip
EMPTY = [
    pytest.param(make, sizes, id=f"{make.__name__}-{'x'.join(map(str, sizes))}")
    for make, whole in SIZES.items()
    for sizes in product(*[(0, n) for n in whole])
    if 0 in sizes
]


def results(actual):
    return [x.numpy() if isinstance(x, Tensor) else np.asarray(x) for x in tree.leaves(actual)]


@pytest.mark.parametrize(("make", "sizes"), EMPTY)
def test_on_the_cpu(make, sizes):
    step, arrays = make(*sizes)
    eager = results(step(*arrays))
    for one, other in zip(eager, results(tm.record(step, *arrays)(*arrays)), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert all(np.isfinite(x).all() for x in eager)


def test_on_a_gpu(gpu):
    """All of them: for each the kernels are the same, whose compiling is what takes time."""
    for case in EMPTY:
        make, sizes = case.values
        step, arrays = make(*sizes)
        expected = results(step(*arrays))
        actual = tree.leaves(step(*[gpu.asarray(x) for x in arrays]))
        for one, other in zip(actual, expected, strict=True):
            one = one.data if isinstance(one, Tensor) else one
            assert (one.shape, one.dtype) == (other.shape, other.dtype), case.id
            np.testing.assert_allclose(one.get(), other, rtol=1e-5, err_msg=case.id)


def test_a_layer_for_no_tasks_with_something_for_one():
    """Shared by no tasks, x, w or b broadcasts as in NumPy."""
    for sizes in product((0, 1), repeat=3):
        x, w, b = (ones(t, *shape) for t, shape in zip(sizes, ((2, 3), (3, 4), (1, 4)), strict=True))
        results = tm.dense(x, w, b).numpy()
        assert results.shape == (np.matmul(x, w) + b).shape
        assert [g.shape for g in tm.grad(lambda *p: tm.sum(tm.dense(*p)), (0, 1, 2))(x, w, b)] == [
            x.shape,
            w.shape,
            b.shape,
        ]

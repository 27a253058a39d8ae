"""Convolution beyond what the cases of its primitives show: padding, bad input."""

import itertools

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.kernels.cpu import find, numpy_kernel
from tinymaml.ops.conv import explicit_padding
from tinymaml.transforms import MODES


def test_same_padding_is_tensorflows():
    # ceil(n / s) results; where the zeros are odd, the last side gets one more.
    assert explicit_padding("SAME", (28, 28), (3, 3), (2, 2)) == ((0, 1), (0, 1))
    assert explicit_padding("SAME", (7, 7), (3, 3), (2, 2)) == ((1, 1), (1, 1))
    assert explicit_padding("SAME", (84, 5), (3, 2), (1, 3)) == ((1, 1), (0, 0))
    assert explicit_padding("SAME", (6, 9), (1, 1), (4, 4)) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("size", "stride", "padding", "expected"),
    [(28, 2, "SAME", 14), (7, 2, "SAME", 4), (28, 2, "VALID", 13), (5, 3, ((2, 0), (2, 0)), 2), (84, 1, "SAME", 84)],
)
def test_sizes(size, stride, padding, expected):
    x, w = np.zeros((2, 1, size, size, 1), np.float32), np.zeros((1, 3, 3, 1, 4), np.float32)
    assert tm.conv2d(x, w, stride=stride, padding=padding).shape == (2, 1, expected, expected, 4)


def test_identity_kernel_and_bias():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    w = np.zeros((1, 3, 3, 6, 6))
    w[0, 1, 1] = np.eye(6)
    b = np.arange(6.0).reshape(1, 1, 1, 1, 6)
    np.testing.assert_array_equal(tm.conv2d(x, w, b).numpy(), x + b)


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        ((1, 2, 5, 5), (1, 3, 3, 5, 2), {}, "five axes"),
        ((1, 2, 5, 5, 3), (1, 3, 3, 4, 2), {}, "has 3 channels, w .* takes 4"),
        ((2, 2, 5, 5, 3), (3, 3, 3, 3, 2), {}, "one operand is for 2 tasks, the other for 3"),
        ((1, 2, 2, 5, 3), (1, 3, 3, 3, 2), {"padding": "VALID"}, "does not fit an image"),
        ((1, 2, 5, 5, 3), (1, 3, 3, 3, 2), {"padding": "same"}, '"SAME", "VALID"'),
        ((1, 2, 5, 5, 3), (1, 3, 3, 3, 2), {"padding": ((1, 1), (-1, 1))}, "padding must be"),
        ((1, 2, 5, 5, 3), (1, 3, 3, 3, 2), {"stride": 0}, "stride must be"),
        ((1, 2, 5, 5, 3), (1, 3, 3, 3, 2), {"stride": (1, 2, 3)}, "stride must be"),
        ((1, 2, 5, 5, 3), (1, 0, 3, 3, 2), {}, "kernel of no pixels"),
    ],
)
def test_bad_input(x, w, options, message):
    with pytest.raises(ValueError, match=message):
        tm.conv2d(np.zeros(x), np.zeros(w), **options)


def test_a_bias_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"b must be \[1, 1, 1, 1, 2\] or \[1, 1, 1, 1, 2\], got \(2,\)"):
        tm.conv2d(np.zeros((1, 1, 5, 5, 3)), np.zeros((1, 3, 3, 3, 2)), np.zeros(2))


def test_mixed_precision_is_refused():
    with pytest.raises(TypeError, match="never mixed"):
        tm.conv2d(np.zeros((1, 1, 5, 5, 3), np.float32), np.zeros((1, 3, 3, 3, 2)))


@pytest.mark.parametrize("sizes", [s for s in itertools.product((0, 1), (0, 2), (0, 3), (0, 2)) if 0 in s], ids=str)
def test_nothing_of_something(sizes):
    """No tasks, no images, no channels in or out: sums of nothing are 0."""
    tasks, images, channels, filters = sizes
    x, w, b = (
        np.ones((tasks, images, 4, 5, channels)),
        np.ones((1, 3, 3, channels, filters)),
        np.ones((1, 1, 1, 1, filters)),
    )

    def loss(x, w, b):
        return tm.sum(tm.conv2d(x, w, b) ** 2)

    y = tm.conv2d(x, w, b).numpy()
    assert y.shape == (tasks, images, 4, 5, filters)
    np.testing.assert_array_equal(y[:, :, 1:-1, 1:-1], np.full_like(y[:, :, 1:-1, 1:-1], 9 * channels + 1))
    grads = tm.grad(loss, (0, 1, 2))(x, w, b)
    assert [g.shape for g in grads] == [x.shape, w.shape, b.shape]
    np.testing.assert_array_equal(grads[2], np.full(b.shape, 2 * y.sum() / max(filters, 1)))
    for mode in MODES[:3]:
        results = tm.hvp(lambda p: loss(*p), [x, w, b], [x, w, b], mode=mode)
        assert [h.shape for h in results] == [x.shape, w.shape, b.shape]
        assert all(np.isfinite(h).all() for h in results)
    program = tm.record(tm.grad(loss, (0, 1, 2)), x, w, b)
    for ours, theirs in zip(program(x, w, b), grads, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _not_finite(dtype):
    """x, w and g of two tasks, of which the second has weights and cotangents that are not finite."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 5, 6, 4)).astype(dtype), rng.standard_normal((2, 3, 3, 4, 5)).astype(dtype)
    w[1, 1, 0, 1, 3], w[1, 2, 2, :, 0], w[1, 0, 1, 2, 4] = np.inf, np.nan, -np.inf
    return x, w


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 2)), ((4, 4), (1, 0))])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_zeros_around_images_take_part(stride, padding, dtype):
    """0 times what is not finite is not a number: the same with every kernel."""
    x, w = _not_finite(dtype)
    y = np.empty(
        (2, 3, *[(n + sum(p) - 3) // s + 1 for n, p, s in zip((5, 6), padding, stride, strict=True)], 5), dtype
    )
    around = np.pad(x, ((0, 0), (0, 0), *padding, (0, 0)))
    numpy_kernel("conv", "conv2d")([y], [around, w], stride=stride, padding=((0, 0), (0, 0)))
    g = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    g[1, 2, 0, 0, 1], g[1, 0, -1, -1, 2], g[1, 1, y.shape[2] // 2, 0, 0] = np.inf, np.nan, np.inf
    dw = np.empty_like(w)
    numpy_kernel("conv", "conv2d_dw")([dw], [around, g], stride=stride, padding=((0, 0), (0, 0)), size=(3, 3))
    for kernel in {find, numpy_kernel}:
        results, of_w = np.empty_like(y), np.empty_like(w)
        kernel("conv", "conv2d")([results], [x, w], stride=stride, padding=padding)
        kernel("conv", "conv2d_dw")([of_w], [x, g], stride=stride, padding=padding, size=(3, 3))
        np.testing.assert_allclose(results, y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(of_w, dw, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_zeros_around_images_take_part_on_a_gpu(gpu, stride):
    x, w = _not_finite(np.float32)
    results = tm.conv2d(gpu.asarray(x), gpu.asarray(w), stride=stride, padding=((1, 1), (2, 0))).data.get()
    np.testing.assert_allclose(
        results, tm.conv2d(x, w, stride=stride, padding=((1, 1), (2, 0))).data, rtol=1e-4, atol=1e-4
    )

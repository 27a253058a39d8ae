"""Pooling beyond what the cases of its primitives show: fused = composed, ties, what is not a number, bad input."""

from functools import partial, reduce

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.autodiff.primitive import REGISTRY
from tinymaml.kernels import cpu
from tinymaml.kernels.cpu import threads
from tinymaml.ops.conv import output_size
from tinymaml.testing import DerivativeError, check_derivatives

KERNELS = [cpu.find, cpu.numpy_kernel]
PLAIN = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}


def composed(pool, x, size, stride):
    """The same in plain ops, without padding."""
    p, q = output_size(x.shape[2:4], size, stride, ((0, 0), (0, 0)))
    parts = [
        tm.as_tensor(x)[:, :, i : i + p * stride[0] : stride[0], j : j + q * stride[1] : stride[1]][:, :, :p, :q]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return reduce(tm.maximum, parts) if pool is tm.max_pool2d else sum(parts) * (1 / len(parts))


def to_third(function, x):
    """Value, gradient, Hessian-vector product in three modes, and the gradient of <v, Hv>."""
    v = np.random.default_rng(1).standard_normal(x.shape).astype(x.dtype)

    def loss(x):
        return tm.sum(tm.sin(function(tm.sin(x))))

    value, first = tm.value_and_grad(loss)(x)
    second = [tm.hvp(loss, x, v, mode=mode) for mode in tm.maml.MODES[:3]]
    return [value, first, *second, tm.grad(lambda x: tm.sum(tm.hvp(loss, x, v) * v))(x)]


@pytest.mark.parametrize("pool", [tm.max_pool2d, tm.avg_pool2d])
@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((2, 3, 4, 6, 5), (2, 2), (2, 2)),
        ((1, 2, 5, 7, 1), (2, 2), (2, 2)),  # ragged edges
        ((2, 1, 7, 6, 3), (3, 2), (1, 1)),  # windows overlap
        ((1, 1, 8, 9, 2), (2, 3), (3, 4)),  # gaps between windows
        ((3, 2, 3, 3, 20), (3, 3), (3, 3)),  # one window
    ],
)
def test_fused_is_composed(pool, shape, size, stride):
    x = np.random.default_rng(0).standard_normal(shape)
    fused = to_third(lambda x: pool(x, size, stride), x)
    for one, other in zip(fused, to_third(lambda x: composed(pool, x, size, stride), x), strict=True):
        assert np.linalg.norm(np.ravel(one - other)) <= 1e-11 * max(1, np.linalg.norm(np.ravel(other)))


def test_derivatives_use_the_places_that_are_known(applied):
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 4, 1))
    tm.hvp(lambda x: tm.sum(tm.sin(tm.max_pool2d(x, 2))), x, x)
    assert [applied.count(name) for name in ("max_pool", "pool_take", "pool_put")] == [1, 1, 2]


def test_a_wrong_place_is_caught():
    primitive, x = REGISTRY["max_pool"], np.random.default_rng(0).standard_normal((1, 2, 4, 4, 3))
    function = lambda x: tm.max_pool2d(x, 2)  # noqa: E731
    check_derivatives(function, x)
    original = primitive.vjp

    def first(wanted, g, ys, x, **static):
        return original(wanted, g, (ys[0], tm.as_tensor(np.zeros_like(ys[1].data))), x, **static)

    object.__setattr__(primitive, "vjp", first)
    try:
        with pytest.raises(DerivativeError, match="at order 1 the vjp and the jvp"):
            check_derivatives(function, x)
    finally:
        object.__setattr__(primitive, "vjp", original)


def test_of_equal_numbers_the_first_in_reading_order_has_the_derivative():
    x = np.zeros((1, 1, 4, 4, 1))
    x[0, 0, 1, 0] = x[0, 0, 1, 1] = 1.0  # two largest in the first window
    _, pullback = tm.vjp(lambda x: tm.max_pool2d(x, 2), x)
    (g,) = pullback(np.arange(1.0, 5).reshape(1, 1, 2, 2, 1))
    expected = np.zeros((4, 4))
    expected[1, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 1, 2, 3, 4
    np.testing.assert_array_equal(g[0, 0, :, :, 0], expected)


def test_ties_keep_the_adjoint_identity():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (2, 2, 5, 5, 3)).astype(float)
    v, g = rng.standard_normal(x.shape), rng.standard_normal((2, 2, 3, 3, 3))

    def pool(x):
        return tm.max_pool2d(x, 3, 2, "SAME")

    _, tangent = tm.jvp(pool, (x,), (v,))
    _, pullback = tm.vjp(pool, x)
    assert abs((tangent * g).sum() - (pullback(g)[0] * v).sum()) < 1e-12


def test_what_is_not_a_number_stays():
    x = np.zeros((1, 1, 2, 6, 1), np.float32)
    x[0, 0, 0, 1], x[0, 0, 1, 2], x[0, 0, :, 4:] = np.nan, np.inf, -np.inf
    y = tm.max_pool2d(x, 2).data.ravel()
    assert np.isnan(y[0]) and y[1] == np.inf and y[2] == -np.inf
    _, pullback = tm.vjp(lambda x: tm.max_pool2d(x, 2), x)
    assert pullback(np.ones((1, 1, 1, 3, 1), np.float32))[0].sum() == 3  # each window has its place, -inf or not


@pytest.mark.parametrize("find", KERNELS)
def test_kernels_agree_on_ties_and_what_is_not_a_number(find):
    nan, inf = np.nan, np.inf
    windows = {
        (1, 1, 1, 1): (1, 0),
        (0, 2, 2, 1): (2, 1),
        (-0.0, 0.0, -1, 0.0): (0, 0),
        (0, 1, nan, nan): (nan, 2),
        (nan, inf, 1, nan): (nan, 0),
        (-inf, 1, inf, inf): (inf, 2),
        (-inf, -inf, -inf, -inf): (-inf, 0),
    }
    x = np.stack([np.array(window) for window in windows], -1).reshape(1, 1, 2, 2, -1)
    y, at = np.empty((1, 1, 1, 1, len(windows))), np.empty((1, 1, 1, 1, len(windows)), np.int8)
    find("pool", "max_pool")([y, at], [x], **PLAIN)
    np.testing.assert_array_equal(y.ravel(), [value for value, _ in windows.values()])
    np.testing.assert_array_equal(at.ravel(), [place for _, place in windows.values()])
    # A number that is not taken, and a cotangent for another place, do not leak through, whatever they are.
    find("pool", "pool_take")([y], [x, at], **PLAIN, size=(2, 2))
    np.testing.assert_array_equal(y.ravel(), [value for value, _ in windows.values()])
    g, dx = np.full_like(y, nan), np.empty_like(x)
    find("pool", "pool_put")([dx], [g, at], **PLAIN, size=(2, 2))
    np.testing.assert_array_equal(np.isnan(dx).reshape(4, -1), np.arange(4)[:, None] == at.ravel())


def test_overlapping_windows_add_up():
    x = np.zeros((1, 1, 5, 5, 1))
    x[0, 0, 2, 2] = 1.0
    _, pullback = tm.vjp(lambda x: tm.max_pool2d(x, 3, 1), x)
    np.testing.assert_array_equal(pullback(np.ones((1, 1, 3, 3, 1)))[0], 9 * x)
    _, pullback = tm.vjp(lambda x: tm.avg_pool2d(x, 2, 1, "SAME"), x)
    expected = np.ones((5, 5))  # in the last row and column windows have fewer pixels, and one more counts in full
    expected[0] *= 0.5
    expected[:, 0] *= 0.5
    expected[-1] *= 1.5
    expected[:, -1] *= 1.5
    np.testing.assert_allclose(pullback(np.ones_like(x))[0][0, 0, :, :, 0], expected, rtol=1e-15)


def test_places_of_large_windows_do_not_overflow():
    rng = np.random.default_rng(0)
    x, static = (
        rng.standard_normal((2, 1, 24, 22, 3)),
        {"window": (12, 11), "stride": (12, 11), "padding": ((0, 0),) * 2},
    )
    y, at = REGISTRY["max_pool"](x, **static)
    assert at.dtype == np.int32
    assert at.data.max() > 127
    tiles = x.reshape(2, 1, 2, 12, 2, 11, 3).transpose(0, 1, 2, 4, 6, 3, 5).reshape(2, 1, 2, 2, 3, 132)
    np.testing.assert_array_equal(y.data, tiles.max(-1))
    np.testing.assert_array_equal(at.data, tiles.argmax(-1))
    check_derivatives(lambda x: tm.max_pool2d(x, (12, 11)), x, order=2)
    assert REGISTRY["max_pool"](x, **static | {"window": (12, 10)})[1].dtype == np.int8


@pytest.mark.parametrize("find", KERNELS)
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_written_beyond_the_channels(find, channels, dtype):
    """The last vector of channels may be ragged: what lies behind the arrays stays as it was."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 3, 5, channels)).astype(dtype)
    shape = (1, 2, 1, 2, channels)

    def guarded(shape, kind):
        whole = np.full(np.prod(shape) + 64, 7, kind)
        return whole, whole[:-64].reshape(shape)

    (y_all, y), (at_all, at), (dx_all, dx) = guarded(shape, dtype), guarded(shape, np.int8), guarded(x.shape, dtype)
    find("pool", "max_pool")([y, at], [x], **PLAIN)
    np.testing.assert_array_equal(y, x[:, :, :2, :4].reshape(1, 2, 1, 2, 2, 2, channels).max((3, 5)))
    find("pool", "pool_put")([dx], [y, at], **PLAIN, size=(3, 5))
    np.testing.assert_array_equal(dx, np.where(dx != 0, x, 0))
    assert np.count_nonzero(dx) == y.size
    for whole in (y_all, at_all, dx_all):
        assert (whole[-64:] == 7).all()


def test_images_that_tasks_share():
    x = np.broadcast_to(np.random.default_rng(0).standard_normal((1, 2, 4, 4, 3)), (3, 2, 4, 4, 3))
    for pool in (tm.max_pool2d, tm.avg_pool2d):
        for one, other in zip(to_third(pool, x), to_third(pool, x.copy()), strict=True):
            np.testing.assert_array_equal(one, other)


def test_no_tasks_images_or_channels():
    for pool in (tm.max_pool2d, tm.avg_pool2d):
        for shape in ((0, 2, 4, 4, 3), (2, 0, 4, 4, 3), (2, 2, 4, 4, 0)):
            value, pullback = tm.vjp(lambda x: pool(x, 2), np.zeros(shape))  # noqa: B023
            assert value.shape == (*shape[:2], 2, 2, shape[4])
            assert pullback(value)[0].shape == shape


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, same_on_any_threads):
    x = np.random.default_rng(0).standard_normal((7, 2, 9, 9, 5)).astype(np.float32)
    monkeypatch.setattr(threads, "LARGE", 0)

    pools = [partial(pool, size=3, stride=2) for pool in (tm.max_pool2d, tm.avg_pool2d)]
    same_on_any_threads(lambda: [part for pool in pools for part in to_third(pool, x)])


def test_padding_never_wins():
    x = -np.arange(1.0, 10).reshape(1, 1, 3, 3, 1)
    np.testing.assert_array_equal(tm.max_pool2d(x, 2, 2, "SAME").data.ravel(), [-1, -3, -7, -9])
    np.testing.assert_array_equal(tm.avg_pool2d(x, 2, 2, "SAME").data.ravel(), [-3, -4.5, -7.5, -9])


def test_ragged_edges_are_left_out():
    x = np.arange(15.0).reshape(1, 1, 3, 5, 1)
    np.testing.assert_array_equal(tm.max_pool2d(x, 2).data.ravel(), [6, 8])
    assert tm.max_pool2d(np.zeros((4, 2, 84, 84, 3)), 2).shape == (4, 2, 42, 42, 3)


def test_a_composition_to_third_order():
    rng = np.random.default_rng(1)
    x = rng.permutation(2 * 5 * 4).reshape(1, 1, 5, 4, 2) / 7

    def smooth(x):
        return tm.sum(tm.sin(tm.max_pool2d(x * x, 2)) * tm.avg_pool2d(tm.exp(x * 0.1), 2))

    check_derivatives(smooth, x)


@pytest.mark.parametrize("pool", [tm.max_pool2d, tm.avg_pool2d])
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 4, 4, 1), {}, r"must be \[tasks, images, height, width, channels\], got \(2, 4, 4, 1\)"),
        ((1, 1, 4, 4, 1), {"size": 0}, "size must be a whole number >= 1"),
        ((1, 1, 4, 4, 1), {"size": 5}, "does not fit an image"),
        ((1, 1, 4, 4, 1), {"stride": (2, 0)}, "stride must be"),
        ((1, 1, 0, 4, 1), {"padding": ((1, 1), (0, 0))}, r"images of no pixels, \(1, 1, 0, 4, 1\)"),
        ((1, 1, 4, 4, 1), {"size": (2, 2, 2)}, "2d: size must be a whole number >= 1, or two of them"),
        ((1, 1, 4, 4, 1), {"padding": "FULL"}, "padding must be"),
        ((1, 1, 4, 4, 1), {"padding": 1}, "padding must be"),
        ((1, 1, 4, 4, 1), {"padding": ((2, 0), (0, 0))}, "would make windows of .* that hold no pixel"),
    ],
)
def test_bad_input(pool, shape, options, message):
    with pytest.raises(ValueError, match=message):
        pool(np.zeros(shape), **options)


@pytest.mark.parametrize("pool", [tm.max_pool2d, tm.avg_pool2d])
def test_integer_images_are_refused(pool):
    with pytest.raises(TypeError, match=f"^{pool.__name__}: an input is uint8, expected float32 or float64"):
        pool(np.zeros((1, 1, 4, 4, 1), np.uint8))


def test_spatial_mean_of_other_axes_is_refused():
    with pytest.raises(ValueError, match="spatial_mean: x must be"):
        tm.spatial_mean(np.zeros((2, 3, 4)))

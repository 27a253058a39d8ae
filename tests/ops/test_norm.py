"""Normalisation beyond what the cases of its primitives show: fused = composed, statistics, extremes, bad input."""

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.norm_cases import over
from tinymaml.autodiff.primitive import REGISTRY, Primitive
from tinymaml.kernels import cpu
from tinymaml.ops import normalisation
from tinymaml.testing import DerivativeError, check_derivatives

RNG = np.random.default_rng(7)
FUNCTIONS = [tm.batch_norm, tm.batch_norm_relu]


def composed(function, x, gamma=None, beta=None, eps=1e-3):
    """The same in plain ops."""
    x = tm.as_tensor(x)
    middle = tuple(range(1, x.ndim - 1))
    centred = x - tm.mean(x, middle, keepdims=True)
    y = centred / tm.power(tm.mean(centred * centred, middle, keepdims=True) + eps, 0.5)
    y = y if gamma is None else y * over(tm.as_tensor(gamma), x)
    y = y if beta is None else y + over(tm.as_tensor(beta), x)
    return tm.relu(y) if function is tm.batch_norm_relu else y


def inputs(shape=(2, 3, 5, 4), *, shared=False, seed=0):
    """x, gamma and beta, with a gamma of 0 and a constant channel, and nothing within 1e-3 of the kink."""
    rng = np.random.default_rng(seed)
    tasks, channels = 1 if shared else shape[0], shape[-1]
    gamma = rng.standard_normal((tasks, channels))
    gamma[:, 0] = 0
    beta = rng.standard_normal((tasks, channels))
    x = rng.standard_normal(shape)
    x[..., -1] = 0.3
    assert np.abs(composed(tm.batch_norm, x, gamma, beta).data).min() > 1e-3
    return x, gamma, beta


def to_third(function, arrays):
    """Value, gradient, Hessian-vector product in three modes, and the gradient of <v, Hv>: by all the arrays."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(function(*arrays).shape)
    vs = [rng.standard_normal(a.shape) for a in arrays]

    def loss(arrays):
        return tm.sum(tm.sin(function(*arrays)) * weights)

    def curvature(arrays):
        return sum(tm.sum(a * b) for a, b in zip(tm.hvp(loss, arrays, vs), vs, strict=True))

    value, first = tm.value_and_grad(loss)(list(arrays))
    second = [tm.hvp(loss, list(arrays), vs, mode=mode) for mode in tm.maml.MODES[:3]]
    return [value, *first, *[part for mode in second for part in mode], *tm.grad(curvature)(list(arrays))]


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert np.linalg.norm(np.ravel(one - other)) <= 1e-11 * max(1, np.linalg.norm(np.ravel(other)))


def assert_same_to_third(function, other, arrays):
    assert_same(to_third(function, arrays), to_third(other, arrays))


# Fused = composed, to third order.


@pytest.mark.parametrize("given", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 7, 3), (3, 1, 2, 3, 2), (2, 1, 5)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_fused_is_composed(function, shape, shared, given):
    arrays = inputs(shape, shared=shared)[:given]
    if given < 3 and function is tm.batch_norm_relu:
        arrays = tuple(a[..., :-1] for a in arrays)  # a constant channel would be on the kink
    eps = 0.1  # at the default, third derivatives of a constant channel are too large to be compared
    assert_same_to_third(lambda *xs: function(*xs, eps=eps), lambda *xs: composed(function, *xs, eps=eps), arrays)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_default_eps_is_the_authors(function):
    x, gamma, beta = inputs()
    arrays = (x[..., :-1], gamma[:, :-1], beta[:, :-1])
    assert_same_to_third(function, lambda *xs: composed(function, *xs), arrays)


@pytest.mark.parametrize("stencil", [2, 4])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_at_the_default_eps(function, stencil):
    x, gamma, beta = inputs((2, 3, 3, 2))
    check_derivatives(function, x[..., :1], gamma[:, 1:] + 1, beta[:, 1:], stencil=stencil)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_task_of_x_and_several_of_parameters(function):
    x, gamma, beta = inputs((1, 3, 5, 2))
    gamma, beta = np.concatenate([gamma, gamma + 0.2]), np.concatenate([beta, beta - 0.2])
    expected = function(np.repeat(x, 2, 0), gamma, beta).data
    np.testing.assert_array_equal(function(x, gamma, beta).data, expected)
    np.testing.assert_array_equal(function(np.broadcast_to(x, (2, *x.shape[1:])), gamma, beta).data, expected)
    arrays = (x, gamma, beta)
    assert_same_to_third(lambda *xs: function(*xs, eps=0.1), lambda *xs: composed(function, *xs, eps=0.1), arrays)


# A residual that is frozen is an error of a high order: the checks below it pass, those above do not.


def frozen_vjp(wanted, g, ys, x, gamma, beta, eps, rectified):
    """The right gradient, of which no derivative by way of the mean and 1/std is left."""
    mean, rstd = (over(tm.as_tensor(y.data), x) for y in ys[1:])
    normal = (x - mean) * rstd
    middle = tuple(range(1, x.ndim - 1))
    average = lambda v: tm.mean(v, middle, keepdims=True)  # noqa: E731
    dx = over(gamma, x) * rstd * (g - average(g) - normal * average(g * normal))
    return dx, tm.sum(g * normal, middle), tm.sum(g, middle)


def test_a_frozen_residual_is_caught_at_second_order():
    x, gamma, beta = inputs((2, 3, 2, 3))
    primitive = REGISTRY["batch_norm"]
    function = lambda *xs: tm.batch_norm(*xs, eps=0.1)  # noqa: E731
    right = tm.vjp(function, x, gamma, beta)[1](np.cos(x))
    original = primitive.vjp
    object.__setattr__(primitive, "vjp", frozen_vjp)
    try:
        assert_same(tm.vjp(function, x, gamma, beta)[1](np.cos(x)), right)
        with pytest.raises(DerivativeError, match="at order 2"):
            check_derivatives(function, x, gamma, beta, order=2)
    finally:
        object.__setattr__(primitive, "vjp", original)
    check_derivatives(function, x, gamma, beta, order=2)


def test_a_frozen_residual_is_caught_at_third_order(monkeypatch):
    x, gamma, beta = inputs((2, 3, 2, 3))
    function = lambda x: tm.grad(lambda x: tm.sum(tm.sin(tm.batch_norm(x, gamma, beta, eps=0.1))))(x)  # noqa: E731

    def frozen(x, gamma, beta, eps, rectified):
        moments = [tm.stop_gradient(m) for m in tm.batch_statistics(x)]
        return tm.batch_norm(x, gamma, beta, eps=eps, statistics=moments)

    check_derivatives(function, x, order=2)
    monkeypatch.setattr(normalisation, "_plain", frozen)
    check_derivatives(function, x, order=1)
    with pytest.raises(DerivativeError, match="at order 2"):
        check_derivatives(function, x, order=2)


def test_residuals_are_not_to_be_used():
    _, mean, rstd = REGISTRY["batch_norm"](*map(tm.Tensor, inputs((1, 4, 2))), eps=1e-3, rectified=False)
    for residual in (mean, rstd):
        with pytest.raises(TypeError, match="is a residual of batch_norm"):
            residual * 2.0


def test_what_a_second_order_step_runs(monkeypatch):
    """The value and the gradient of either batch, and their tangents along x alone: gamma and beta are not adapted."""
    applied = []
    apply = Primitive.__call__

    def counted(self, *inputs, **static):
        applied.append((self.name, static.get("given")))
        return apply(self, *inputs, **static)

    def loss(params, batch):
        x = batch
        for w in params:
            x = tm.batch_norm_relu(tm.dense(x, w), np.ones((1, 4)), None)
        return tm.mse(x, np.ones(x.shape))

    monkeypatch.setattr(Primitive, "__call__", counted)
    params = [RNG.standard_normal((1, 3, 4)), RNG.standard_normal((1, 4, 4))]
    tm.maml.meta_value_and_grad(loss, params, RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 6, 3)), 0.1, 1)
    family = sorted([launch for launch in applied if launch[0].startswith("batch_norm")], key=str)
    batches, layers = 2, 2
    once = [("batch_norm", None), ("batch_norm_gradient", None)] * batches
    once += [("batch_norm_tangent", (True, False, False)), ("batch_norm_hessian", (True, False, False, True))]
    assert family == sorted(once * layers, key=str)


# Statistics that are given.


@pytest.mark.parametrize("function", FUNCTIONS)
def test_given_statistics(function):
    x, gamma, beta = inputs()
    x = x[..., :-1]
    gamma, beta = gamma[:1, :-1], beta[:, :-1]
    moments = [RNG.standard_normal((2, 3)), RNG.uniform(0.5, 2, (1, 3))]
    expected = (x - over(moments[0], x)) / np.sqrt(over(moments[1], x) + 0.2) * over(gamma, x) + over(beta, x)
    actual = function(x, gamma, beta, eps=0.2, statistics=moments).data
    np.testing.assert_allclose(actual, np.maximum(expected, 0) if function is tm.batch_norm_relu else expected, 1e-12)
    assert np.abs(expected).min() > 1e-4
    check_derivatives(lambda x, *rest: function(x, *rest[:2], eps=0.2, statistics=rest[2:]), x, gamma, beta, *moments)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_batchs_own_statistics_change_nothing(function):
    """Nor do they in any derivative, as those by the statistics are taken too."""
    arrays = inputs()

    def with_its_statistics(x, gamma, beta):
        return function(x, gamma, beta, eps=0.1, statistics=tm.batch_statistics(x))

    assert_same_to_third(lambda *xs: function(*xs, eps=0.1), with_its_statistics, arrays)


def test_an_example_does_not_see_the_others_when_statistics_are_given():
    x, gamma, beta = inputs()
    support, query = x, x[:, :2] + 1
    moments = tm.batch_statistics(support)
    alone = tm.batch_norm_relu(query[:, :1], gamma, beta, statistics=moments)
    np.testing.assert_array_equal(tm.batch_norm_relu(query, gamma, beta, statistics=moments).data[:, :1], alone.data)
    one = tm.batch_norm_relu(query[:1], gamma[:1], beta[:1], statistics=moments)  # one task of x
    assert one.shape == query.shape


# Extremes.


def both(name, *arrays, **static):
    """The residuals and values that each kernel gives."""
    kernels = [cpu.numpy_kernel(*name), *[k for k in (cpu.numba_kernel(*name),) if k is not None]]
    for run in kernels:
        outs = [np.empty_like(arrays[0]), *[np.empty((len(arrays[0]), arrays[0].shape[-1]), arrays[0].dtype)] * 2]
        outs[2] = np.empty_like(outs[1])
        run(outs, arrays, **static)
        yield outs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("examples", [1, 37, 300, 5000])
@pytest.mark.parametrize("constant", [0.1, -1e4 / 3, 1e-20])
def test_a_constant_channel_is_beta_exactly(constant, examples, dtype):
    x = np.full((2, examples, 3), constant, dtype)
    gamma, beta = np.full((2, 3), 1.7, dtype), np.array([[0, 0.5, -0.5]] * 2, dtype)
    for y, mean, rstd in both(("norm", "batch_norm"), x, gamma, beta, eps=1e-3, rectified=True):
        np.testing.assert_array_equal(y, np.broadcast_to([0, 0.5, 0], x.shape).astype(dtype))
        np.testing.assert_array_equal(mean, dtype(constant))
        np.testing.assert_allclose(rstd, 1e-3**-0.5, rtol=1e-6)
    for order in (lambda f: tm.grad(f)(x), lambda f: tm.hvp(f, x, np.ones_like(x))):
        results = order(lambda x: tm.sum(tm.batch_norm_relu(x, gamma, beta) ** 3))
        assert np.isfinite(results).all()


@pytest.mark.parametrize("shape", [(2, 4000, 3), (2, 60, 20), (1, 7, 150, 64)])
@pytest.mark.parametrize("kind", ["far from zero", "first example apart", "first image apart", "tiny"])
def test_statistics_are_accurate(kind, shape):
    """In float32, against float64 of the same numbers. The mean of squares less the square of the mean would not be."""
    x = RNG.standard_normal(shape)
    if kind == "far from zero":
        x += 3000
    elif kind == "tiny":
        x *= 1e-12
    else:
        x[:, : 1 if kind == "first example apart" else shape[1] // 8] += 100
    x = x.astype(np.float32)
    exact = x.astype(np.float64)
    middle = tuple(range(1, x.ndim - 1))
    parameters = np.ones((2, len(x), shape[-1]), np.float32)
    for _, mean, rstd in both(("norm", "batch_norm"), x, *parameters, eps=1e-30, rectified=False):
        np.testing.assert_allclose(mean, exact.mean(middle), rtol=1e-6, atol=1e-6 * x.std())
        np.testing.assert_allclose(rstd, exact.var(middle) ** -0.5, rtol=1e-5)


def test_what_is_not_a_number_stays_in_its_channel():
    x, gamma, beta = (a.astype(np.float32) for a in inputs((2, 3, 50, 4)))
    x[0, 1, 2, 1] = np.nan
    expected = np.zeros(x.shape, bool)
    expected[0, :, :, 1] = True
    for y, *_ in both(("norm", "batch_norm"), x, gamma, beta, eps=1e-3, rectified=True):
        np.testing.assert_array_equal(np.isnan(y), expected)


def test_no_tasks_and_no_channels():
    assert tm.layer_norm(np.zeros((0, 3, 2))).shape == (0, 3, 2)
    for shape in ((0, 3, 2), (2, 3, 0)):
        x = np.zeros(shape)
        value, pullback = tm.vjp(tm.batch_norm_relu, x)
        assert value.shape == pullback(x)[0].shape == shape
        assert tm.batch_statistics(x)[1].shape == (shape[0], shape[2])


def test_results_do_not_depend_on_the_number_of_threads(same_on_any_threads):
    xs = [RNG.standard_normal(n).astype(np.float32) for n in ((7, 3, 150, 16), (7, 16), (7, 16))]

    def work():
        value, slope = tm.jvp(tm.batch_norm_relu, xs, xs)
        return [value, slope, *tm.hvp(lambda xs: tm.sum(tm.sin(tm.batch_norm_relu(*xs))), xs, xs)]

    same_on_any_threads(work)


# Layer normalisation.


def test_layer_norm():
    x, gamma, beta = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((2, 4)), RNG.standard_normal((1, 4))
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(tm.layer_norm(x).data, normal, rtol=1e-12)
    expected = normal * over(gamma, x) + over(beta, x)
    np.testing.assert_allclose(tm.layer_norm(x, gamma, beta).data, expected, rtol=1e-12)
    np.testing.assert_allclose(tm.layer_norm(x[:, 0, 0], gamma, beta).data, expected[:, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(tm.layer_norm(x[:1], gamma, beta).data[0], expected[0], rtol=1e-12)
    assert np.isfinite(tm.grad(lambda x: tm.sum(tm.layer_norm(x) ** 2))(np.ones((1, 2, 3)))).all()


# Bad input.


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3, 4), (1, 5)), {}, r"batch_norm: gamma must be \[1, 4\] or \[2, 4\] for x \(2, 3, 4\), got \(1, 5\)"),
        (((2, 3, 4), (2, 4), (3, 4)), {}, r"batch_norm: beta must be \[1, 4\] or \[2, 4\] for x .* got \(3, 4\)"),
        (((2, 3, 4), (4,)), {}, r"batch_norm: gamma must be .* got \(4,\)"),
        (((2, 3, 4), (2, 1, 4)), {}, r"batch_norm: gamma must be .* got \(2, 1, 4\)"),
        (((2, 4),), {}, r"batch_norm: x must be \[tasks, examples, ..., channels\], got \(2, 4\)"),
        (((2, 0, 4),), {}, r"batch_norm: no examples to normalise over in \(2, 0, 4\)"),
        (((2, 3, 4),), {"eps": 0}, "batch_norm: eps must be a positive number, got 0"),
        (((2, 3, 4),), {"eps": -1e-3}, "eps must be a positive number, got -0.001"),
        (((2, 3, 4),), {"eps": float("nan")}, "eps must be a positive number, got nan"),
        (((2, 3, 4),), {"eps": True}, "eps must be a positive number, got True"),
        (((2, 3, 4),), {"statistics": (np.zeros((2, 4)),)}, r"statistics must be \(mean, variance\), got"),
        (((2, 3, 4),), {"statistics": (np.zeros((2, 4)), np.ones(4))}, r"variance must be \[1, 4\] or \[2, 4\]"),
        (((2, 3, 4),), {"statistics": (np.zeros((2, 5)), np.ones((2, 4)))}, r"mean must be \[1, 4\] or \[2, 4\]"),
    ],
)
def test_bad_input(shapes, options, message):
    arrays = [np.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        tm.batch_norm(*arrays, **options)
    with pytest.raises(ValueError, match=message.replace("batch_norm:", "batch_norm_relu:")):
        tm.batch_norm_relu(*arrays, **options)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2,),), {}, r"layer_norm: x must be \[tasks, ..., channels\] with channels, got \(2,\)"),
        (((2, 3, 0),), {}, "with channels, got"),
        (((2, 3, 4), (3, 4)), {}, r"layer_norm: gamma must be \[1, 4\] or \[2, 4\]"),
        (((2, 3, 4), (1, 4), (1, 3)), {}, r"layer_norm: beta must be \[1, 4\] or \[2, 4\]"),
        (((2, 3, 4),), {"eps": 0.0}, "layer_norm: eps must be a positive number"),
    ],
)
def test_bad_input_of_layer_norm(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        tm.layer_norm(*[np.zeros(shape) for shape in shapes], **options)


def test_bad_input_of_batch_statistics():
    with pytest.raises(ValueError, match="batch_statistics: no examples"):
        tm.batch_statistics(np.zeros((2, 3, 0, 4)))
    with pytest.raises(ValueError, match="batch_statistics: x must be"):
        tm.batch_statistics(np.zeros((2, 3)))


@pytest.mark.parametrize("function", [*FUNCTIONS, tm.layer_norm])
def test_mixed_precision_is_refused(function):
    x, gamma, beta = (a.astype(np.float32) for a in inputs())
    with pytest.raises(TypeError, match="never mixed"):
        function(x, gamma.astype(np.float64))
    with pytest.raises(TypeError, match="never mixed"):
        function(x, gamma, beta.astype(np.float64))
    with pytest.raises(TypeError, match="is int64, expected float32 or float64"):
        function(np.ones((2, 3, 4), np.int64))
    if function is not tm.layer_norm:
        with pytest.raises(TypeError, match="never mixed"):
            function(x, statistics=(gamma, np.ones((2, 4))))

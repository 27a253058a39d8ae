"""Cross-entropy beyond what the cases of its primitives show: fused = composed, extremes, labels, bad input."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.kernels import cpu
from tinymaml.kernels.cpu import threads
from tinymaml.ops import losses
from tinymaml.testing import DerivativeError, check_derivatives


def example(shape=(2, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])


def composed(logits, labels):
    """The same in plain ops."""
    logits = tm.as_tensor(logits)
    chosen = tm.take_along_axis(logits, labels[..., None], -1)
    return losses.sum_per_task(tm.logsumexp(logits, -1, keepdims=True) - chosen) * (1 / np.prod(labels.shape[1:]))


def to_third(function, x):
    """Value, gradient, Hessian-vector product in three modes, and the gradient of <v, Hv>."""
    v = np.random.default_rng(1).standard_normal(x.shape)

    def loss(x):
        return tm.sum(tm.sin(function(x)))

    value, first = tm.value_and_grad(loss)(x)
    second = [tm.hvp(loss, x, v, mode=mode) for mode in tm.maml.MODES[:3]]
    return [value, first, *second, tm.grad(lambda x: tm.sum(tm.hvp(loss, x, v) * v))(x)]


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 7, 3), (3, 1, 20), (2, 1, 2), (2, 3, 1), (2, 3, 4, 5), (4, 6)])
def test_fused_is_composed(shape):
    x, labels = example(shape)
    fused = to_third(lambda x: tm.softmax_cross_entropy(x, labels), x)
    for one, other in zip(fused, to_third(lambda x: composed(x, labels), x), strict=True):
        assert np.linalg.norm(np.ravel(one - other)) <= 1e-11 * max(1, np.linalg.norm(np.ravel(other)))


def test_a_hessian_vector_product_is_one_kernel(applied):
    x, labels = example()
    for mode in tm.maml.MODES[:2]:
        applied.clear()
        tm.hvp(lambda x: tm.sum(tm.softmax_cross_entropy(x, labels)), x, x, mode=mode)
        assert applied.count("cross_entropy_gradient") == applied.count("cross_entropy_hessian") == 1
        assert not {"exp", "logsumexp"} & set(applied)


def test_a_wrong_third_derivative_is_caught(monkeypatch):
    x, labels = example()
    check_derivatives(tm.softmax_cross_entropy, x, labels)
    right = losses._entropy_third
    monkeypatch.setattr(losses, "_entropy_third", lambda h, *rest: right(h, *rest) * 1.001)
    check_derivatives(tm.softmax_cross_entropy, x, labels, order=2)
    with pytest.raises(DerivativeError, match="at order 3"):
        check_derivatives(tm.softmax_cross_entropy, x, labels)


def test_known_values():
    x = np.zeros((2, 3, 4))
    labels = np.array([[0, 1, 2], [3, 3, 3]])
    value, slope = tm.value_and_grad(lambda x: tm.sum(tm.softmax_cross_entropy(x, labels)))(x)
    assert value == pytest.approx(2 * np.log(4))
    np.testing.assert_allclose(slope, (0.25 - np.eye(4)[labels]) / 3, rtol=1e-15)


@pytest.mark.parametrize("find", [cpu.find, cpu.numpy_kernel])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(find, dtype):
    """The kernels themselves: the gap decides, not the size, and nothing overflows."""
    logits = np.array([[[1e30, -1e30, 0], [-1e30, -1e30, -1e30], [5e4, 5e4 - 1, -np.inf]]], dtype)
    labels, h, v = np.array([[0, 1, 0]]), np.ones(1, dtype), np.array([[[1, 2, 3]] * 3], dtype)
    value, slope, product = np.empty(1, dtype), np.empty_like(logits), np.empty_like(logits)
    find("losses", "cross_entropy")([value], [logits, labels])
    find("losses", "cross_entropy_gradient")([slope], [logits, labels, h])
    find("losses", "cross_entropy_hessian")([product], [logits, h, v])
    p = 1 / (1 + np.exp(-1.0))
    assert value[0] == pytest.approx((np.log(3) - np.log(p)) / 3, rel=1e-6)
    expected = np.array([[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [p - 1, 1 - p, 0]]) / 3
    np.testing.assert_allclose(slope[0], expected, atol=1e-6)
    expected = np.array([[0, 0, 0], [-1 / 3, 0, 1 / 3], [-p * (1 - p), p * (1 - p), 0]]) / 3
    np.testing.assert_allclose(product[0], expected, atol=1e-6)


@pytest.mark.parametrize("place", range(3))
def test_what_is_not_a_number_stays(place):
    x, labels = example((3, 2, 3))
    x[1, 0, place] = np.nan
    value, pullback = tm.vjp(lambda x: tm.softmax_cross_entropy(x, labels), x)
    np.testing.assert_array_equal(np.isnan(value), [False, True, False])
    (slope,) = pullback(np.ones(3))
    np.testing.assert_array_equal(np.isnan(slope).any(-1), [[False, False], [True, False], [False, False]])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_labels_of_any_integers(kind):
    x, labels = example()
    expected = tm.softmax_cross_entropy(x, labels).numpy()
    for of_kind in (labels.astype(kind), np.asfortranarray(labels.astype(kind)), tm.as_tensor(labels.astype(kind))):
        np.testing.assert_array_equal(tm.softmax_cross_entropy(x, of_kind).numpy(), expected)
    np.testing.assert_array_equal(tm.softmax_cross_entropy(x, labels.tolist()).numpy(), expected)


def test_layouts():
    x, labels = example((4, 3, 5))
    shared = np.broadcast_to(x[:1], x.shape)
    for logits in (x[::-1], np.asfortranarray(x), x[:, :, ::-1], shared):
        results = to_third(lambda x: tm.softmax_cross_entropy(x, labels), logits)
        for one, other in zip(
            results, to_third(lambda x: tm.softmax_cross_entropy(x, labels), logits.copy()), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_no_tasks():
    value, pullback = tm.vjp(lambda x: tm.softmax_cross_entropy(x, np.zeros((0, 3), int)), np.zeros((0, 3, 5)))
    assert value.shape == (0,)
    assert pullback(value)[0].shape == (0, 3, 5)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, same_on_any_threads):
    x, labels = example((7, 3, 5))
    x = x.astype(np.float32)
    monkeypatch.setattr(threads, "LARGE", 0)

    def loss(x):
        return tm.sum(tm.softmax_cross_entropy(x, labels))

    same_on_any_threads(lambda: [*tm.value_and_grad(loss)(x), tm.hvp(loss, x, x)])


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ((2, 3, 5), np.zeros((2, 4), int), ValueError, r"labels \[T, N\] expected, got \(2, 3, 5\) and \(2, 4\)"),
        ((2, 3, 5), np.zeros((2, 3, 1), int), ValueError, r"expected, got \(2, 3, 5\) and \(2, 3, 1\)"),
        ((5,), np.zeros((), int), ValueError, r"expected, got \(5,\) and \(\)"),
        ((2, 3, 5), np.full((2, 3), 5), ValueError, r"labels must be in \[0, 5\), got 5 to 5"),
        ((2, 3, 5), np.array([[0, 1, 4], [0, -1, 2]]), ValueError, r"labels must be in \[0, 5\), got -1 to 4"),
        ((2, 3, 0), np.zeros((2, 3), int), ValueError, r"labels must be in \[0, 0\), got 0 to 0"),
        ((2, 0, 5), np.zeros((2, 0), int), ValueError, r"no examples in \(2, 0, 5\)"),
        ((2, 3, 5), np.zeros((2, 3)), TypeError, "labels must be integers, got float64"),
        ((2, 3, 5), np.zeros((2, 3), bool), TypeError, "labels must be integers, got bool"),
    ],
)
def test_bad_input(logits, labels, error, message):
    with pytest.raises(error, match=f"softmax_cross_entropy: .*{message}"):
        tm.softmax_cross_entropy(np.zeros(logits), labels)


def test_integer_logits_are_refused():
    with pytest.raises(TypeError, match="softmax_cross_entropy: an input is int64, expected float32 or float64"):
        tm.softmax_cross_entropy(np.zeros((2, 3, 5), int), np.zeros((2, 3), int))

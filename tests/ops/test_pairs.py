"""Distances, similarities, attention, norms, losses and sums at the edges: zeros, ties, sizes, hidden keys, refusals;
and recorded steps of all of them."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import tree
from tinymaml.testing import check_derivatives

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def test_a_norm_of_zeros_has_derivatives():
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    loss = lambda x: tm.sum(tm.norm(x, -1))  # noqa: E731
    np.testing.assert_array_equal(tm.norm(x, -1).numpy(), [0, 5])
    np.testing.assert_allclose(tm.grad(loss)(x), [[0, 0], [0.6, 0.8]])
    assert np.isfinite(tm.hvp(loss, x, np.ones_like(x))).all()
    assert tm.norm(np.zeros((0, 2))).item() == 0


def test_similarity_with_zeros():
    """Of a vector of zeros it is 0, with the derivative of what it is defined to be: <x, y> / (eps |y|)."""
    x, y = np.zeros((1, 1, 2)), np.array([[[3.0, 4.0]]])
    assert tm.cosine_similarity(x, y).item() == 0
    slope = tm.grad(lambda x: tm.sum(tm.cosine_similarity(x, y, eps=0.01)))(x)
    np.testing.assert_allclose(slope, [[[60.0, 80.0]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_far_from_zero_keep_their_digits(dtype):
    x, y = (normal(2, 4, 3) + 1000).astype(dtype), (normal(2, 5, 3) + 1000).astype(dtype)
    expected = ((x[:, :, None].astype(np.float64) - y[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(
        tm.pairwise_squared_distances(x, y).numpy(), expected, rtol=1e-5 if dtype is np.float32 else 1e-13
    )


def test_distances_of_what_is_equal():
    """Where a distance vanishes its derivatives are those of a square: 0, and 2."""
    x = np.array([[[1.0, 2.0]]])
    loss = lambda x: tm.sum(tm.pairwise_squared_distances(x, np.array([[[1.0, 2.0]]])))  # noqa: E731
    np.testing.assert_array_equal(tm.grad(loss)(x), np.zeros((1, 1, 2)))
    np.testing.assert_allclose(tm.hvp(loss, x, np.ones_like(x)), 2 * np.ones((1, 1, 2)))


@pytest.mark.parametrize("function", [tm.cosine_similarity, tm.pairwise_squared_distances])
def test_sets_that_do_not_fit(function):
    message = (
        rf"{function.__name__}: sets \[..., N, D\] and \[..., M, D\] of vectors expected, got \(2, 3\) and \(2, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        function(np.ones((2, 3)), np.ones((2, 4)))


def test_attention_to_nothing_is_zero():
    queries, keys, values = normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 6)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    result, slopes = tm.value_and_grad(lambda *xs: tm.sum(tm.attention(*xs, mask)), (0, 1, 2))(queries, keys, values)
    assert np.isfinite(result)
    np.testing.assert_array_equal(tm.attention(queries, keys, values, mask).numpy()[:, 1], 0)
    np.testing.assert_array_equal(slopes[0][:, 1], 0)
    check_derivatives(lambda *xs: tm.attention(*xs, mask), queries, keys, values)


def test_attention_does_not_see_what_is_hidden():
    queries, keys, values = normal(1, 2, 3), normal(1, 4, 3), normal(1, 4, 2)
    mask = np.array([True, False, True, True])
    seen = tm.attention(queries, keys[:, mask], values[:, mask]).numpy()
    np.testing.assert_allclose(tm.attention(queries, keys, values, mask).numpy(), seen, rtol=1e-13)
    for sizes in ((1e4, np.float32), (1e4, np.float64)):
        big = (queries * sizes[0]).astype(sizes[1])
        assert np.isfinite(tm.attention(big, keys.astype(sizes[1]), values.astype(sizes[1]), mask).numpy()).all()


def test_attention_needs_a_value_for_every_key():
    with pytest.raises(
        ValueError, match=r"attention: a value is needed for every key, got keys \(4, 3\), values \(5, 3\)"
    ):
        tm.attention(np.ones((2, 3)), np.ones((4, 3)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="attention: no keys"):
        tm.attention(np.ones((2, 3)), np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match="attention: sets"):
        tm.attention(np.ones((2, 3)), np.ones((4, 2)), np.ones((4, 3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_cross_entropy_of_large_logits(dtype):
    logits, targets = np.array([[-1e4, 1e4, 20.0, -20.0]], dtype), np.array([[0, 1, 1, 0]], dtype)
    np.testing.assert_allclose(
        tm.sigmoid_cross_entropy(logits, targets).numpy(), [np.log1p(np.exp(-20)) / 2], rtol=1e-6
    )
    wrong = tm.sigmoid_cross_entropy(logits[:, :2], 1 - targets[:, :2]).numpy()
    np.testing.assert_allclose(wrong, [1e4], rtol=1e-6)
    at_zero = tm.grad(lambda x: tm.sum(tm.sigmoid_cross_entropy(x, np.array([[1.0]], dtype))))(np.zeros((1, 1), dtype))
    assert at_zero == -0.5


def test_sigmoid_cross_entropy_refuses():
    with pytest.raises(
        ValueError, match=r"sigmoid_cross_entropy: logits \(2, 3\) and targets \(2,\) must have one shape"
    ):
        tm.sigmoid_cross_entropy(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="sigmoid_cross_entropy: no examples"):
        tm.sigmoid_cross_entropy(np.ones((2, 0)), np.ones((2, 0)))


def test_elu_at_its_kink_and_where_exp_overflows():
    np.testing.assert_array_equal(tm.elu(np.array([1000.0, np.inf, -np.inf, 0.0])).numpy(), [1000, np.inf, -1, 0])
    assert tm.grad(lambda x: tm.elu(x))(0.0) == 1
    assert tm.grad(lambda x: tm.elu(x, 0.5))(0.0) == 0.5
    assert tm.grad(tm.grad(lambda x: tm.elu(x)))(0.0) == 1
    assert np.isnan(tm.elu(np.array([np.nan])).numpy()).all()


def test_dropout_keeps_the_mean_and_says_what_it_refuses():
    uniform = np.random.default_rng(0).random((1000, 20))
    kept = tm.dropout(np.ones((1000, 20)), uniform, 0.3).numpy()
    assert set(np.unique(kept)) == {0, 1 / 0.3}
    assert abs(kept.mean() - 1) < 0.05
    np.testing.assert_array_equal(tm.dropout(np.ones((2, 3)), np.array([True, False, True]), 0.5).numpy()[:, 1], 0)
    for keep in (0, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"dropout: keep must be in \(0, 1\], got"):
            tm.dropout(np.ones(3), np.ones(3), keep)
    with pytest.raises(ValueError, match=r"dropout: random numbers of shape \(2, 3\) do not broadcast to x \(3,\)"):
        tm.dropout(np.ones(3), np.ones((2, 3)), 0.5)


def test_cumsum_of_all_and_of_nothing():
    x = normal(2, 3)
    np.testing.assert_array_equal(tm.cumsum(x).numpy(), np.cumsum(x))
    assert tm.cumsum(np.zeros((2, 0)), 1).shape == (2, 0)
    with pytest.raises(ValueError, match="cumsum: axis 2 is out of range for 2 axes"):
        tm.cumsum(x, 2)


def test_var_of_nothing():
    assert tm.var(np.ones((2, 1)), 1).numpy().tolist() == [0, 0]
    with pytest.raises(ValueError, match="var: no elements"):
        tm.var(np.zeros((2, 0)), 1)


@pytest.mark.parametrize(
    ("subscripts", "shapes", "message"),
    [
        ("ij,jk", [(2, 3), (3, 4)], "does not say what comes out"),
        ("ij->i", [(2, 3), (3, 4)], "is for 1 operands, got 2"),
        ("ii->i", [(2, 2)], "each label must be a letter, once in an operand, got 'ii'"),
        ("...i->i", [(2, 2)], "each label must be a letter"),
        ("ijk->i", [(2, 2)], "'ijk' names 3 axes of a tensor of shape"),
        ("ij,jk->ik", [(2, 3), (4, 4)], "axis 'j' has lengths 3 and 4"),
        ("ij->k", [(2, 3)], "no operand has the axis 'k' of the result"),
    ],
)
def test_einsum_refuses(subscripts, shapes, message):
    with pytest.raises(ValueError, match=f"einsum: .*{message}"):
        tm.einsum(subscripts, *[np.ones(shape) for shape in shapes])


def test_einsum_shares_weights_of_one_task():
    x, w = normal(3, 4, 5), normal(1, 5, 2)
    np.testing.assert_allclose(tm.einsum("tnd,tdk->tnk", x, w).numpy(), np.matmul(x, w), rtol=1e-12)
    assert tm.grad(lambda w: tm.sum(tm.einsum("tnd,tdk->tnk", x, w)))(w).shape == w.shape


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 1))])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
def test_transposed_convolution_is_the_adjoint(stride, padding):
    """<conv2d(y), x> = <y, conv_transpose2d(x)>."""
    x, w = normal(2, 1, 3, 2, 4), normal(2, 3, 2, 5, 4)
    y = tm.conv_transpose2d(x, w, stride=stride, padding=padding).numpy()
    other = normal(*y.shape)
    forth = tm.conv2d(other, w, stride=stride, padding=padding).numpy()
    assert forth.shape == x.shape
    np.testing.assert_allclose(np.vdot(forth, x), np.vdot(other, y), rtol=1e-12)


def test_transposed_convolution_refuses():
    x, w = np.ones((1, 1, 2, 2, 3)), np.ones((1, 3, 3, 4, 3))
    with pytest.raises(ValueError, match=r"conv_transpose2d: x .* has 3 channels, w .* takes 4"):
        tm.conv_transpose2d(x, w.swapaxes(3, 4))
    with pytest.raises(ValueError, match=r"conv_transpose2d: b must be \[1, 1, 1, 1, 4\]"):
        tm.conv_transpose2d(x, w, np.ones((1, 1, 1, 1, 3)))
    with pytest.raises(ValueError, match=r"conv_transpose2d: padding .* leaves nothing of an image"):
        tm.conv_transpose2d(x, w, padding=((2, 2), (0, 0)))
    with pytest.raises(ValueError, match="conv_transpose2d: five axes are needed"):
        tm.conv_transpose2d(x[0], w)


MASK = RNG.uniform(size=(5, 6)) < 0.6
STEPS = {
    "min": (lambda x: tm.min(x, -1), [(2, 5, 3)]),
    "var": (lambda x: tm.var(x, 1), [(2, 5, 3)]),
    "norm": (lambda x: tm.norm(x, -1), [(2, 5, 3)]),
    "cumsum": (lambda x: tm.cumsum(x, 1) * x, [(2, 5, 3)]),
    "elu": (tm.elu, [(2, 5, 3)]),
    "dropout": (lambda x, u: tm.dropout(x, tm.stop_gradient(u), 0.5) * x, [(2, 5, 3), (2, 1, 3)]),
    "top_k": (lambda x: tm.top_k(x, 2)[0] ** 2, [(2, 5, 3)]),
    "cosine": (tm.cosine_similarity, [(2, 5, 3), (2, 4, 3)]),
    "distances": (tm.pairwise_squared_distances, [(2, 5, 3), (2, 4, 3)]),
    "attention": (lambda *xs: tm.attention(*xs, MASK), [(2, 5, 3), (2, 6, 3), (2, 6, 3)]),
    "einsum": (lambda x, w, v: tm.einsum("tnd,tdk,tk->tn", x, w, v), [(2, 5, 3), (1, 3, 4), (2, 4)]),
    "sigmoid cross-entropy": (tm.sigmoid_cross_entropy, [(2, 5, 3), (2, 5, 3)]),
    "transposed": (lambda x, w: tm.conv_transpose2d(x, w, stride=2), [(2, 1, 2, 2, 3), (2, 3, 3, 2, 3)]),
}


@pytest.mark.parametrize("name", STEPS)
def test_recorded_it_gives_the_same_bits(name):
    """The value, its gradient and a Hessian-vector product."""
    function, shapes = STEPS[name]
    arrays = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)]

    def step(*xs):
        value = function(*xs)

        def loss(*xs):
            return tm.sum(function(*xs) ** 2)

        gradient = tm.grad(loss, tuple(range(len(xs))))
        return value, gradient(*xs), tm.hvp(lambda x: loss(x, *xs[1:]), xs[0], xs[0])

    eager, recorded = tree.leaves(step(*arrays)), tree.leaves(tm.record(step, *arrays)(*arrays))
    for one, other in zip(eager, recorded, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

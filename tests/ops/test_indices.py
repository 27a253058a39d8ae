"""argmax, top_k and one_hot: which place is chosen, what passes a derivative, what is refused, and recorded steps."""

import numpy as np
import pytest

import tinymaml as tm

TIES = np.array([[1.0, 3.0, 3.0], [np.nan, 2.0, np.nan], [np.inf, -np.inf, np.inf]])


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("keep", [False, True])
def test_argmax_is_numpys(axis, keep):
    for x in (TIES, np.zeros((2, 3)), np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)):
        places = tm.argmax(x, axis, keep)
        np.testing.assert_array_equal(places.numpy(), np.argmax(x, axis, keepdims=keep))
        assert places.dtype == np.int64
        assert not places.has_history


def test_argmax_over_several_axes():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_array_equal(tm.argmax(x, (0, 2)).numpy(), x.transpose(1, 0, 2).reshape(3, 8).argmax(1))


@pytest.mark.parametrize("function", [tm.max, tm.min, tm.argmax])
def test_nothing_to_choose_from(function):
    with pytest.raises(ValueError, match=f"{function.__name__}: no elements along an axis"):
        function(np.zeros((2, 0)), 1)


def test_min_is_numpys_and_ties_go_to_the_first():
    x = np.array([[1.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(tm.min(x, 1).numpy(), [0, 2])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.min(x, 1)))(x), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(tm.min(TIES, 1).numpy(), TIES.min(1))


def test_the_largest_come_first_and_of_equal_ones_the_first():
    values, places = tm.top_k(TIES, 3)
    np.testing.assert_array_equal(places.numpy(), [[1, 2, 0], [0, 2, 1], [0, 2, 1]])
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(TIES, places.numpy(), 1))
    assert tm.top_k(TIES, 1, 0)[1].numpy().tolist() == tm.argmax(TIES, 0, keepdims=True).numpy().tolist()
    assert places.dtype == np.int64
    assert not places.has_history


def test_a_derivative_passes_the_largest_alone():
    x = np.array([[1.0, 5.0, 5.0, 0.0]])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.top_k(x, 2)[0] * [[1.0, 2.0]]))(x), [[0, 1, 2, 0]])
    np.testing.assert_array_equal(tm.grad(lambda x: tm.sum(tm.top_k(x, 0)[0]))(x), np.zeros((1, 4)))


@pytest.mark.parametrize("k", [-1, 4])
def test_no_more_than_there_are(k):
    with pytest.raises(ValueError, match=r"top_k: k must be in \[0, 3\], the length of axis 1 of \(3, 3\), got"):
        tm.top_k(TIES, k)
    with pytest.raises(TypeError, match=r"top_k: k must be of whole numbers, got 1\.5"):
        tm.top_k(TIES, 1.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0, 2), (1, 2, 1, 2)])
def test_one_hot(shape, dtype):
    labels = np.random.default_rng(0).integers(0, 5, shape)
    for kind in (np.int64, np.uint8, np.int32):
        rows = tm.one_hot(labels.astype(kind), 5, dtype)
        np.testing.assert_array_equal(rows.numpy(), np.eye(5, dtype=dtype)[labels])
        assert rows.dtype == dtype
        assert not rows.has_history


def test_labels_are_whole_numbers_in_range():
    for label in (-1, 3):
        with pytest.raises(ValueError, match=rf"one_hot: labels must be in \[0, 3\), got {label} to {label}"):
            tm.one_hot(np.array([label]), 3)
    with pytest.raises(TypeError, match="one_hot: labels must be integers, got float64"):
        tm.one_hot(np.ones(2), 3)
    with pytest.raises(TypeError, match="one_hot: dtype must be float32 or float64, got int64"):
        tm.one_hot(np.array([1]), 3, np.int64)


def test_in_a_recorded_step():
    """Labels that a step makes of what is largest are known to be in range; given ones are looked at before each
    replay."""
    x, labels = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32), np.array([[0, 3, 1], [1, 1, 2]])

    def step(x, labels):
        values, places = tm.top_k(x, 2, 1)
        chosen = tm.one_hot(tm.argmax(x, -1), 4)
        hits = tm.where(tm.equal(tm.argmax(x, -1), labels), np.ones(1, np.float32), np.zeros(1, np.float32))
        return values, places, tm.argmax(x, 1, True), chosen, tm.one_hot(labels, 4) * x, hits

    program = tm.record(step, x, labels)
    for scale in (1, -1):
        for one, other in zip(step(x * scale, labels), program(x * scale, labels), strict=True):
            np.testing.assert_array_equal(one.numpy(), other)
    with pytest.raises(ValueError, match=r"one_hot: labels must be in \[0, 4\), got 1 to 4"):
        program(x, labels + 1)

"""Conjugate gradient on a known matrix, and the trust region."""

from __future__ import annotations

import numpy as np
import pytest

from tinymaml.rl import trpo


def positive_definite(size: int) -> np.ndarray:
    root = np.random.default_rng(0).standard_normal((size, size))
    return root @ root.T + np.eye(size)


def test_conjugate_gradient_solves_a_known_system() -> None:
    matrix, b = positive_definite(8), np.arange(1.0, 9)
    x, residual = trpo.conjugate_gradient(lambda v: matrix @ v, b, iterations=20, tolerance=1e-20)
    assert x == pytest.approx(np.linalg.solve(matrix, b))
    x, residual = trpo.conjugate_gradient(lambda v: matrix @ v, b, iterations=3)
    assert residual == pytest.approx(b - matrix @ x)


def test_conjugate_gradient_ends_when_it_is_there() -> None:
    asked = []
    x, _ = trpo.conjugate_gradient(lambda v: (asked.append(1), 2 * v)[1], np.ones(5))
    assert x == pytest.approx(np.full(5, 0.5))
    assert len(asked) == 1


def test_a_step_along_the_natural_gradient_to_the_border() -> None:
    """Of a linear loss in a quadratic divergence: the best there is, whose divergence is the bound."""
    matrix, slope, start = positive_definite(6), np.arange(1.0, 7), np.ones(6)

    def losses(x: np.ndarray) -> tuple[float, float]:
        return float(slope @ (x - start)), float(0.5 * (x - start) @ matrix @ (x - start))

    done = trpo.step(start, 0.0, slope, lambda v: matrix @ v, losses, max_divergence=0.01, damping=1e-12)
    assert done.accepted
    assert done.tries <= 2  # the first may be beyond the bound by rounding
    best = np.linalg.solve(matrix, slope)
    expected = -best * np.sqrt(0.02 / (best @ matrix @ best)) * 0.8 ** (done.tries - 1)
    assert done.params - start == pytest.approx(expected, rel=1e-4)
    assert done.loss == pytest.approx(losses(done.params)[0])


def test_what_cannot_be_improved_stays() -> None:
    start, tried = np.array([1.0, 2.0]), []
    for outcome in ((1.0, 0.0), (0.0, 0.02), (np.nan, 0.0), (0.0, np.nan)):  # higher, too far, not finite
        done = trpo.step(start, 0.5, np.ones(2), lambda v: v, lambda x, o=outcome: (tried.append(x), o)[1])
        assert not done.accepted
        assert done.params is start
        assert (done.loss, done.divergence, done.tries) == (0.5, 0.0, 15)
    lengths = [np.linalg.norm(x - start) for x in tried[:15]]
    assert np.divide(lengths[1:], lengths[:-1]) == pytest.approx(0.8)


def test_a_curvature_that_is_none() -> None:
    start = np.ones(2)
    for product in (lambda v: -v, lambda v: np.full(2, np.nan)):
        done = trpo.step(start, 0.5, np.ones(2), product, lambda x: (0.0, 0.0))
        assert not done.accepted
        assert done.params is start

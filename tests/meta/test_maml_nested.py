"""adapt and the meta-gradient can themselves be differentiated, in both modes and again; never a silent zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.maml_cases import (
    DRAWN,
    EXACT_MODES,
    Problem,
    by_hand,
    close,
    directional,
    flat,
    inner,
    problem,
    problems,
)

ALPHA = 0.2
STEPS = st.integers(0, 3)
RECORDS = st.sampled_from(["keep", "recompute"])


def like(trees, seed):
    rng = np.random.default_rng(seed)
    return tm.tree.map(lambda x: rng.normal(size=np.shape(x)), trees)


@DRAWN
@given(problems(), st.integers(0, 5), st.integers(0, 1000))
def test_the_forward_rule_of_adapt(p, steps, seed):
    """The tangent of the adapted parameters is v <- v - alpha H(phi_k) v, by Hessians made on their own."""
    start = tm.tree.map(lambda x: np.repeat(x, len(p.support["x"]) // len(x), 0), p.params)
    v = like(start, seed)
    phi, result = tm.jvp(lambda params: tm.adapt(p.loss, params, p.support, ALPHA, steps), [start], [v])
    x = start
    for _ in range(steps):
        hv = tm.hvp(lambda x: tm.sum(p.loss(x, p.support)), x, v)
        v = tm.tree.map(lambda v, h: v - ALPHA * h, v, hv)
        x = tm.adapt(p.loss, x, p.support, ALPHA, 1)
    close(phi, x)
    close(result, v)


@DRAWN
@given(problems(), STEPS, st.integers(0, 1000))
def test_the_two_modes_of_adapt_are_adjoint(p, steps, seed):
    """In params, support set and step size together."""

    def function(params, support, alpha):
        return tm.adapt(p.loss, params, support, alpha, steps)

    primals = (p.params, p.support, np.array(ALPHA))
    tangents = like(primals, seed)
    phi, forward = tm.jvp(function, primals, tangents)
    _, pullback = tm.vjp(function, *primals)
    g = like(phi, seed + 1)
    assert inner(g, forward) == pytest.approx(inner(pullback(g), tangents), rel=1e-11, abs=1e-11)
    expected = tm.jvp(lambda x, s, a: by_hand(Problem(p.loss, x, s, None), x, a, steps), primals, tangents)[1]
    close(forward, expected)


@DRAWN
@given(problems(), STEPS, st.integers(0, 1000), st.sampled_from(EXACT_MODES), RECORDS)
def test_the_gradient_and_hessian_of_the_meta_objective(p, steps, seed, mode, records):
    """meta_value_and_grad's own value, differentiated from outside: its gradient is the one it gives, and so on."""

    def value(params):
        return tm.meta_value_and_grad(p.loss, params, *p[2:], ALPHA, steps, mode=mode, records=records)[0]

    def recorded(params):
        return tm.mean(p.loss(by_hand(p, params, ALPHA, steps), p.query))

    close(tm.grad(value)(p.params), tm.meta_value_and_grad(*p, ALPHA, steps)[1])
    v = like(p.params, seed)
    close(tm.hvp(value, p.params, v), tm.hvp(recorded, p.params, v), 1e-11)


@DRAWN
@given(problems(), STEPS, st.integers(0, 1000), st.sampled_from(EXACT_MODES), RECORDS)
def test_the_derivative_of_the_meta_gradient(p, steps, seed, mode, records):
    """<meta-gradient, u> differentiated by everything: reverse mode, forward mode and by hand."""
    u = like(p.params, seed)

    def slope(params, support, query, alpha):
        _, (grads, by_alpha) = tm.meta_value_and_grad(
            p.loss, params, support, query, alpha, steps, mode=mode, records=records, learn_alpha=True
        )
        return sum(
            (tm.sum(g * w) for g, w in zip(tm.tree.leaves(grads), tm.tree.leaves(u), strict=True)), 2.0 * by_alpha
        )

    def recorded(params, support, query, alpha):
        def objective(params, alpha):
            phi = by_hand(Problem(p.loss, params, support, query), params, alpha, steps)
            return tm.mean(p.loss(phi, query))

        grads, by_alpha = tm.grad(objective, (0, 1))(params, alpha)
        return sum(
            (tm.sum(g * w) for g, w in zip(tm.tree.leaves(grads), tm.tree.leaves(u), strict=True)), 2.0 * by_alpha
        )

    primals = (p.params, p.support, p.query, np.array(ALPHA))
    value, result = tm.value_and_grad(slope, range(4))(*primals)
    close((value, result), tm.value_and_grad(recorded, range(4))(*primals), 1e-11)
    v = like(primals, seed + 1)
    close(tm.jvp(slope, primals, v)[1], inner(result, v), 1e-11)


@pytest.mark.parametrize("mode", EXACT_MODES)
def test_third_order_against_a_finite_difference(mode):
    p = problem(3)

    def curvature(params):
        """The meta-objective's Hessian along a fixed direction, through the meta-gradient."""
        return tm.jvp(lambda x: tm.meta_value_and_grad(p.loss, x, *p[2:], ALPHA, 2, mode=mode)[1], [params], [u])[1]

    def number(params):
        parts = zip(tm.tree.leaves(curvature(params)), tm.tree.leaves(u), strict=True)
        return sum(tm.sum(x * w) for x, w in parts)

    u = like(p.params, 0)
    v, slope = directional(lambda params: number(params).data, p.params, 1)
    close(inner(tm.grad(number)(p.params), v), slope, 1e-6)
    assert abs(slope) > 1e-3


def test_the_finite_difference_mode_differentiated():
    p = problem(4)
    v = like(p.params, 0)
    exact, near = (
        tm.jvp(lambda x, m=mode: tm.meta_value_and_grad(p.loss, x, *p[2:], ALPHA, 2, mode=m)[1], [p.params], [v])[1]
        for mode in ("forward-over-reverse", "finite-difference")
    )
    assert np.linalg.norm(flat(exact)) > 0.1
    close(near, exact, 1e-5)


@pytest.mark.parametrize("settings", [{"order": 1}, {"clip_norm": 0.1}, {"clip_element": 0.05}], ids=str)
def test_the_derivative_of_other_meta_gradients(settings):
    p = problem(5)
    rng = np.random.default_rng(0)
    u = tm.tree.map(lambda x: rng.normal(size=x.shape), p.params)

    def slope(params):
        grads = tm.meta_value_and_grad(p.loss, params, *p[2:], ALPHA, 2, **settings)[1]
        return sum(tm.sum(g * w) for g, w in zip(tm.tree.leaves(grads), tm.tree.leaves(u), strict=True))

    v, expected = directional(lambda params: slope(params).data, p.params, 1)
    close(inner(tm.grad(slope)(p.params), v), expected, 1e-6)
    assert abs(expected) > 1e-4


def test_adapting_to_adapted_parameters():
    """Two levels of adaptation, the inner one inside the outer one's loss."""
    p = problem(6)

    def outer(params, batch):
        phi = tm.adapt(p.loss, params, p.support, ALPHA, 1)
        return p.loss(phi, batch)

    result = tm.meta_value_and_grad(outer, p.params, p.query, p.support, 0.1, 2)

    def recorded(params):
        plain = Problem(lambda x, b: p.loss(by_hand(p, x, ALPHA, 1), b), params, p.query, p.support)
        return tm.mean(plain.loss(by_hand(plain, params, 0.1, 2), p.support))

    close(result, tm.value_and_grad(recorded)(p.params))

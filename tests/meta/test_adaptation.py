"""phi, J u and Jᵀ v: adjoint to each other, and the derivatives of `adapt`, for every option and a batch a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinymaml as tm
from tests.cases.maml_cases import DRAWN, EXACT_MODES, by_hand, close, flat, inner, problem, problems
from tinymaml import tree
from tinymaml.meta.adaptation import Adaptation, Derivative
from tinymaml.meta.arguments import Arguments

MASKS = {
    "all": True,
    "head": [False, True],
    "biases": [{"w": False, "b": True}, {"w": False, "b": True}],
    "part": [{"w": True, "b": False}, False],
}
# Arrays have any sign, as learned step sizes have.
ALPHAS = {
    "one number": lambda p, rng: np.array(0.3),
    "one a layer": lambda p, rng: [np.array(0.1), {"w": np.array(0.4), "b": np.array(0.2)}],
    "like the parameters": lambda p, rng: tree.map(lambda x: rng.normal(0.1, 0.2, x.shape), p.params),
    "one a unit": lambda p, rng: [rng.normal(0.1, 0.2, p.params[0]["b"].shape[2]), np.array([-0.3])],
    "one a task": lambda p, rng: np.linspace(-0.1, 0.4, len(p.support["x"])).reshape(-1, 1, 1),
}
FEW = settings(DRAWN, max_examples=8)  # of each mask with each step size
masks, alphas = pytest.mark.parametrize("mask", MASKS), pytest.mark.parametrize("alpha", ALPHAS)
derivatives = st.builds(
    Derivative, st.sampled_from([1, 2]), st.sampled_from(EXACT_MODES), st.sampled_from(["keep", "recompute"])
)


def like(trees, rng):
    return tree.map(lambda x: rng.normal(size=np.shape(x)), trees)


def values(trees):
    return tree.map(lambda x: tm.ops.as_tensor(x).data, trees)


def batches(p, steps, rng):
    """Another batch for each inner step."""
    return [like(p.support, rng) for _ in range(steps)]


def adaptation_of(p, supports, alpha, mask=True, derivative=None, params=None):
    params = p.params if params is None else params
    arguments = Arguments.of(p.loss, params, len(p.support["x"]), alpha, mask, any_sign=True)
    return Adaptation(arguments, supports, derivative or Derivative(learn_alpha=True))


def adapted(p, params, supports, alpha, mask=True):
    """phi by `adapt`, a step at a time."""
    for support in supports:
        params = tm.adapt(p.loss, params, support, alpha, 1, adapted=mask)
    return params


@masks
@alphas
@FEW
@given(
    p=problems(), steps=st.integers(0, 3), derivative=derivatives, learn_alpha=st.booleans(), seed=st.integers(0, 99)
)
def test_push_and_pull_are_adjoint(mask, alpha, p, steps, derivative, learn_alpha, seed):
    rng = np.random.default_rng(seed)
    rates = ALPHAS[alpha](p, rng)
    derivative = Derivative(derivative.order, derivative.mode, derivative.records, learn_alpha)
    adaptation = adaptation_of(p, batches(p, steps, rng), rates, MASKS[mask], derivative)
    u, a, v = like(p.params, rng), like(rates, rng), like(values(adaptation.leaves), rng)
    pushed = adaptation.push(u, a if learn_alpha else None)
    by_params, by_alpha = adaptation.pull([tm.ops.as_tensor(x) for x in v])
    left = inner(v, values(pushed))
    right = inner(values(by_params), u)
    for g, x in zip(by_alpha, tree.leaves(a), strict=True):
        right += 0 if g is None else inner(g.data, x)
        assert g is None or learn_alpha
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12 * np.linalg.norm(flat(u)) * np.linalg.norm(flat(v)))


@masks
@alphas
@FEW
@given(p=problems(), steps=st.integers(0, 3), mode=st.sampled_from(EXACT_MODES), seed=st.integers(0, 99))
def test_they_are_the_derivatives_of_adapt(mask, alpha, p, steps, mode, seed):
    """By the parameters and the step sizes, `adapt`'s history pulled and pushed through."""
    rng = np.random.default_rng(seed)
    rates, supports = ALPHAS[alpha](p, rng), batches(p, steps, rng)
    adaptation = adaptation_of(p, supports, rates, MASKS[mask], Derivative(mode=mode, learn_alpha=True))

    def by_adapt(params, rates):
        phi = adapted(p, params, supports, rates, MASKS[mask])
        # No step spreads the parameters over the tasks where there is none.
        return tree.map(lambda x: tm.broadcast_to(x, (len(p.support["x"]), *x.shape[1:])), phi)

    u, a = like(p.params, rng), like(rates, rng)
    phi, pushed = tm.jvp(by_adapt, (p.params, rates), (u, a))
    close(values(adaptation.leaves), phi)
    close(values(adaptation.push(u, a)), pushed)
    v = like(phi, rng)
    by_params, by_alpha = adaptation.pull([tm.ops.as_tensor(x) for x in tree.leaves(v)])
    expected, expected_by_alpha = tm.vjp(by_adapt, p.params, rates)[1](v)
    close(values(by_params), expected)
    for g, x in zip(by_alpha, tree.leaves(expected_by_alpha), strict=True):
        close(np.zeros_like(x) if g is None else g.data, x)


@DRAWN
@given(p=problems(), steps=st.integers(0, 3), alpha=st.sampled_from(sorted(ALPHAS)), seed=st.integers(0, 99))
def test_first_order_takes_the_hessians_for_zero(p, steps, alpha, seed):
    rng = np.random.default_rng(seed)
    rates, support = ALPHAS[alpha](p, rng), p.support
    adaptation = adaptation_of(p, [support] * steps, rates, derivative=Derivative(order=1, learn_alpha=True))
    u, a = like(p.params, rng), like(rates, rng)
    phi, pushed = tm.jvp(lambda x, r: by_hand(p, x, r, steps, graph=False), (p.params, rates), (u, a))
    close(values(adaptation.leaves), phi)
    close(values(adaptation.push(u, a)), pushed)


@DRAWN
@given(p=problems(), steps=st.integers(1, 3), seed=st.integers(0, 99))
def test_one_step_size_may_be_applied_last(p, steps, seed):
    rng = np.random.default_rng(seed)
    supports = batches(p, steps, rng)
    first, last = (adaptation_of(p, supports, 0.3, derivative=Derivative(alpha_last=x)) for x in (False, True))
    v = [tm.ops.as_tensor(rng.normal(size=x.shape)) for x in first.leaves]
    close(values(first.pull(v)[0]), values(last.pull(v)[0]))


@pytest.mark.parametrize(("alpha", "mask"), [([0.1, 0.2], True), (0.1, [True, False]), (np.full((1, 1, 2), 0.1), True)])
def test_several_step_sizes_may_not(alpha, mask):
    p = problem(0, hidden=2)
    p = p._replace(params=p.params[0]["b"]) if np.ndim(alpha) == 3 else p
    with pytest.raises(ValueError, match=r"^alpha_last needs all parameters adapted, with one number as the step size"):
        adaptation_of(p, [], alpha, mask, Derivative(alpha_last=True))


@pytest.mark.parametrize("records", ["keep", "recompute"])
def test_derivatives_by_a_vector_that_is_made_later(records):
    """Later than the adaptation, whose own history ends where no older variable is: that of the vector does not."""
    p = problem(1)
    rng = np.random.default_rng(0)
    adaptation = adaptation_of(p, batches(p, 2, rng), 0.3, derivative=Derivative(records=records))
    u, v = like(p.params, rng), [rng.normal(size=x.shape) for x in adaptation.leaves]

    def product(v):
        pulled = tree.unflatten(tree.flatten(p.params)[1], adaptation.pull(v)[0])
        return sum(tm.sum(x * y) for x, y in zip(tree.leaves(pulled), tree.leaves(u), strict=True))

    by_v = tm.grad(product)(v)
    close(values(by_v), values(adaptation.push(u)))

    def other_product(u):
        return sum(tm.sum(x * y) for x, y in zip(adaptation.push(u), v, strict=True))

    close(values(tm.grad(other_product)(u)), values(adaptation.pull([tm.ops.as_tensor(x) for x in v])[0]))


def test_products_may_be_asked_for_again():
    p = problem(2)
    rng = np.random.default_rng(0)
    adaptation = adaptation_of(p, batches(p, 3, rng), 0.3)
    v = [tm.ops.as_tensor(rng.normal(size=x.shape)) for x in adaptation.leaves]
    once, again = (adaptation.pull(v) for _ in range(2))
    for one, other in zip(once[0] + once[1], again[0] + again[1], strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_a_tangent_of_alpha_needs_its_derivative():
    p = problem(3)
    with pytest.raises(ValueError, match=r"^a tangent of alpha needs learn_alpha"):
        adaptation_of(p, [p.support], 0.3, derivative=Derivative()).push(p.params, 0.1)

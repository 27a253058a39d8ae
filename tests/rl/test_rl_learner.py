"""The learner's derivatives through the inner steps, against differentiating everything, and against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.rl_cases import TASKS, assert_close, batch, parameters, policy_of
from tinymaml import adapt, broadcast_to, grad, hvp, mean, record, tree, value_and_grad
from tinymaml.autodiff.tree import Tree
from tinymaml.rl.learner import Learner

ALPHA = 0.1

kinds = pytest.mark.parametrize("kind", ["gaussian", "categorical"])
inner_steps = pytest.mark.parametrize("steps", [0, 1, 2])


class Case:
    """A learner, the samples of each inner step, and those after them."""

    def __init__(self, kind: str, steps: int, clip: float | None = None) -> None:
        rng = np.random.default_rng(steps)
        self.learner = Learner(policy_of(kind), ALPHA, clip)
        self.theta = parameters(self.learner.policy, rng)
        self.supports = [batch(kind, rng) for _ in range(steps)]
        self.query = batch(kind, rng, 9)
        self.query |= self.learner.sampled_with(_arrays(self.phi(self.theta)), self.query)
        self.v = tree.map(lambda x: rng.standard_normal(x.shape), self.theta)

    def phi(self, theta: Tree) -> Tree:
        """Adaptation by the general transform, each step on samples of its own."""
        if not self.supports:
            return tree.map(lambda x: broadcast_to(x, (TASKS, *x.shape[1:])), theta)
        for support in self.supports:
            theta = adapt(self.learner.inner, theta, support, ALPHA, 1)
        return theta

    def surrogate(self, theta: Tree) -> Any:
        return mean(self.learner.outer(self.phi(theta), self.query))

    def divergence(self, theta: Tree) -> Any:
        return tm.sum(self.learner.divergence(self.phi(theta), self.query))

    def moved(self, by: float) -> Tree:
        return tree.map(lambda x, v: x + by * v, self.theta, self.v)


def _arrays(result: Tree) -> Tree:
    return tree.map(lambda x: x if isinstance(x, np.ndarray) else x.numpy(), result)


@kinds
@inner_steps
def test_the_curvature_is_the_hessian_of_the_divergence(kind: str, steps: int) -> None:
    """Jᵀ M J v against the Hessian through the inner steps, which takes third derivatives, and a difference of
    gradients."""
    case = Case(kind, steps)
    product = case.learner.curvature(case.theta, case.supports, case.query, case.v)
    assert_close(product, hvp(case.divergence, case.theta, case.v), 1e-12)
    ahead, behind = (grad(case.divergence)(case.moved(by)) for by in (1e-5, -1e-5))
    assert_close(product, tree.map(lambda a, b: (a - b) / 2e-5, ahead, behind), 1e-6)


@kinds
@inner_steps
@pytest.mark.parametrize("clip", [None, 0.05])
def test_gradients_away_from_where_the_samples_were_drawn(kind: str, steps: int, clip: float | None) -> None:
    case = Case(kind, steps, clip)
    theta = case.moved(0.05)
    value, gradient = case.learner.gradient(theta, case.supports, case.query)
    expected, by_transform = value_and_grad(case.surrogate)(theta)
    assert value == pytest.approx(expected, rel=1e-12)
    assert_close(gradient, by_transform, 1e-12)
    divergence, gradient = case.learner.divergence_gradient(theta, case.supports, case.query)
    assert_close(gradient, grad(case.divergence)(theta), 1e-12)
    assert case.learner.losses(theta, case.supports, case.query) == (pytest.approx(value), pytest.approx(divergence))
    for function, result in ((case.surrogate, by_transform), (case.divergence, gradient)):
        ahead, behind = (float(function(tree.map(lambda x, v, h=h: x + h * v, theta, case.v))) for h in (1e-6, -1e-6))
        slope = sum(float((g * v).sum()) for g, v in zip(tree.leaves(result), tree.leaves(case.v), strict=True))
        assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-6)


@kinds
@inner_steps
def test_derivatives_pass_through_what_it_computes(kind: str, steps: int) -> None:
    case = Case(kind, steps)
    theta = case.moved(0.05)
    for i, function in enumerate((case.surrogate, case.divergence)):
        result = grad(lambda p, i=i: case.learner.losses(p, case.supports, case.query)[i])(theta)
        assert_close(result, grad(function)(theta), 1e-12)
    slope = tm.jvp(case.surrogate, (theta,), (case.v,))[1]
    through = tm.jvp(lambda p: case.learner.gradient(p, case.supports, case.query)[0], (theta,), (case.v,))[1]
    assert through == pytest.approx(float(slope), rel=1e-12)


@kinds
def test_where_the_samples_were_drawn(kind: str) -> None:
    """The ratios are 1 and the divergence is 0: the surrogate's gradient is that of REINFORCE's loss on them."""
    case = Case(kind, 1)
    loss, divergence = case.learner.losses(case.theta, case.supports, case.query)
    assert divergence == pytest.approx(0, abs=1e-15)
    assert loss == pytest.approx(-(case.query["advantages"] * case.query["weights"]).sum(1).mean())
    _, gradient = case.learner.gradient(case.theta, case.supports, case.query)
    reinforce = grad(lambda theta: mean(case.learner.inner(case.phi(theta), case.query)))
    assert_close(gradient, reinforce(case.theta), 1e-12)
    _, flat = case.learner.divergence_gradient(case.theta, case.supports, case.query)
    assert max(np.abs(x).max() for x in tree.leaves(flat)) < 1e-15


@kinds
@inner_steps
def test_recorded(kind: str, steps: int) -> None:
    case = Case(kind, steps)
    learner, shared = case.learner, (case.theta, case.supports, case.query)
    for function, arguments in (
        (learner.curvature, (*shared, case.v)),
        (learner.gradient, shared),
        (learner.divergence_gradient, shared),
        (learner.losses, shared),
        (learner.adapted, (case.theta, case.query, np.asarray(0.2))),
        (learner.sampled_with, (case.theta, case.query)),
    ):
        result, expected = record(function, *arguments)(*arguments), function(*arguments)
        for one, other in zip(tree.leaves(result), tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


@kinds
def test_distributions(kind: str) -> None:
    """Probabilities sum to 1, the divergence and the Fisher matrix are those of the definition, samples are of it."""
    rng = np.random.default_rng(0)
    policy = policy_of(kind)
    params, seen = parameters(policy, rng), rng.standard_normal((1, 1, 4))
    other = tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape), params)
    one, two = ({name: x.numpy() for name, x in policy.apply(p, seen).items()} for p in (params, other))
    count = 200_000
    spread = [{name: np.broadcast_to(x, (1, count, *x.shape[2:])) for name, x in each.items()} for each in (one, two)]
    actions = policy.act(spread[0], policy.noise(np.random.default_rng(1), (1, count)))
    log_prob = [policy.log_prob(tree.map(tm.ops.as_tensor, each), actions).numpy()[0] for each in spread]
    estimate = (log_prob[0] - log_prob[1]).mean()
    tensors = [tree.map(tm.ops.as_tensor, each) for each in (one, two)]
    assert estimate == pytest.approx(float(policy.divergence(*tensors).numpy()[0, 0]), rel=0.05)
    assert np.exp(log_prob[1] - log_prob[0]).mean() == pytest.approx(1, abs=0.01)  # so both are normalised
    if kind == "gaussian":
        assert actions.mean((0, 1)) == pytest.approx(one["mean"][0, 0], abs=0.02)
        assert actions.std((0, 1)) == pytest.approx(np.exp(one["log_std"][0, 0]), rel=0.02)
    else:
        shares = np.bincount(actions.ravel(), minlength=3) / count
        assert shares == pytest.approx(np.exp(one["log_prob"][0, 0]), abs=0.01)


def test_standard_deviations_have_a_floor() -> None:
    from tinymaml.rl import policies

    policy = policies.gaussian(4, 2, (5,), min_std=0.5)
    params = policy.init(np.random.default_rng(0), np.float64)
    params["log_std"][:] = -3
    log_std = policy.apply(params, np.zeros((1, 1, 4)))["log_std"].numpy()
    assert np.exp(log_std) == pytest.approx(np.full((1, 1, 2), 0.5))


def test_another_number_of_tasks() -> None:
    case = Case("gaussian", 1)
    one = tree.map(lambda x: x[:1], case.supports[0])
    with pytest.raises(ValueError, match=r"^support has 1 tasks, query has 3: the tasks must be the same"):
        case.learner.losses(case.theta, [one], case.query)

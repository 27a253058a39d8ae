"""The functions that the outer update is made of: gradient, curvature, losses at other parameters. Pure functions of
arrays, which can be recorded and replayed, and differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinymaml.autodiff import tree
from tinymaml.autodiff.sweeps import pull, push
from tinymaml.autodiff.tensor import Tensor, now
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.adaptation import NO_DERIVATIVE, Adaptation, Derivative, without_history
from tinymaml.meta.arguments import Arguments, Loss, check_same_tasks, count_tasks
from tinymaml.meta.finite import check_finite
from tinymaml.ops import expand_dims, mean, multiply, sum
from tinymaml.rl.objectives import Batch, divergence, reinforce, surrogate
from tinymaml.rl.policies import Distribution, Policy
from tinymaml.transforms import enter, leave


class Learner:
    """The functions of algorithm 3 for a policy.

    Batches are those of `rollouts.batch_of`; `query` has the old policy's part too, see `sampled_with`. `supports` has
    one for each inner step, none if nothing is adapted; then the functions are those of plain policy optimisation.

    Args:
        alpha: step size of the inner steps.
        clip: of the ratio in the surrogate, or None.
    """

    def __init__(self, policy: Policy, alpha: float, clip: float | None = None) -> None:
        self.policy, self.alpha = policy, alpha
        self.inner: Loss = reinforce(policy)
        self.outer: Loss = surrogate(policy, clip)
        self.divergence = divergence(policy)
        self.derivative = Derivative(alpha_last=True)  # all is adapted, with one number as the step size

    def adapted(self, params: Tree, support: Batch, alpha: Any) -> Tree:
        """The parameters after an inner step of that size on the batch, [T, ...]."""
        mark = now()
        arguments = Arguments.of(self.inner, params, count_tasks("support", support), alpha)
        return leave(Adaptation(arguments, [support], NO_DERIVATIVE).phi, mark)

    def sampled_with(self, params: Tree, batch: Batch) -> Batch:
        """The part of a batch that depends on the policy it was sampled with: {"old": its distributions, "log_prob":
        [T, N]}."""
        mark = now()
        old = self.policy.apply(params, batch["observations"])
        of_policy: Batch = leave({"old": old, "log_prob": self.policy.log_prob(old, batch["actions"])}, mark)
        return of_policy

    def losses(self, params: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Any, Any]:
        """(surrogate, KL) at parameters: means over the tasks, and over all transitions."""
        mark = now()
        phi = self._adaptation(params, supports, query, NO_DERIVATIVE).phi
        surrogate, kl = leave((mean(self.outer(phi, query)), sum(self.divergence(phi, query))), mark)
        return surrogate, kl

    def gradient(self, params: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Any, Tree]:
        """The surrogate, and its gradient by the parameters through the inner steps: Jᵀ times that at phi."""
        return self._value_and_grad(params, supports, query, lambda phi: mean(self.outer(phi, query)))

    def divergence_gradient(self, params: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Any, Tree]:
        """The KL and its gradient by the parameters, for differences of it."""
        return self._value_and_grad(params, supports, query, lambda phi: sum(self.divergence(phi, query)))

    def curvature(self, params: Tree, supports: Sequence[Batch], query: Batch, v: Tree) -> Tree:
        """The KL's Hessian by the parameters times v, where `query` was sampled with the adapted parameters: Jᵀ M J v.
        Of `query` the old policy's part is not read."""
        mark = now()
        adaptation = self._adaptation(params, supports, query, self.derivative)
        variables = [enter(x) for x in adaptation.leaves]
        distribution = self.policy.apply(adaptation.tree_of(variables), query["observations"])
        outputs, structure = tree.flatten(distribution)
        tangents = push(outputs, variables, adaptation.push(v))
        fisher: Distribution = self.policy.fisher(
            tree.unflatten(structure, outputs), tree.unflatten(structure, tangents)
        )
        weights = multiply(query["weights"], expand_dims(query["shares"], 1))
        weighted = [multiply(x, expand_dims(weights, 2)) for x in tree.leaves(fisher)]
        product, _ = adaptation.pull(without_history(pull(outputs, variables, weighted), mark))
        return leave(adaptation.tree_of(product), mark)

    def _adaptation(self, params: Tree, supports: Sequence[Batch], query: Batch, derivative: Derivative) -> Adaptation:
        tasks = len(query["weights"])
        for support in supports:
            check_same_tasks("support", support, "query", tasks)
        return Adaptation(Arguments.of(self.inner, params, tasks, self.alpha), supports, derivative)

    def _value_and_grad(
        self, params: Tree, supports: Sequence[Batch], query: Batch, objective: Callable[[Tree], Tensor]
    ) -> tuple[Any, Tree]:
        mark = now()
        adaptation = self._adaptation(params, supports, query, self.derivative)

        def finite_objective(xs: Sequence[Tensor]) -> Tensor:
            value = objective(adaptation.tree_of(xs))
            check_finite("the outer loss", value, per_task=False)
            return value

        value, at_phi = adaptation.value_and_grad(finite_objective)
        gradient, _ = adaptation.pull(at_phi)
        value, gradient = leave((value, adaptation.tree_of(gradient)), mark)
        return value, gradient

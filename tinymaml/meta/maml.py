"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, algorithm 1) with an explicit meta-gradient.

Adaptation is phi_0 = theta, phi_{k+1} = phi_k - alpha * g(phi_k), with g the gradient of the support loss. The
meta-gradient is Jᵀ times the gradient of the query loss at phi_K, with J the derivative of phi_K by theta (see
`adaptation`): one Hessian-vector product for each inner step, and no graph through the updates.

Everything is done for all tasks at once, on the leading task axis; a loss gives one number a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from tinymaml.autodiff import tree
from tinymaml.autodiff.dispatch import zeros
from tinymaml.autodiff.tensor import Tensor, constant, known, now
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.adaptation import NO_DERIVATIVE, Adaptation, Derivative
from tinymaml.meta.arguments import Arguments, Loss, check_bound, check_same_tasks, check_steps, count_tasks
from tinymaml.meta.finite import NonFiniteError, check_finite
from tinymaml.ops import abs, add, clip, divide, greater, maximum, mean, multiply, sqrt, where
from tinymaml.ops import max as largest_of
from tinymaml.ops import sum as sum_over
from tinymaml.transforms import MODES, leave

__all__ = ["MODES", "Loss", "NonFiniteError", "adapt", "meta_value_and_grad"]


def adapt(loss: Loss, params: Tree, support: Tree, alpha: Tree, steps: int, *, adapted: Tree = None) -> Tree:
    """Parameters after some inner steps on the support set, for every task at once (paper, algorithm 1, line 6).

    Args:
        loss: `loss(params, batch) -> Tensor[T]`, one number a task, that depends on no other task's part.
        params: pytree of arrays [1, ...] (shared by the tasks) or [T, ...] (one a task).
        support: pytree of arrays [T, ...].
        alpha: the step size: a positive number, or a tree of such numbers or of arrays that broadcast to the
            parameters, of any sign. A value at a branch of the tree stands for all below it.
        steps: how many inner steps, >= 0.
        adapted: which parameters are adapted: a tree of booleans (or one for a branch); all if None. The others are
            returned as they came, on the task axis.

    Returns:
        A tree like `params` with leaves [T, ...]. It can be differentiated, by anything, when tensors come in.

    Raises:
        ValueError: shapes, structures or values that do not fit; a parameter that the loss never uses.
        TypeError: parameters that are not float32 or float64; a loss that returns no tensor.
        NonFiniteError: the support loss is not finite.
    """
    mark = now()
    arguments, supports = _checked(loss, params, support, alpha, steps, adapted)
    phi = Adaptation(arguments, supports, NO_DERIVATIVE).leaves
    arguments.check_all_finite("the adapted", phi, per_task=True)
    results = [x if x.node.root < mark else known(x) for x in phi]
    # A copy, where no step has moved the caller's own array.
    moved = [a is not None and steps > 0 for a in arguments.alpha_of]
    results = [x if m or isinstance(x, Tensor) else x.copy() for x, m in zip(results, moved, strict=True)]
    return tree.unflatten(arguments.structure, results)


def meta_value_and_grad(
    loss: Loss,
    params: Tree,
    support: Tree,
    query: Tree,
    alpha: Tree,
    steps: int,
    *,
    order: int = 2,
    mode: str = MODES[0],
    adapted: Tree = None,
    learn_alpha: bool = False,
    records: str = "keep",
    clip_element: float | None = None,
    clip_norm: float | None = None,
) -> tuple[Any, Tree]:
    """The meta-objective, mean over tasks of the query loss after adaptation, and its gradient (paper, equation 1).

    Args:
        loss, params, support, alpha, steps, adapted: as for `adapt`.
        query: pytree of arrays [T, ...], what the adapted parameters are judged on.
        order: 2, or 1 for first-order MAML, which takes the Hessians for zero (paper, section 5.2).
        mode: how the Hessian-vector products are made, see `tinymaml.hvp`.
        learn_alpha: also give the gradient by alpha (Meta-SGD, Li et al. 2017); alpha may then have any sign.
        records: "keep" the record of every inner step (fast), or "recompute" it on the way back: then the memory for
            activations does not grow with the steps, only the T copies of the parameters a step do.
        clip_element: bound on the magnitude of each element of the meta-gradient.
        clip_norm: bound on the norm of the whole meta-gradient; applied after clip_element.

    Returns:
        (value, gradient): a number and a tree like `params`; with learn_alpha, (value, (gradient, gradient by alpha)).

    Raises:
        as `adapt`; NonFiniteError also for the query loss and the meta-gradient.
    """
    mark = now()
    derivative = Derivative(order, mode, records, learn_alpha)
    check_bound("clip_element", clip_element)
    check_bound("clip_norm", clip_norm)
    arguments, supports = _checked(loss, params, support, alpha, steps, adapted, any_sign=learn_alpha)
    check_same_tasks("query", query, "support", arguments.tasks)

    def objective(xs: Sequence[Tensor]) -> Tensor:
        losses = arguments.losses(xs, query, "query")
        check_finite("the query loss", losses)
        return mean(losses)

    adaptation = Adaptation(arguments, supports, derivative)
    value, gradient = adaptation.value_and_grad(objective)
    by_params, by_alpha = adaptation.pull(gradient)
    grads = arguments.check_used_by_query(by_params, order)
    if learn_alpha:
        grads += _or_zeros(by_alpha, arguments.alphas)
    arguments.check_all_finite("the meta-gradient by", grads, per_task=False)
    value, *results = leave([value, *_clipped(grads, clip_element, clip_norm)], mark)
    count = len(arguments.leaves)
    meta_gradient = tree.unflatten(arguments.structure, results[:count])
    if not learn_alpha:
        return value, meta_gradient
    return value, (meta_gradient, tree.unflatten(arguments.alpha_structure, results[count:]))


def _checked(
    loss: Loss, params: Tree, support: Tree, alpha: Tree, steps: int, adapted: Tree, any_sign: bool = False
) -> tuple[Arguments, list[Tree]]:
    """The arguments, and the batch of each inner step: always the same."""
    check_steps(steps)
    arguments = Arguments.of(loss, params, count_tasks("support", support), alpha, adapted, any_sign)
    return arguments, [support] * int(steps)


def _or_zeros(xs: list[Tensor | None], like: list[Tensor]) -> list[Tensor]:
    """Zeros for the step sizes that no inner step uses."""
    return [constant(zeros(leaf.shape, leaf.data)) if x is None else x for x, leaf in zip(xs, like, strict=True)]


def _clipped(grads: list[Tensor], element: float | None, norm: float | None) -> list[Tensor]:
    if element is not None:
        grads = [clip(g, -element, element) for g in grads]
    if norm is None:
        return grads
    # The norm of the gradients over the largest of them: squares of large ones would overflow.
    largest = reduce(maximum, [largest_of(abs(g)) for g in grads if g.size])
    parts = [divide(g, where(greater(largest, 0.0), largest, 1.0)) for g in grads]
    relative = sqrt(reduce(add, [sum_over(multiply(part, part)) for part in parts]))
    exceeds = greater(multiply(relative, largest), norm)
    factor = divide(norm, where(exceeds, relative, 1.0))
    return [where(exceeds, multiply(part, factor), g) for part, g in zip(parts, grads, strict=True)]

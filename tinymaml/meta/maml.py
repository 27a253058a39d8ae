"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, algorithm 1) with an explicit meta-gradient.

Adaptation is phi_0 = theta, phi_{k+1} = phi_k - alpha * g(phi_k), with g the gradient of the support loss. The
meta-gradient needs no graph through these updates: start from v = gradient of the query loss at phi_K and walk back

    w = alpha * v,    v <- v - H(phi_k) w,

with H the Hessian of the support loss: one Hessian-vector product for each inner step. At the end v is the gradient by
theta. First-order MAML leaves the walk out. On the way, a learned alpha collects -v * g(phi_k), and a parameter psi
that is not adapted collects - d/dpsi <g(phi_k), w>, which the same product yields.

Everything is done for all tasks at once, on the leading task axis; a loss gives one number a task.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, known, now
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.arguments import Loss, NonFiniteError, Arguments
from tinymaml.ops import abs, add, clip, divide, greater, maximum, multiply, sqrt, subtract, where
from tinymaml.ops import max as largest_of
from tinymaml.ops import sum as sum_over
from tinymaml.transforms import MODES, Record, enter, leave

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
    problem = Arguments.of(loss, params, support, alpha, steps, adapted)
    phi = problem.start()
    for k in range(steps):
        record = problem.record(phi, k)
        phi = problem.step(record, mark)
    problem.check_all_finite("the adapted", phi, per_task=True)
    results = [x if x.node.root < mark else known(x) for x in phi]
    # A copy, where no step has moved the caller's own array.
    moved = [a is not None and steps > 0 for a in problem.alpha_of]
    own = [x if m or isinstance(x, Tensor) else x.copy() for x, m in zip(results, moved, strict=True)]
    return tree.unflatten(problem.structure, own)


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
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if records not in ("keep", "recompute"):
        raise ValueError(f"records must be 'keep' or 'recompute', got {records!r}")
    for name, bound in (("clip_element", clip_element), ("clip_norm", clip_norm)):
        if bound is not None and not (isinstance(bound, int | float | np.number) and bound > 0):
            raise ValueError(f"{name} must be a positive number or None, got {bound!r}")
    problem = Arguments.of(loss, params, support, alpha, steps, adapted, any_sign=learn_alpha)
    problem.check_tasks("query", query)

    # Forward: adapt, remembering each step, or where it started.
    phi = problem.start()
    kept: list[Record | list[Tensor]] = []
    for k in range(steps):
        record = problem.record(phi, k)
        if order == 2 or learn_alpha:
            kept.append(record if records == "keep" else phi)
        phi = problem.step(record, mark)
        del record  # so that with "recompute" nothing but the iterates is alive

    # The query's gradient at phi_K.
    final = Record(lambda xs: problem.objective(xs, query), [enter(x) for x in phi])
    v = problem.cut(final.gradient, mark)
    value = final.value
    del final

    # The walk back.
    alpha_grads: list[Tensor | None] = [None] * len(problem.alphas)
    while kept:
        step = kept.pop()
        record = step if isinstance(step, Record) else problem.record(step, len(kept))
        if learn_alpha:
            problem.collect_alpha(alpha_grads, record, v)
        if order == 2:
            w = [
                multiply(a, x) if x is not None and a is not None else None
                for a, x in zip(problem.rates, v, strict=True)
            ]
            products = record.hessian_product(w, mode)
            v = [_minus(x, h) for x, h in zip(v, products, strict=True)]
        v, alpha_grads = problem.cut(v, mark), problem.cut(alpha_grads, mark)
        del step, record

    problem.check_used(v, order)
    grads = [problem.over_tasks(x, leaf.shape) for x, leaf in zip(v, problem.leaves, strict=True)]
    if learn_alpha:
        grads += [problem.over_tasks(x, a.shape) for x, a in zip(alpha_grads, problem.alphas, strict=True)]
    problem.check_all_finite("the meta-gradient by", grads, per_task=False)
    grads = _clipped(grads, clip_element, clip_norm)
    value, *results = leave([value, *grads], mark)
    count = len(problem.leaves)
    by_params = tree.unflatten(problem.structure, results[:count])
    if not learn_alpha:
        return value, by_params
    return value, (by_params, tree.unflatten(problem.alpha_structure, results[count:]))


def _minus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if y is None:
        return x
    return multiply(y, -1.0) if x is None else subtract(x, y)


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

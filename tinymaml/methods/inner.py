"""Predictions after inner steps, which go on when some tasks leave all bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Array, known
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import NonFiniteError, adapt
from tinymaml.methods.method import Batch, Problem


def predictions_after(
    problem: Problem,
    params: Tree,
    alpha: Tree | float,
    support: Batch,
    inputs: Tree,
    steps: Sequence[int],
    adapted: Tree = None,
) -> Tree:
    """Predictions for inputs by name after inner steps of size `alpha` from `params` on the support set.

    Args:
        alpha: a number, or a tree of arrays.
        adapted: as of `tinymaml.adapt`.

    Returns:
        {name: [len(steps), T, Q, ...]}, NaN for tasks that have left all bounds by then.
    """
    inner = problem.replayed(
        "inner step", lambda params, batch, alpha: adapt(problem.objective, params, batch, alpha, 1, adapted=adapted)
    )
    if isinstance(alpha, float | int):
        alpha = np.asarray(alpha, tree.leaves(params)[0].dtype)

    def step(k: int, carried: Tree, support: Batch) -> Tree:
        return {**carried, "params": inner(carried["params"], support, carried["alpha"])}

    return predictions_along(problem, {"params": params, "alpha": alpha}, step, support, inputs, steps)


def predictions_along(
    problem: Problem,
    carried: Tree,
    step: Callable[[int, Tree, Batch], Tree],
    support: Batch,
    inputs: Tree,
    steps: Sequence[int],
    params_of: Callable[[int, Tree], Tree] = lambda k, carried: carried["params"],
) -> Tree:
    """Predictions for inputs by name after inner steps of any kind on the support set.

    Args:
        carried: what goes from step to step, a tree of arrays [1, ...] or [T, ...].
        step: step(k, carried, support) is what the k-th step, from 0, makes of it. A NonFiniteError, with the tasks
            concerned, leaves these out from there on.
        params_of: params_of(k, carried) are the network's parameters after k steps.

    Returns:
        As `predictions_after`.
    """
    outputs = problem.replayed(
        "outputs", lambda params, batch, inputs: tree.map(known, problem.answer(params, batch, inputs))
    )
    first = carried
    remaining = np.arange(_tasks(support))  # the tasks that are within bounds
    measured: list[tuple[Array, Tree]] = []  # (remaining tasks, their predictions) after each of `steps`
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(steps[-1] + 1):
            if k:
                carried, within = _step_within_bounds(step, k - 1, carried, _of_tasks(support, remaining))
                remaining = remaining[within]
            if k in steps:
                # Where none remains, any parameters tell the shapes of the predictions.
                tasks, current = (remaining, carried) if len(remaining) else (np.arange(1), first)
                answered = outputs(params_of(k, current), _of_tasks(support, tasks), _of_tasks(inputs, tasks))
                measured.append((remaining, tree.map(np.asarray, answered)))
    return _together(measured, _tasks(support))


def _together(measured: list[tuple[Array, Tree]], tasks: int) -> Tree:
    """The predictions of all tasks after all steps, [steps, T, Q, ...] each."""

    def stacked(*predictions: Array) -> Array:
        result = np.full((len(measured), tasks, *predictions[0].shape[1:]), np.nan, predictions[0].dtype)
        for k, ((remaining, _), one) in enumerate(zip(measured, predictions, strict=True)):
            result[k, remaining] = one[: len(remaining)]
        return result

    return tree.map(stacked, *[predictions for _, predictions in measured])


def _tasks(batch: Batch) -> int:
    """How many a batch is of."""
    return len(tree.leaves(batch["x"])[0])


def _of_tasks(batch: Tree, tasks: Array) -> Tree:
    """A batch of some of the tasks."""
    return tree.map(lambda x: x[tasks], batch)


def _step_within_bounds(
    step: Callable[[int, Tree, Batch], Tree], k: int, carried: Tree, support: Batch
) -> tuple[Tree, Array]:
    """One inner step, and the indices of the tasks that it did not take beyond all bounds, none perhaps."""
    within = np.arange(_tasks(support))
    while len(within):
        try:
            return step(k, carried, _of_tasks(support, within)), within
        except NonFiniteError as error:
            keep = np.delete(np.arange(len(within)), error.tasks)
            carried = _parameters_of(carried, keep, len(within))
            within = within[keep]
    return carried, within


def _parameters_of(params: Tree, keep: Array, tasks: int) -> Tree:
    """The parameters of some tasks; those that all share stay."""

    def of(x: Any) -> Any:
        return x[keep] if np.ndim(x) and len(x) == tasks > 1 else x

    return tree.map(of, params)

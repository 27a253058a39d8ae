"""Inner steps for an evaluation, which goes on when some tasks leave all bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinymaml import adapt, tree
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import Loss, NonFiniteError
from tinymaml.train.replay import replayed
from tinymaml.train.settings import MetaSettings

InnerStep = Callable[[Tree, Tree], Tree]

ORDERS = {"maml": 2, "fomaml": 1}


def of_tasks(batch: dict[str, Array], keep: Array) -> dict[str, Array]:
    """A batch of some of the tasks."""
    return {name: a[keep] for name, a in batch.items()}


def inner_step(loss: Loss, rates: Tree, adapted: Tree, settings: MetaSettings) -> InnerStep:
    """A function step(params, support) -> params, one inner step for each task."""

    def step(params: Tree, support: Tree) -> Tree:
        return adapt(loss, params, support, rates, 1, adapted=adapted)

    return replayed(step, settings.record, settings.device)


def step_of_those_alive(step: InnerStep, params: Tree, support: dict[str, Array]) -> tuple[Tree, Array]:
    """One inner step, and the indices of the tasks that it did not take beyond all bounds, none perhaps."""
    going = np.arange(len(support["x"]))
    while len(going):
        try:
            return step(params, of_tasks(support, going)), going
        except NonFiniteError as error:
            keep = np.delete(np.arange(len(going)), error.tasks)
            params = _parameters_of(params, keep, len(going))
            going = going[keep]
    return params, going


def _parameters_of(params: Tree, keep: Array, tasks: int) -> Tree:
    """The parameters of some tasks; those that all share stay."""
    return tree.map(lambda p: p[keep] if len(p) == tasks > 1 else p, params)

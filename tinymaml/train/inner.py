"""Inner steps for an evaluation, which goes on when some tasks leave all bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml import adapt, tree
from tinymaml.maml import NonFiniteError
from tinymaml.tensor import Array
from tinymaml.tree import Tree

ORDERS = {"maml": 2, "fomaml": 1}


def of_tasks(batch: dict[str, Array], keep: Array) -> dict[str, Array]:
    """A batch of some of the tasks."""
    return {name: a[keep] for name, a in batch.items()}


def step_of_those_alive(
    loss: Any, params: Tree, support: dict[str, Array], rates: Tree, adapted: Tree = None
) -> tuple[Tree, Array]:
    """One inner step, and the indices of the tasks that it did not take beyond all bounds, none perhaps."""
    going = np.arange(len(support["x"]))
    while len(going):
        try:
            return adapt(loss, params, of_tasks(support, going), rates, 1, adapted=adapted), going
        except NonFiniteError as error:
            keep = np.delete(np.arange(len(going)), error.tasks)
            params = _parameters_of(params, keep, len(going))
            going = going[keep]
    return params, going


def _parameters_of(params: Tree, keep: Array, tasks: int) -> Tree:
    """The parameters of some tasks; those that all share stay."""
    return tree.map(lambda p: p[keep] if len(p) == tasks > 1 else p, params)

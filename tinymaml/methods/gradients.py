"""Gradients of every task's loss by its own parameters, for methods that make their inner steps themselves."""

from __future__ import annotations

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, as_tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.meta import adaptation
from tinymaml.meta.finite import check_finite
from tinymaml.methods.method import Batch, Problem
from tinymaml.ops import mean
from tinymaml.transforms import Record, enter, or_zeros


def recorded(problem: Problem, phi: Tree, batch: Batch, name: str, scale: float = 1.0) -> Record:
    """So many times each task's loss on a batch, recorded from fresh variables at phi, whose leaves are [T, ...].

    Raises NonFiniteError: a loss is not finite; `name` is the loss's in the message.
    """
    leaves, structure = tree.flatten(phi)
    variables = [enter(as_tensor(x)) for x in leaves]

    def losses(xs: object) -> Tensor:
        of_tasks = problem.objective(tree.unflatten(structure, xs), batch)  # type: ignore[arg-type]  # tensors
        return of_tasks if scale == 1 else of_tasks * scale

    record = Record(losses, variables)
    check_finite(name, record.value)
    return record


def gradient_of(problem: Problem, phi: Tree, batch: Batch, name: str, scale: float = 1.0) -> tuple[Tensor, Tree]:
    """(losses [T], their gradient: a tree like phi), without history; see `recorded`."""
    record = recorded(problem, phi, batch, name, scale)
    gradient = or_zeros(record.gradient, record.variables)
    return constant(record.value.data), tree.unflatten(tree.flatten(phi)[1], [constant(g.data) for g in gradient])


def on_task_axis(params: Tree, tasks: int) -> Tree:
    """Parameters [1, ...], shared by the tasks, as each task's own, [T, ...], with the history that they have; what has
    no axes stays."""
    leaves, structure = tree.flatten(params)
    shared = [x for x in map(as_tensor, leaves) if x.ndim]
    spread = iter(adaptation.on_task_axis(shared, tasks))
    owned = [next(spread) if as_tensor(x).ndim else x for x in leaves]
    return tree.unflatten(structure, [known(x) if isinstance(x, Tensor) and not x.has_history else x for x in owned])


def over_tasks(x: Tensor) -> Tensor:
    """The mean over the tasks, [1, ...]."""
    return mean(x, 0, keepdims=True)


def mask_of(problem: Problem, params: Tree) -> Tree:
    """Which parameters inner steps change, as a tree of booleans like the parameters."""
    structure = tree.flatten(params)[1]
    adapted = None if problem.adapted is None else problem.adapted(params)
    return tree.unflatten(structure, tree.spread(True if adapted is None else adapted, structure, "adapted"))

"""The arguments of adaptation and of the meta-gradient, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, constant, is_array
from tinymaml.autodiff.tracing import when_known
from tinymaml.autodiff.tree import Structure, Tree
from tinymaml.meta.finite import check_finite

Loss = Callable[[Tree, Tree], Tensor]  # loss(params, batch) -> Tensor [T], one number a task


@dataclass(frozen=True)
class Arguments:
    """What is adapted, on which loss and with which step sizes."""

    loss: Loss
    tasks: int
    leaves: list[Tensor]  # the parameters, [1, ...] or [T, ...]
    structure: Structure
    path_of: Callable[[int], str]  # a parameter's name in messages
    alphas: list[Tensor]  # the leaves of alpha
    alpha_structure: Structure
    alpha_of: list[int | None]  # for each parameter the index of its step size in alphas; None: it is not adapted

    @staticmethod
    def of(
        loss: Loss, params: Tree, tasks: int, alpha: Tree, adapted: Tree = None, any_sign: bool = False
    ) -> Arguments:
        """See `maml.adapt`. With any_sign a step size that is one number may be negative too; arrays always may."""
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(params, batch) -> Tensor [T], got {type(loss).__name__}")
        raw, structure = tree.flatten(params)
        if not raw:
            raise ValueError("params has no arrays")
        leaves = [_number(x, None, partial(tree.place, "params", params, i)) for i, x in enumerate(raw)]
        dtype = leaves[0].dtype
        for i, x in enumerate(leaves):
            if x.dtype not in FLOATS or x.dtype != dtype or x.shape[:1] not in ((1,), (tasks,)):
                _refuse_parameter(tree.place("params", params, i), x, dtype, tasks)
        alpha_leaves, alpha_structure = tree.flatten(alpha)
        alphas = [_number(a, dtype, partial(tree.place, "alpha", alpha, i)) for i, a in enumerate(alpha_leaves)]
        order = tree.spread(tree.unflatten(alpha_structure, range(len(alphas))), structure, "alpha")
        masks = [True] * len(leaves) if adapted is None else tree.spread(adapted, structure, "adapted")
        if any(not isinstance(mask, bool | np.bool_) for mask in masks):
            raise TypeError(f"adapted must hold booleans, one for a parameter or for a branch of them, got {adapted!r}")
        if not any(masks):
            raise ValueError("adapted selects no parameter: at least one must be adapted")
        for i, (x, a) in enumerate(zip(leaves, order, strict=True)):
            path = partial(tree.place, "params", params, i)
            _check_alpha(alphas[a], x, tasks, path)
            if a not in order[:i]:
                _check_step_size(alphas[a], any_sign, path)
        return Arguments(
            loss,
            tasks,
            leaves,
            structure,
            partial(tree.place, "params", params),
            alphas,
            alpha_structure,
            [a if mask else None for a, mask in zip(order, masks, strict=True)],
        )

    @property
    def rates(self) -> list[Tensor | None]:
        """The step size of each parameter, None where it is not adapted."""
        return [None if a is None else self.alphas[a] for a in self.alpha_of]

    def losses(self, xs: Sequence[Tensor], batch: Tree, name: str) -> Tensor:
        """The loss of each task, [T], at the parameters with these leaves; `name` is the batch's in messages."""
        losses = self.loss(tree.unflatten(self.structure, xs), batch)
        if not isinstance(losses, Tensor):
            raise TypeError(f"loss must return a Tensor, made by tinymaml's functions, got {type(losses).__name__}")
        if losses.shape != (self.tasks,):
            one = f"one number a task, shape ({self.tasks},)"
            raise ValueError(f"loss must return {one}, as mse does; on {name} it returned shape {losses.shape}")
        return losses

    def check_used_by_support(self, gradient: Sequence[Tensor | None]) -> None:
        """Every adapted parameter must have a gradient of the support loss."""
        for i, (g, a) in enumerate(zip(gradient, self.alpha_of, strict=True)):
            if g is None and a is not None:
                raise ValueError(
                    f"{self.path_of(i)} is never used by the support loss: take it out of params, or out of adapted"
                )

    def check_used_by_query(self, meta_gradient: Sequence[Tensor | None], order: int) -> list[Tensor]:
        """Every parameter must have a meta-gradient: through the query loss, or through the inner steps."""
        grads = []
        for i, g in enumerate(meta_gradient):
            if g is None:
                why = ", and order=1 leaves out what the support loss makes of it" if order == 1 else ""
                raise ValueError(f"{self.path_of(i)} is never used by the query loss{why}: take it out of params")
            grads.append(g)
        return grads

    def check_all_finite(self, name: str, tensors: Sequence[Tensor], per_task: bool) -> None:
        """All finite; else the error names the parameter, or alpha for what comes after the parameters."""
        for i, x in enumerate(tensors):
            check_finite(name, x, per_task, partial(self.path_of, i) if i < len(self.leaves) else lambda: "alpha")


def check_steps(steps: Any) -> None:
    """The number of inner steps."""
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"steps must be a whole number >= 0, got {steps!r}")


def check_bound(name: str, bound: Any) -> None:
    """Of the meta-gradient's elements, or of its norm."""
    if bound is not None and not (isinstance(bound, int | float | np.number) and bound > 0):
        raise ValueError(f"{name} must be a positive number or None, got {bound!r}")


def check_same_tasks(name: str, batch: Tree, reference: str, tasks: int) -> None:
    """A batch must have as many tasks as another one, named `reference`."""
    count = count_tasks(name, batch)
    if count != tasks:
        raise ValueError(f"{name} has {count} tasks, {reference} has {tasks}: the tasks must be the same")


def count_tasks(name: str, batch: Tree) -> int:
    """The number of tasks of a batch: the length of the first axis of all its arrays."""
    arrays = tree.leaves(batch)
    shapes = [getattr(x, "shape", None) for x in arrays]
    if not arrays:
        raise ValueError(f"{name} has no arrays")
    for i, shape in enumerate(shapes):
        if shape and 0 not in shape and shape[0] == shapes[0][0]:  # type: ignore[index]  # the first was checked first
            continue
        path = tree.place(name, batch, i)
        if not shape:
            raise ValueError(f"{path} needs a task axis: an array [T, ...] is expected, got {arrays[i]!r}")
        if 0 in shape:
            raise ValueError(f"{path} is without examples: its shape is {shape}")
        first = f"{tree.place(name, batch, 0)} has {shapes[0][0]}"  # type: ignore[index]
        raise ValueError(f"{path} has {shape[0]} tasks, but {first}: the first axis is the task axis")
    return int(shapes[0][0])  # type: ignore[index]


def _number(value: Any, dtype: Any, path: Callable[[], str]) -> Tensor:
    """A leaf of params or alpha as a tensor; a Python number takes the dtype."""
    if isinstance(value, Tensor):
        return value
    if is_array(value) and value.dtype.kind in "fiub":
        return constant(value)
    if isinstance(value, Real):
        return constant(value, dtype)
    raise TypeError(f"{path()} must be an array or a number, got {value!r}")


def _refuse_parameter(name: str, x: Tensor, dtype: Any, tasks: int) -> None:
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} is {x.dtype}: gradients are taken of float32 or float64 only; cast it with .astype()")
    if x.dtype != dtype:
        raise TypeError(f"{name} is {x.dtype}, the first parameter {dtype}: all must have one dtype")
    raise ValueError(
        f"{name} has shape {x.shape}: its first axis is the task axis, of length 1 (shared by the tasks) or {tasks} "
        "(the number of tasks in support)"
    )


def _check_alpha(alpha: Tensor, x: Tensor, tasks: int, path: Callable[[], str]) -> None:
    if alpha.dtype != x.dtype:
        raise TypeError(f"alpha for {path()} is {alpha.dtype}, the parameter {x.dtype}: they must have one dtype")
    target = (tasks, *x.shape[1:])
    if alpha.ndim > x.ndim or any(n not in (1, m) for n, m in zip(alpha.shape[::-1], target[::-1], strict=False)):
        raise ValueError(f"alpha for {path()} has shape {alpha.shape}, which does not broadcast to {target}")


def _check_step_size(alpha: Tensor, any_sign: bool, path: Callable[[], str]) -> None:
    any_sign = any_sign or alpha.ndim > 0  # a step size for every number was learned, and may have turned

    def check(data: Array) -> None:
        if not np.isfinite(data).all() or not (any_sign or data > 0):
            raise ValueError(f"alpha for {path()} must be {'finite' if any_sign else 'positive'}, got {data.min()}")

    when_known(alpha.data, check)

"""The arguments of adaptation and of the meta-gradient, checked, and what both do with them step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.dispatch import zeros
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, constant, is_array
from tinymaml.autodiff.tracing import declare_tasks, when_known
from tinymaml.autodiff.tree import Structure, Tree
from tinymaml.ops import broadcast_to, mean, multiply, subtract
from tinymaml.ops.elementwise import descend
from tinymaml.ops.shape import sum_to
from tinymaml.transforms import Record, enter

Loss = Callable[[Tree, Tree], Tensor]


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or not a number; the message says which. `tasks` has the indices concerned."""

    def __init__(self, message: str, tasks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.tasks = list(tasks)


@dataclass(frozen=True)
class Problem:
    """The arguments of `adapt`, checked, with one entry a parameter in each list."""

    loss: Loss
    support: Tree
    tasks: int
    leaves: list[Tensor]
    structure: Structure
    paths: Callable[[int], str]
    alphas: list[Tensor]
    alpha_structure: Structure
    alpha_of: list[int | None]  # which alpha a parameter is adapted with; None: it is not adapted

    @staticmethod
    def of(
        loss: Loss, params: Tree, support: Tree, alpha: Tree, steps: int, adapted: Tree, any_sign: bool = False
    ) -> Problem:
        if not callable(loss):
            raise TypeError(f"loss must be a function loss(params, batch) -> Tensor [T], got {type(loss).__name__}")
        if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 0:
            raise ValueError(f"steps must be a whole number >= 0, got {steps!r}")
        raw, structure = tree.flatten(params)
        if not raw:
            raise ValueError("params has no arrays")
        leaves = [_number(x, None, lambda i=i: tree.place("params", params, i)) for i, x in enumerate(raw)]
        dtype = leaves[0].dtype
        tasks = _tasks("support", support)
        declare_tasks(tasks)
        for i, x in enumerate(leaves):
            if x.dtype not in FLOATS or x.dtype != dtype or x.shape[:1] not in ((1,), (tasks,)):
                _refuse_parameter(tree.place("params", params, i), x, dtype, tasks)
        alpha_leaves, alpha_structure = tree.flatten(alpha)
        alphas = [_number(a, dtype, lambda i=i: tree.place("alpha", alpha, i)) for i, a in enumerate(alpha_leaves)]
        order = tree.spread(tree.unflatten(alpha_structure, range(len(alphas))), structure, "alpha")
        masks = [True] * len(leaves) if adapted is None else tree.spread(adapted, structure, "adapted")
        if any(not isinstance(mask, bool | np.bool_) for mask in masks):
            raise TypeError(f"adapted must hold booleans, one for a parameter or for a branch of them, got {adapted!r}")
        if not any(masks):
            raise ValueError("adapted selects no parameter: at least one must be adapted")
        for i, (x, a) in enumerate(zip(leaves, order, strict=True)):
            path = lambda i=i: tree.place("params", params, i)  # noqa: E731  # only made for a message
            _check_alpha(alphas[a], x, tasks, path)
            if a not in order[:i]:
                _check_step_size(alphas[a], any_sign, path)
        return Problem(
            loss,
            support,
            tasks,
            leaves,
            structure,
            lambda i: tree.place("params", params, i),
            alphas,
            alpha_structure,
            [a if mask else None for a, mask in zip(order, masks, strict=True)],
        )

    @property
    def rates(self) -> list[Tensor | None]:
        """The step size of each parameter, None where it is not adapted."""
        return [None if a is None else self.alphas[a] for a in self.alpha_of]

    def check_tasks(self, name: str, batch: Tree) -> None:
        found = _tasks(name, batch)
        if found != self.tasks:
            raise ValueError(f"{name} has {found} tasks, support has {self.tasks}: the tasks must be the same")

    def start(self) -> list[Tensor]:
        """theta on the task axis: a view, so that every task's gradient is its own."""
        return [broadcast_to(x, (self.tasks, *x.shape[1:])) for x in self.leaves]

    def losses(self, xs: Sequence[Tensor], batch: Tree, name: str) -> Tensor:
        found = self.loss(tree.unflatten(self.structure, xs), batch)
        if not isinstance(found, Tensor):
            raise TypeError(f"loss must return a Tensor, made by tinymaml's functions, got {type(found).__name__}")
        if found.shape != (self.tasks,):
            one = f"one number a task, shape ({self.tasks},)"
            raise ValueError(f"loss must return {one}, as mse does; on {name} it returned shape {found.shape}")
        return found

    def objective(self, xs: Sequence[Tensor], query: Tree) -> Tensor:
        """The mean over tasks of the query loss; its gradient by each task's parameters starts the walk back."""
        losses = self.losses(xs, query, "query")
        check_finite("the query loss", losses)
        return mean(losses)

    def record(self, phi: Sequence[Tensor], k: int) -> Record:
        """The support loss at phi, recorded from fresh variables; phi is where inner step k starts."""
        record = Record(lambda xs: self.losses(xs, self.support, "support"), [enter(x) for x in phi])
        check_finite(f"the support loss at inner step {k}", record.value)
        for i, (g, a) in enumerate(zip(record.gradient, self.alpha_of, strict=True)):
            if g is None and a is not None:
                raise ValueError(
                    f"{self.paths(i)} is never used by the support loss: take it out of params, or out of adapted"
                )
        return record

    def check_used(self, grads: list[Tensor | None], order: int) -> None:
        """Every parameter must have a meta-gradient: through the query loss, or through the inner steps."""
        for i, g in enumerate(grads):
            if g is None:
                why = ", and order=1 leaves out what the support loss makes of it" if order == 1 else ""
                raise ValueError(f"{self.paths(i)} is never used by the query loss{why}: take it out of params")

    def check_all_finite(self, name: str, found: Sequence[Tensor], per_task: bool) -> None:
        """All finite; else the error names the parameter, or alpha for what comes after the parameters."""
        for i, x in enumerate(found):
            check_finite(name, x, per_task, lambda i=i: self.paths(i) if i < len(self.leaves) else "alpha")  # type: ignore[misc]

    def step(self, record: Record, mark: int) -> list[Tensor]:
        """phi - alpha g, without the history that ends here."""
        moved = [
            x if g is None or rate is None else descend(x, rate, g)
            for x, rate, g in zip(record.variables, self.rates, record.gradient, strict=True)
        ]
        return self.cut(moved, mark)  # type: ignore[return-value]  # none is missing

    def cut(self, xs: Sequence[Tensor | None], mark: int) -> list[Tensor | None]:
        """The same values; those that depend on nothing older than this call lose their history, and so free it."""
        return [x if x is None or x.node.root < mark else constant(x.data) for x in xs]

    def collect_alpha(self, grads: list[Tensor | None], record: Record, v: Sequence[Tensor | None]) -> None:
        """alpha's gradient by one step: -v * g, with v taken after the step; per task, summed to alpha's shape."""
        for x, g, a in zip(v, record.gradient, self.alpha_of, strict=True):
            if x is not None and g is not None and a is not None:
                shape = self.alphas[a].shape
                part = sum_to(multiply(x, g), (1,) * (x.ndim - len(shape)) + shape)
                total = grads[a]
                part = part.reshape(shape)
                grads[a] = multiply(part, -1.0) if total is None else subtract(total, part)

    def over_tasks(self, x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """The sum over the task index where the parameter is shared; zeros for what no step depends on."""
        return constant(zeros(shape, self.leaves[0].data)) if x is None else sum_to(x, shape)


def _tasks(name: str, batch: Tree) -> int:
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


def check_finite(name: str, x: Tensor, per_task: bool = True, path: Callable[[], str] = lambda: "") -> None:
    """Raise NonFiniteError, which names the tasks where x has one number or row for each, unless all of x is finite."""
    when_known(x.data, lambda data: _check_finite(name, data, per_task, path))


def _check_finite(name: str, data: Array, per_task: bool, path: Callable[[], str]) -> None:
    # A sum is finite only if all its terms are (or it overflowed, which then is looked at again).
    with np.errstate(invalid="ignore", over="ignore"):
        if math.isfinite(data.sum()):
            return
    finite = np.isfinite(data)
    if not finite.all():
        tasks = np.flatnonzero(~finite.reshape(len(finite), -1).all(1)).tolist() if per_task else []
        which = f" (tasks {', '.join(map(str, tasks[:5]))}{', ...' * (len(tasks) > 5)})" if tasks else ""
        hint = "look for a NaN in the data or in params, or take a smaller alpha or learning rate"
        what = " ".join(part for part in (name, path()) if part)
        raise NonFiniteError(f"{what} is not finite{which}: {hint}", tasks)

"""Implicit MAML (Rajeswaran et al. 2019): the meta-gradient from where the inner steps end, whatever way they took.

With phi the minimum of L(phi) + lambda/2 |phi - theta|², and v the gradient of the query loss there, the gradient by
theta is u = (I + H / lambda)^-1 v, with H the support loss's Hessian at phi. Parameters psi that inner steps do not
change have v_psi - H_psi,phi u / lambda. A few steps of conjugate gradient on Hessian-vector products find u, for all
tasks at once, each with step sizes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, as_tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.finite import check_finite
from tinymaml.methods.gradients import gradient_of, mask_of, on_task_axis, over_tasks, recorded
from tinymaml.methods.inner import predictions_along
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.ops import add, clip, divide, greater, mean, multiply, reshape, subtract, where
from tinymaml.ops import sum as sum_over
from tinymaml.settings import setting
from tinymaml.transforms import or_zeros


@dataclass(frozen=True)
class IMAML(Method):
    """Gradient steps on a loss with a regulariser that holds the parameters near their start, and the implicit
    gradient."""

    steps: int = setting(16, "inner steps in meta-training")
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    proximity: float = setting(2.0, "lambda: the inner loss has lambda/2 times the squared distance", positive=True)
    cg_steps: int = setting(5, "steps of conjugate gradient for the meta-gradient")
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient", positive=True)

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return self.alpha

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters, and Adam's state."""
        params = problem.model.init(rng, dtype)
        return {"params": params, "optimiser": optim.adam(self.learning_rate).init(params)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the implicit meta-gradient of a meta-batch."""
        support, query = batch
        params = state["params"]
        phi = params
        for k in range(self.steps):
            phi = self._step(problem, params, phi, support, k)
        value, gradient = self._implicit(problem, phi, support, query)
        if self.clip_element is not None:
            bound = self.clip_element
            gradient = tree.map(lambda g: constant(clip(g, -bound, bound).data), gradient)
        params, optimiser = optim.adam(self.learning_rate).update(gradient, state["optimiser"], params)
        figures = problem.figures(problem.model.apply(phi, query["x"]), query["y"])
        return {**state, "params": params, "optimiser": optimiser}, {"loss": known(value), **figures}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after regularised inner steps on the support set."""
        start = state["params"]

        def step(k: int, carried: Tree, support: Batch) -> Tree:
            one = problem.replayed(
                "inner step", lambda start, phi, support: self._step(problem, start, phi, support, 0)
            )
            return {**carried, "params": one(start, carried["params"], support)}

        return predictions_along(problem, {"params": start}, step, support, inputs, steps)

    def _step(self, problem: Problem, start: Tree, phi: Tree, support: Batch, k: int) -> Tree:
        """phi - alpha (g + lambda (phi - theta)), where inner steps change it."""
        phi = on_task_axis(phi, as_tensor(support["y"]).shape[0])
        _, gradient = gradient_of(problem, phi, support, f"the support loss at inner step {k}", problem.inner_scale)

        def moved(x: Any, g: Tensor, theta: Any, is_adapted: bool) -> Any:
            if not is_adapted:
                return x
            slope = add(g, multiply(subtract(x, theta), self.proximity))
            return known(subtract(x, multiply(slope, self.alpha)))

        return tree.map(moved, phi, gradient, start, mask_of(problem, start))

    def _implicit(self, problem: Problem, phi: Tree, support: Batch, query: Batch) -> tuple[Tensor, Tree]:
        """The mean query loss, and its implicit gradient by theta."""
        masks = tree.leaves(mask_of(problem, phi))
        inner = recorded(problem, phi, support, "the support loss after the inner steps", problem.inner_scale)
        outer = recorded(problem, phi, query, "the query loss")
        slopes = [constant(g.data) for g in or_zeros(outer.gradient, outer.variables)]

        def product(us: Sequence[Tensor]) -> list[Tensor]:
            """H u, of all parameters, from a u of those that are adapted."""
            spread = iter(us)
            products = inner.hessian_product([next(spread) if mask else None for mask in masks])
            return [constant(h.data) for h in or_zeros(products, inner.variables)]

        def operator(us: Sequence[Tensor]) -> list[Tensor]:
            """(I + H / lambda) u."""
            adapted = [h for h, mask in zip(product(us), masks, strict=True) if mask]
            return [add(u, multiply(h, 1 / self.proximity)) for u, h in zip(us, adapted, strict=True)]

        us = conjugate_gradient(operator, [v for v, mask in zip(slopes, masks, strict=True) if mask], self.cg_steps)
        cross = [] if all(masks) else product(us)
        solved = iter(us)
        gradient = [
            next(solved) if mask else subtract(v, multiply(cross[i], 1 / self.proximity))
            for i, (v, mask) in enumerate(zip(slopes, masks, strict=True))
        ]
        averaged = [over_tasks(g) for g in gradient]
        for g in averaged:
            check_finite("the meta-gradient", g, per_task=False)
        gradient_tree = tree.unflatten(tree.flatten(phi)[1], [constant(g.data) for g in averaged])
        return constant(mean(outer.value).data), gradient_tree


def conjugate_gradient(
    operator: Callable[[Sequence[Tensor]], list[Tensor]], b: Sequence[Tensor], steps: int
) -> list[Tensor]:
    """x with A x = b after so many steps from 0, for every task at once: all are lists of tensors [T, ...].

    A is symmetric, and positive along the ways that are taken; where it is not, or nothing is left to do, a task's
    step is 0.
    """
    x: list[Tensor] | None = None
    residual, direction = list(b), list(b)
    square = _inner_product(residual, residual)
    for k in range(steps):
        image = operator(direction)
        curvature = _inner_product(direction, image)
        size = _ratio(square, curvature)
        forward = [_scaled(d, size) for d in direction]
        x = forward if x is None else [add(a, f) for a, f in zip(x, forward, strict=True)]
        if k + 1 < steps:
            residual = [subtract(r, _scaled(i, size)) for r, i in zip(residual, image, strict=True)]
            before, square = square, _inner_product(residual, residual)
            factor = _ratio(square, before)
            direction = [add(r, _scaled(d, factor)) for r, d in zip(residual, direction, strict=True)]
    return list(b) if x is None else x


def _inner_product(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Of each task, [T]."""
    return reduce(add, [sum_over(multiply(x, y), tuple(range(1, x.ndim))) for x, y in zip(xs, ys, strict=True)])


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b where b > 0, else 0."""
    is_positive = greater(b, 0.0)
    return where(is_positive, divide(a, where(is_positive, b, 1.0)), 0.0)


def _scaled(x: Tensor, factors: Tensor) -> Tensor:
    """Each task's part times its factor."""
    return multiply(x, reshape(factors, (factors.shape[0],) + (1,) * (x.ndim - 1)))

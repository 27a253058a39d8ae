"""MAML++ (Antoniou, Edwards & Storkey 2019): MAML with what made its training steady.

The query loss after every inner step counts, with weights that move to the last step in the course of training; each
parameter has a learned step size for each inner step; what inner steps do not change (gamma and beta of batch norm) has
values of its own for each of them; the outer step size falls along a cosine; second derivatives may come in late.
The gradient is taken through the inner steps as they were recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, as_tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.finite import check_finite
from tinymaml.methods.gradients import mask_of, on_task_axis
from tinymaml.methods.inner import predictions_along
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.ops import (
    add,
    astype,
    clip,
    greater_equal,
    maximum,
    mean,
    minimum,
    multiply,
    stop_gradient,
    subtract,
    where,
)
from tinymaml.settings import setting
from tinymaml.transforms import Record, enter, or_zeros, value_and_grad

_LEAST = 0.03  # of 1 / steps: what the weight of an earlier step falls to before it falls to 0


@dataclass(frozen=True)
class MAMLPlusPlus(Method):
    """MAML with a loss of several steps, and step sizes and batch norm for each of them.

    At meta-test the inner steps beyond those of meta-training are as the last of these.
    """

    steps: int = setting(5, "inner steps in meta-training")
    alpha: float = setting(0.1, "step size of the inner steps, at the start: it is learned", positive=True)
    learn_alpha: bool = setting(True, "learn a step size for every parameter and inner step")
    norm_per_step: bool = setting(True, "parameters that inner steps do not change have values for each of them")
    multi_step_iterations: int = setting(
        5_000, "iterations in which the query loss after earlier inner steps counts too, less and less", least=0
    )
    first_order_iterations: int = setting(0, "iterations without second derivatives, at the start", least=0)
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)
    last_learning_rate: float = setting(1e-5, "step size of Adam at the end of the cosine", positive=True)
    schedule_iterations: int = setting(70_000, "iterations after which the outer step size has fallen to its end")
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient", positive=True)

    @property
    def name(self) -> str:
        """As folders call it."""
        return "maml++"

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return "learned" if self.learn_alpha else self.alpha

    @property
    def _optimiser(self) -> optim.Optimiser:
        return optim.adam(optim.cosine(self.learning_rate, self.schedule_iterations, self.last_learning_rate))

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters, for each inner step the step sizes, for each but the first the parameters that
        inner steps do not change; Adam's state, and the iteration."""
        network = problem.model.init(rng, dtype)
        leaves, masks = tree.leaves(network), tree.leaves(mask_of(problem, network))
        size = self.alpha * problem.inner_scale
        rates = [np.full((1,) * x.ndim, size, dtype) for x, mask in zip(leaves, masks, strict=True) if mask]
        fixed = [x for x, mask in zip(leaves, masks, strict=True) if not mask] if self.norm_per_step else []
        params = {
            "network": network,
            "alpha": [[rate.copy() for rate in rates] for _ in range(self.steps)],
            "later": [[x.copy() for x in fixed] for _ in range(self.steps - 1)],
        }
        return {"params": params, "optimiser": self._optimiser.init(params), "iteration": np.zeros((), np.float64)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the gradient of the weighted query losses; the loss is that after the last inner step."""
        support, query = batch
        at = as_tensor(state["iteration"])
        dtype = tree.leaves(state["params"])[0].dtype
        weights = [astype(weight, dtype) for weight in self.weights(at)] if self.multi_step_iterations else []
        last: list[Tensor] = []  # the outputs for the query inputs, and the losses

        def objective(params: Tree) -> Tensor:
            phi, total = params["network"], None
            for k in range(self.steps):
                phi = self._step(problem, params, phi, support, k, at)
                if not weights and k + 1 < self.steps:
                    continue
                outputs = problem.model.apply(phi, query["x"])
                losses = problem.loss(outputs, query["y"])
                check_finite(f"the query loss after inner step {k}", losses)
                last[:] = [outputs, losses]
                value = multiply(mean(losses), weights[k]) if weights else mean(losses)
                total = value if total is None else add(total, value)
            return total  # type: ignore[return-value]  # there is a step

        _, gradient = value_and_grad(objective)(state["params"])
        for g in tree.leaves(gradient):
            check_finite("the meta-gradient", as_tensor(g), per_task=False)
        if not self.learn_alpha:
            gradient = {**gradient, "alpha": tree.map(lambda g: known(multiply(g, 0.0)), gradient["alpha"])}
        if self.clip_element is not None:
            bound = self.clip_element
            gradient = tree.map(lambda g: known(clip(g, -bound, bound)), gradient)
        params, optimiser = self._optimiser.update(gradient, state["optimiser"], state["params"])
        outputs, losses = [constant(x.data) for x in last]
        figures = {"loss": known(losses), **problem.figures(outputs, query["y"])}
        return {**state, "params": params, "optimiser": optimiser, "iteration": known(add(at, 1.0))}, figures

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on the support set."""
        params = state["params"]
        none = np.full((), np.inf)  # iterations: there are no derivatives

        def step(k: int, carried: Tree, support: Batch) -> Tree:
            k = min(k, self.steps - 1)
            one = problem.replayed(
                f"inner step {k}",
                lambda params, phi, support: tree.map(known, self._step(problem, params, phi, support, k, none)),
            )
            return {"params": one(params, carried["params"], support)}

        return predictions_along(problem, {"params": params["network"]}, step, support, inputs, steps)

    def weights(self, iteration: Tensor) -> list[Tensor]:
        """Of the query losses after each inner step, at an iteration (float64)."""
        n, share = self.steps, minimum(multiply(iteration, 1 / self.multi_step_iterations), 1.0)
        early = maximum(multiply(subtract(1.0, share), 1 / n), _LEAST / n)
        final = minimum(add(multiply(share, (n - 1) / n), 1 / n), 1 - _LEAST * (n - 1) / n)
        over = greater_equal(iteration, float(self.multi_step_iterations))
        return [*[where(over, 0.0, early)] * (n - 1), where(over, 1.0, final)]

    def _step(self, problem: Problem, params: Tree, phi: Tree, support: Batch, k: int, iteration: Any) -> Tree:
        """phi after inner step k, with what is kept for this step of the parameters that it does not change."""
        phi = on_task_axis(phi, as_tensor(support["y"]).shape[0])
        masks = tree.leaves(mask_of(problem, phi))
        leaves, structure = tree.flatten(phi)
        if k and self.norm_per_step:
            kept = iter(params["later"][k - 1])
            leaves = [x if mask else next(kept) for x, mask in zip(leaves, masks, strict=True)]
        changing = [enter(as_tensor(x)) for x, mask in zip(leaves, masks, strict=True) if mask]

        def losses(xs: Sequence[Tensor]) -> Tensor:
            moved = iter(xs)
            filled = [next(moved) if mask else x for x, mask in zip(leaves, masks, strict=True)]
            return problem.objective(tree.unflatten(structure, filled), support)

        record = Record(losses, changing)
        check_finite(f"the support loss at inner step {k}", record.value)
        gradient = [self._of_order(g, iteration) for g in or_zeros(record.gradient, changing)]
        moved = iter(
            subtract(x, multiply(rate, g)) for x, rate, g in zip(changing, params["alpha"][k], gradient, strict=True)
        )
        return tree.unflatten(structure, [next(moved) if mask else x for x, mask in zip(leaves, masks, strict=True)])

    def _of_order(self, g: Tensor, iteration: Any) -> Tensor:
        """The gradient, which has no derivative in the first iterations."""
        if not self.first_order_iterations:
            return g
        has_one = astype(where(greater_equal(iteration, float(self.first_order_iterations)), 1.0, 0.0), g.dtype)
        without = stop_gradient(g)
        return add(without, multiply(has_one, subtract(g, without)))

"""Reptile (Nichol, Achiam & Schulman 2018): train on a task for some steps, and go a part of the way there.

It needs no query set and no derivative of the inner steps: a meta-step is theta + epsilon mean(phi - theta), over the
tasks of a meta-batch, with epsilon falling linearly to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import as_tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.gradients import gradient_of, on_task_axis
from tinymaml.methods.inner import predictions_along
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.ops import add, astype, concatenate, maximum, mean, multiply, subtract, take
from tinymaml.settings import setting


@dataclass(frozen=True)
class Reptile(Method):
    """Inner steps on mini-batches of support and query set together, and a meta-step towards where they lead.

    A mini-batch is every so-manieth example, so that of examples that are ordered class by class it has some of every
    class. All parameters are trained, those of batch norm too. Adam's second moments go on from task to task.
    """

    steps: int = setting(5, "inner steps in meta-training")
    inner_batch: int = setting(10, "examples in a mini-batch of the inner steps")
    inner_optimiser: str = setting("sgd", "of the inner steps; Adam without momentum", ("sgd", "adam"))
    alpha: float = setting(0.02, "step size of the inner steps", positive=True)
    meta_step: float = setting(0.1, "part of the way that a meta-step goes, at the start", positive=True, most=1)
    schedule_iterations: int = setting(70_000, "iterations after which the outer step size has fallen to its end")

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return self.alpha

    @property
    def _inner(self) -> optim.Optimiser:
        return optim.adam(self.alpha, beta1=0.0) if self.inner_optimiser == "adam" else optim.sgd(self.alpha)

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters, the inner optimiser's state, and the iteration."""
        network = problem.model.init(rng, dtype)
        params = {"network": network, "inner": self._inner.init(network)}
        return {"params": params, "iteration": np.zeros((), np.int64)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A meta-step; the loss is that before the last inner step, on its mini-batch."""
        support, query = batch
        both = {name: concatenate([support[name], query[name]], 1) for name in ("x", "y")}
        tasks = as_tensor(support["y"]).shape[0]
        params = state["params"]
        carried = {"params": params["network"], "inner": params["inner"]}
        carried = _on_tasks(carried, tasks)
        for k in range(self.steps):
            losses, carried = self._step(problem, k, carried, both)
        at = astype(as_tensor(state["iteration"]), np.float64)
        rate = multiply(self.meta_step, maximum(subtract(1.0, multiply(at, 1 / self.schedule_iterations)), 0.0))

        def towards(x: Any, phi: Any) -> Any:
            way = subtract(mean(as_tensor(phi), 0, keepdims=True), x)
            return known(constant(add(x, multiply(astype(rate, way.dtype), way)).data))

        def over_tasks(x: Any, like: Any) -> Any:
            moved = as_tensor(x)
            return known(moved) if moved.shape == np.shape(like) else known(mean(moved, 0, keepdims=True))

        after = {
            "network": tree.map(towards, params["network"], carried["params"]),
            "inner": tree.map(over_tasks, carried["inner"], params["inner"]),
        }
        iteration = known(add(as_tensor(state["iteration"]), 1))
        return {**state, "params": after, "iteration": iteration}, {"loss": known(losses)}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on mini-batches of the support set."""
        params = state["params"]
        tasks = len(tree.leaves(support["x"])[0])
        carried = _on_tasks({"params": params["network"], "inner": params["inner"]}, tasks)

        def step(k: int, carried: Tree, support: Batch) -> Tree:
            # There are as many kinds of mini-batches as it takes to come round.
            kind = k % len(_rounds(len(tree.leaves(support["y"])[0][0]), self.inner_batch))
            one = problem.replayed(f"inner step {kind}", lambda carried, batch: self._step(problem, kind, carried, batch)[1])
            return one(carried, support)

        return predictions_along(problem, carried, step, support, inputs, steps)

    def _step(self, problem: Problem, k: int, carried: Tree, examples: Batch) -> tuple[Any, Tree]:
        """(losses [T], what is carried) of the k-th inner step."""
        count = as_tensor(examples["y"]).shape[1]
        of_rounds = _rounds(count, self.inner_batch)
        part = of_rounds[k % len(of_rounds)]
        batch = examples if part is None else {name: take(x, part, 1) for name, x in examples.items()}
        losses, gradient = gradient_of(problem, carried["params"], batch, k)
        params, inner = self._inner.update(gradient, carried["inner"], carried["params"])
        return losses, {"params": params, "inner": inner}

"""Reptile (Nichol, Achiam & Schulman 2018): train on a task for some steps, and go a part of the way there.

It needs no query set and no derivative of the inner steps: a meta-step is theta + epsilon mean(phi - theta), over the
tasks of a meta-batch, with epsilon falling linearly to 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import as_tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.gradients import gradient_of, on_task_axis, over_tasks
from tinymaml.methods.inner import predictions_along
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.ops import concatenate, maximum, subtract, take
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
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    meta_step: float = setting(0.1, "part of the way that a meta-step goes, at the start", positive=True, most=1)
    schedule_iterations: int = setting(70_000, "iterations after which the outer step size has fallen to its end")

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return self.alpha

    @property
    def _inner(self) -> optim.Optimiser:
        return optim.adam(self.alpha, beta1=0.0) if self.inner_optimiser == "adam" else optim.sgd(self.alpha)

    @property
    def _outer(self) -> optim.Optimiser:
        """theta - epsilon (theta - mean phi)."""
        return optim.sgd(lambda i: self.meta_step * maximum(1.0 - i / self.schedule_iterations, 0.0))

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters, the inner optimiser's state and the outer one's."""
        network = problem.model.init(rng, dtype)
        params = {"network": network, "inner": self._inner.init(network)}
        return {"params": params, "outer": self._outer.init(network)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A meta-step; the loss is that before the last inner step, on its mini-batch."""
        support, query = batch
        both = {name: concatenate([support[name], query[name]], 1) for name in ("x", "y")}
        params = state["params"]
        carried = params
        for k in range(self.steps):
            losses, carried = self._step(problem, k, carried, both)
        ways = tree.map(
            lambda theta, phi: constant(subtract(theta, over_tasks(as_tensor(phi))).data),
            params["network"],
            carried["network"],
        )
        network, outer = self._outer.update(ways, state["outer"], params["network"])
        inner = tree.map(_over_tasks_if_many, carried["inner"])
        return {**state, "params": {"network": network, "inner": inner}, "outer": outer}, {"loss": known(losses)}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on mini-batches of the support set."""
        kinds = len(_mini_batches(np.shape(support["y"])[1], self.inner_batch))

        def step(k: int, carried: Tree, support: Batch) -> Tree:
            kind = k % kinds
            one = problem.replayed(
                f"inner step {kind}", lambda carried, batch: self._step(problem, kind, carried, batch)[1]
            )
            return one(carried, support)

        return predictions_along(
            problem, state["params"], step, support, inputs, steps, lambda k, carried: carried["network"]
        )

    def _step(self, problem: Problem, k: int, carried: Tree, examples: Batch) -> tuple[Any, Tree]:
        """(losses [T], what is carried) of the k-th inner step."""
        tasks, count = as_tensor(examples["y"]).shape[:2]
        carried = on_task_axis(carried, tasks)
        parts = _mini_batches(count, self.inner_batch)
        part = parts[k % len(parts)]
        batch = examples if part is None else {name: take(x, part, 1) for name, x in examples.items()}
        losses, gradient = gradient_of(problem, carried["network"], batch, f"the loss at inner step {k}")
        network, inner = self._inner.update(gradient, carried["inner"], carried["network"])
        return losses, {"network": network, "inner": inner}


def _over_tasks_if_many(x: Any) -> Any:
    """A part of the inner optimiser's state: the mean over the tasks, or the iteration, which they share."""
    return known(over_tasks(as_tensor(x)) if as_tensor(x).ndim else as_tensor(x))


def _mini_batches(count: int, size: int) -> list[Any]:
    """The examples of one mini-batch after the other, until they come round; [None] where one takes them all."""
    if count <= size:
        return [None]
    stride = count // size
    order = np.concatenate([np.arange(first, count, stride) for first in range(stride)])
    rounds = count // math.gcd(count, size)
    return [order[(k * size + np.arange(size)) % count] for k in range(rounds)]

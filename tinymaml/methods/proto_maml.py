"""Proto-MAML (Triantafillou et al. 2020): MAML whose head starts, in every task, as a prototypical network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, known
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import meta_value_and_grad
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.methods.metric import check_embeds, class_means, one_hot
from tinymaml.ops import add, expand_dims, multiply, negative, swapaxes
from tinymaml.ops import sum as sum_over
from tinymaml.settings import setting
from tinymaml.transforms import vjp


@dataclass(frozen=True)
class ProtoMAML(Method):
    """The head starts at W = 2 p and b = -|p|² with p the mean embeddings of the classes' support images, by which its
    logits are those of a prototypical network. All that MAML adapts is then adapted by inner steps, the head too.

    What is learned are the hidden layers. The meta-gradient goes through the head's start as well.
    """

    order: int = setting(1, "of the meta-gradient: 1 leaves out the second derivatives", (1, 2))
    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)

    @property
    def name(self) -> str:
        """As folders, tables and the command line call it."""
        return "proto-maml"

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return self.alpha

    def check(self, problem: Problem) -> None:
        """Raises ValueError: the network has no embedding, or there are no classes."""
        check_embeds(self.name, problem)

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The parameters of the hidden layers, and Adam's state."""
        params = {"hidden": problem.model.init(rng, dtype)["hidden"]}
        return {"params": params, "optimiser": optim.adam(self.learning_rate).init(params)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the meta-gradient of a meta-batch."""
        support, query = batch
        outputs: list[Tensor] = []  # for the query inputs

        def loss(params: Tree, part: Batch) -> Tensor:
            result = problem.model.apply(params, part["x"])
            if part is query:
                outputs.append(result)
            return problem.loss(result, part["y"])

        params = state["params"]
        head, pull_head = vjp(lambda params: prototypical_head(problem, params, support), params)
        start = {**params, "head": head}
        value, gradient = meta_value_and_grad(
            loss,
            start,
            support,
            query,
            self.alpha * problem.inner_scale,
            self.steps,
            order=self.order,
            adapted=problem.adapted(start) if problem.adapted else None,
        )
        (through_head,) = pull_head(gradient["head"])
        total = tree.map(add, {"hidden": gradient["hidden"]}, through_head)
        params, optimiser = optim.adam(self.learning_rate).update(total, state["optimiser"], params)
        return {**state, "params": params, "optimiser": optimiser}, {
            "loss": value,
            **problem.figures(outputs[-1], query["y"]),
        }

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on the support set."""
        params = state["params"]
        head_of = problem.replayed(
            "head", lambda params, support: tree.map(known, prototypical_head(problem, params, support))
        )
        start = {**params, "head": head_of(params, dict(support))}
        alpha = np.asarray(self.alpha * problem.inner_scale, tree.leaves(params)[0].dtype)
        adapted = problem.adapted(start) if problem.adapted else None
        return predictions_after(problem, start, alpha, support, inputs, steps, adapted)


def prototypical_head(problem: Problem, params: Tree, support: Batch) -> Tree:
    """A head for each task, w[T, D, ways] = 2 p and b[T, 1, ways] = -|p|²."""
    embedded = problem.model.features(params, support["x"])
    means = class_means(embedded, one_hot(support["y"], problem.model.classes, embedded))
    squares = sum_over(multiply(means, means), -1)
    return {"w": multiply(swapaxes(means, 1, 2), 2.0), "b": negative(expand_dims(squares, 1))}

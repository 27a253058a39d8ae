"""A network that is pretrained to tell all training classes apart, by single labelled images, without any tasks.

What the baselines of Ravi & Larochelle (2017) start from. Batch norm keeps running averages of its statistics, by which
images of new tasks are normalised, support and query alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.method import Batch, Method, Problem
from tinymaml.methods.metric import check_embeds
from tinymaml.ops import add, mean, multiply
from tinymaml.settings import setting
from tinymaml.transforms import value_and_grad

_KEPT = 0.9  # of the running averages, at every step


@dataclass(frozen=True)
class Labelled(Method):
    """Base of methods that are pretrained so."""

    STREAM: ClassVar[str] = "labelled"

    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)

    def check(self, problem: Problem) -> None:
        """Raises ValueError: the network has no embedding, or there are no classes."""
        check_embeds(self.name, problem)

    def in_training(self) -> Mapping[str, Any]:
        """One batch of images an iteration."""
        return {"meta_batch": 1}

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters with the running statistics of batch norm beside them, and Adam's state."""
        network = problem.model.init(rng, dtype)
        # Means of 0 and variances of 1.
        statistics = [[np.zeros_like(layer["beta"]), np.ones_like(layer["gamma"])] for layer in network["hidden"]]
        return {
            "params": {**network, "statistics": statistics},
            "optimiser": optim.adam(self.learning_rate).init(network),
        }

    def update(self, problem: Problem, state: Tree, batch: Batch) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the cross-entropy of a batch, and of the running averages towards its statistics."""
        before = state["params"]
        collected: list[tuple[Tensor, Tensor]] = []
        figures: dict[str, Any] = {}

        def objective(network: Tree) -> Tensor:
            outputs = problem.model.apply(network, batch["x"], collected=collected)
            figures.update(problem.figures(outputs, batch["y"]))
            return mean(problem.loss(outputs, batch["y"]))

        network = {"hidden": before["hidden"], "head": before["head"]}
        value, gradient = value_and_grad(objective)(network)
        network, optimiser = optim.adam(self.learning_rate).update(gradient, state["optimiser"], network)
        statistics = tree.map(_averaged, before["statistics"], [list(layer) for layer in collected])
        params = {**network, "statistics": statistics}
        return {**state, "params": params, "optimiser": optimiser}, {"loss": value, **figures}


def _averaged(average: Any, new: Tensor) -> Any:
    """The running average after a step."""
    return known(add(multiply(average, _KEPT), multiply(constant(new.data), 1 - _KEPT)))

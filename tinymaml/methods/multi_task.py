"""The mean of many networks, each trained on one task alone (paper, appendix C.1): averaging in parameter space.

What the paper leaves open is taken so: each network starts from fresh random parameters; it takes `steps` steps of Adam
on all examples of its task; the regulariser, where there is one, adds `decay` times half the squared distance from 0,
or from the mean of the networks trained before (from none for the first). The networks of a meta-batch are trained side
by side, so that they share that mean; with a meta-batch of 1 they are trained one after another. Then the mean is
fine-tuned on a new task, with the step size that suits validation tasks best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import constant, known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.gradients import gradient_of
from tinymaml.methods.method import Batch, Problem
from tinymaml.methods.pooled import FineTuned
from tinymaml.ops import add, multiply, subtract
from tinymaml.settings import setting

REGULARISERS = ("none", "l2", "l2-to-mean")


@dataclass(frozen=True)
class MultiTask(FineTuned):
    """A meta-iteration trains a network on each task of a meta-batch, and adds them to the mean."""

    STREAM: ClassVar[str] = "examples"
    VALIDATED: ClassVar[bool] = False
    RECORDED: ClassVar[bool] = False

    steps: int = setting(1_000, "steps of Adam for each task's network")
    learning_rate: float = setting(0.01, "step size of Adam for each task's network", positive=True)
    regulariser: str = setting("none", "what draws each task's network: nothing, 0, or the mean so far", REGULARISERS)
    decay: float = setting(1e-3, "strength of the regulariser", positive=True)

    @property
    def name(self) -> str:
        """As folders call it."""
        return "multi-task" if self.regulariser == "none" else f"multi-task-{self.regulariser}"

    def check(self, problem: Problem) -> None:
        """Raises ValueError: it is to run on a GPU, where steps are recorded whole."""
        if problem.device != "cpu":
            raise ValueError(f"{self.name} trains on the CPU alone: take --device cpu")

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The mean of no network, 0, how many it is of, and the seed of their parameters."""
        params = tree.map(np.zeros_like, problem.model.init(np.random.default_rng(0), dtype))
        seed = rng.integers(0, 2**63, (), np.uint64)
        return {"params": params, "count": np.zeros((), np.int64), "seed": np.asarray(seed)}

    def update(self, problem: Problem, state: Tree, batch: Batch) -> tuple[Tree, dict[str, Any]]:
        """The mean with a network for each task of the meta-batch; the loss is that of these on their tasks."""
        mean, count = state["params"], int(state["count"])
        tasks, dtype = len(tree.leaves(batch["x"])[0]), tree.leaves(mean)[0].dtype
        drawn = [
            problem.model.init(np.random.default_rng([int(state["seed"]), count + t]), dtype) for t in range(tasks)
        ]
        networks = tree.map(lambda *xs: np.concatenate(xs), *drawn)
        optimiser = self._optimiser.init(networks)
        step = problem.replayed("a network's step", lambda *arguments: self._step(problem, *arguments))
        decay = np.asarray(0.0 if self.regulariser == "l2-to-mean" and count == 0 else self.decay, dtype)
        for _ in range(self.steps):
            losses, networks, optimiser = step(networks, optimiser, mean, decay, batch)

        def with_these(x: Any, ys: Any) -> Any:
            total = x.astype(np.float64) * count + np.asarray(ys, np.float64).sum(0, keepdims=True)
            return (total / (count + tasks)).astype(dtype)

        after = {"params": tree.map(with_these, mean, networks), "count": state["count"] + tasks}
        return {**state, **after, "count": np.asarray(after["count"])}, {"loss": np.asarray(losses)}

    @property
    def _optimiser(self) -> optim.Optimiser:
        return optim.adam(self.learning_rate)

    def _step(
        self, problem: Problem, networks: Tree, optimiser: Tree, mean: Tree, decay: Any, batch: Batch
    ) -> tuple[Any, Tree, Tree]:
        """(each network's loss without the regulariser, the networks, the optimiser's state) after a step."""
        losses, gradient = gradient_of(problem, networks, batch, "a network's loss")
        if self.regulariser == "l2":
            gradient = tree.map(lambda g, x: constant(add(g, multiply(x, decay)).data), gradient, networks)
        elif self.regulariser == "l2-to-mean":
            gradient = tree.map(
                lambda g, x, m: constant(add(g, multiply(subtract(x, m), decay)).data), gradient, networks, mean
            )
        return known(losses), *self._optimiser.update(gradient, optimiser, networks)

"""What MAML is compared with (paper, section 5.1): a network pretrained on all tasks, told the task, or untrained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.method import Batch, Method, Problem, repeated
from tinymaml.ops import mean
from tinymaml.settings import setting
from tinymaml.transforms import value_and_grad


@dataclass(frozen=True)
class Pooled(Method):
    """A network trained on the examples of all tasks at once."""

    STREAM: ClassVar[str] = "examples"
    VALIDATED: ClassVar[bool] = False

    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters and Adam's state."""
        params = problem.model.init(rng, dtype)
        return {"params": params, "optimiser": optim.adam(self.learning_rate).init(params)}

    def update(self, problem: Problem, state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the mean loss."""
        value, gradient = value_and_grad(lambda params: mean(problem.objective(params, batch)))(state["params"])
        params, optimiser = optim.adam(self.learning_rate).update(gradient, state["optimiser"], state["params"])
        return {**state, "params": params, "optimiser": optimiser}, {"loss": value}


_SEARCHED = (3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
_TEXT = "step sizes among which fine-tuning finds the best, on validation tasks"


@dataclass(frozen=True)
class FineTuned(Method):
    """Adapts to a new task by gradient steps of the size that suits validation tasks best."""

    finetune_alphas: tuple[float, ...] = setting(_SEARCHED, _TEXT, positive=True, free=True, evaluation=True)

    def candidates(self) -> Mapping[str, Method]:
        """One with each step size of the search alone."""
        return {str(alpha): dataclasses.replace(self, finetune_alphas=(alpha,)) for alpha in self.finetune_alphas}

    @property
    def step_size(self) -> Any:
        """The first of the search."""
        return self.finetune_alphas[0]

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after steps of the first size of the search."""
        return predictions_after(problem, state["params"], self.finetune_alphas[0], support, inputs, steps)


@dataclass(frozen=True)
class Pretrained(FineTuned, Pooled):
    """One network trained on all tasks, then fine-tuned on a new one with the step size that suits it best."""


@dataclass(frozen=True)
class Random(FineTuned):
    """A network that is not trained at all, fine-tuned as `Pretrained` is."""

    VALIDATED: ClassVar[bool] = False

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters."""
        return {"params": problem.model.init(rng, dtype)}

    def update(self, problem: Problem, state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
        """The state as it is, and the loss on the query set."""
        _, query = batch
        return state, {"loss": known(mean(problem.objective(state["params"], query)))}


@dataclass(frozen=True)
class Oracle(Pooled):
    """A network whose inputs tell the task; it does not adapt."""

    INFORMED: ClassVar[bool] = True

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """The same predictions after any number of steps."""
        outputs = problem.replayed(
            "outputs", lambda params, batch, inputs: tree.map(known, problem.answer(params, batch, inputs))
        )
        return tree.map(lambda x: repeated(np.asarray(x), steps), outputs(state["params"], support, inputs))

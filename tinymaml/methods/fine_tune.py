"""Fine-tuning of a network that was pretrained on all training classes: a new head, then steps on all weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.labelled import Labelled
from tinymaml.methods.method import Batch, Problem
from tinymaml.methods.pooled import FineTuned


@dataclass(frozen=True)
class FineTune(FineTuned, Labelled):
    """Full-batch gradient steps on a task's support set, of all weights and a new linear head, with the step size that
    suits validation tasks best; batch norm goes on with the statistics of the pretraining.

    The head starts at 0, so that no label has an advantage by chance.
    """

    VALIDATED: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As folders, tables and the command line call it."""
        return "fine-tune"

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after steps of the first size of the search."""
        model, params = problem.model, state["params"]

        def apply(params: Tree, x: Any, statistics: Any = None) -> Tensor:
            return model.apply(params, x, params["statistics"])

        b = params["head"]["b"]
        head = {"w": np.zeros((1, model.width, model.classes), b.dtype), "b": np.zeros((1, 1, model.classes), b.dtype)}
        return predictions_after(
            dataclasses.replace(problem, model=model._replace(apply=apply)),
            {**params, "head": head},
            np.asarray(self.finetune_alphas[0], b.dtype),
            support,
            inputs,
            steps,
            {"hidden": True, "head": True, "statistics": False},
        )

"""Siamese networks (Koch, Zemel & Salakhutdinov 2015): trained to tell whether two images are of one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.method import Problem
from tinymaml.methods.metric import MetricMethod, cosines, of_nearest, one_hot
from tinymaml.ops import (
    abs,
    add,
    divide,
    expand_dims,
    greater,
    linear,
    multiply,
    negative,
    reshape,
    softplus,
    subtract,
    where,
)
from tinymaml.ops import sum as sum_over
from tinymaml.settings import setting


@dataclass(frozen=True)
class Siamese(MetricMethod):
    """Two images with embeddings h and h' are of one class with the probability sigma(sum_j alpha_j |h_j - h'_j| + b).
    A query is taken for the class of the nearest support image.

    It is trained on all pairs of a query and a support image of each task: those of one class have half of the weight,
    those of two classes the other half.
    """

    nearest: str = setting(
        "trained", "what the nearest image is by: the trained probability, or the cosine", ("trained", "cosine")
    )

    def beside(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
        """The weights alpha, all alike and less than 0, so that nearer images are more alike from the start, and b."""
        width = problem.model.width
        return {"alpha": np.full((1, width, 1), -1 / width, dtype), "bias": np.zeros((1, 1, 1), dtype)}

    def scores(self, params: Tree, queries: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        """Of the nearest image of each class: the logit of the probability, or the cosine."""
        similarity = cosines(queries, support) if self.nearest == "cosine" else logits(params, queries, support)
        return of_nearest(similarity, labels)

    def losses(
        self, problem: Problem, params: Tree, queries: Tensor, support: Tensor, given: Any, wanted: Any
    ) -> tuple[Tensor, Tensor]:
        """(the binary cross-entropy of all pairs, weighted, the scores)."""
        z = logits(params, queries, support)
        labels, targets = (one_hot(y, problem.model.classes, z) for y in (given, wanted))
        same = linear(targets, labels, tb=True)  # 1 or 0, [T, Q, S]
        loss = softplus(where(greater(same, 0.5), negative(z), z))
        different = subtract(1.0, same)
        halves = [divide(sum_over(multiply(loss, kind), (1, 2)), sum_over(kind, (1, 2))) for kind in (same, different)]
        return multiply(add(*halves), 0.5), self.scores(params, queries, support, labels)


def logits(params: Tree, queries: Tensor, support: Tensor) -> Tensor:
    """sum_j alpha_j |h_j - h'_j| + b of every two embeddings: [T, Q, D] and [T, S, D] -> [T, Q, S]."""
    tasks, count, width = queries.shape
    apart = abs(subtract(expand_dims(queries, 2), expand_dims(support, 1)))
    pairs = linear(reshape(apart, (tasks, count * support.shape[1], width)), params["alpha"], params["bias"])
    return reshape(pairs, (tasks, count, support.shape[1]))

"""Prototypical networks (Snell, Swersky & Zemel 2017): a query belongs to the class whose mean embedding is nearest."""

from __future__ import annotations

from dataclasses import dataclass

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.metric import MetricMethod, class_means, squared_distances
from tinymaml.ops import negative


@dataclass(frozen=True)
class Prototypical(MetricMethod):
    """Logits are minus the squared Euclidean distances to the means of the classes' support embeddings."""

    def scores(self, params: Tree, queries: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        """- |q - p_c|², with p_c the prototype of a class."""
        return negative(squared_distances(queries, class_means(support, labels)))

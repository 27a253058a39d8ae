"""Matching networks (Vinyals et al. 2016): attention over the support set by cosine. No full-context embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.method import Problem
from tinymaml.methods.metric import MetricMethod, by_class, cosines
from tinymaml.ops import exp, logsumexp, multiply
from tinymaml.settings import setting


@dataclass(frozen=True)
class Matching(MetricMethod):
    """A class's probability is the attention on its support images: the softmax over all of them of cosines, times a
    temperature, without which cosines, which are at most 1, could not tell classes apart with certainty."""

    temperature: float = setting(100.0, "factor of the cosines", positive=True)
    learn_temperature: bool = setting(False, "learn the factor, from there on; its logarithm is the parameter")

    def beside(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
        """The logarithm of the temperature, if it is learned."""
        if not self.learn_temperature:
            return {}
        return {"log_temperature": np.full((1, 1, 1), np.log(self.temperature), dtype)}

    def scores(self, params: Tree, queries: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        """The logarithm of each class's share of the attention, up to a number the same for all classes of a query: as
        logits their cross-entropy is the negative logarithm of that share."""
        factor: Any = exp(params["log_temperature"]) if self.learn_temperature else self.temperature
        return logsumexp(by_class(multiply(cosines(queries, support), factor), labels), -1)

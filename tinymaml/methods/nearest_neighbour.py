"""Nearest neighbour in the last hidden layer of a network that was pretrained on all training classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.labelled import Labelled
from tinymaml.methods.method import Batch, Problem, repeated
from tinymaml.methods.metric import cosines, of_nearest, one_hot


@dataclass(frozen=True)
class NearestNeighbour(Labelled):
    """A query is taken for the class of the support image with the largest cosine to it."""

    ITERATES: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As folders, tables and the command line call it."""
        return "nearest-neighbour"

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """The largest cosine to an image of each class, the same after any number of steps."""

        def scores(params: Tree, support: Batch, inputs: Tree) -> Tree:
            def embed(x: Tree) -> Tree:
                return problem.model.features(params, x, params["statistics"])

            embedded = embed(support["x"])
            labels = one_hot(support["y"], problem.model.classes, embedded)
            return tree.map(lambda x: known(of_nearest(cosines(embed(x), embedded), labels)), inputs)

        outputs = problem.replayed("scores", scores)(state["params"], dict(support), inputs)
        return tree.map(lambda x: repeated(np.asarray(x), steps), outputs)

"""Methods that compare embeddings: a query image is taken for the class whose support images it is most like.

The network's hidden layers make an embedding of an image, and there is no head. Nothing is adapted to a task, so that
predictions are the same after any number of inner steps, and results hold one figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor, known
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.method import Batch, Episodes, Method, Problem, repeated
from tinymaml.ops import (
    add,
    divide,
    expand_dims,
    greater,
    linear,
    maximum,
    mean,
    multiply,
    sqrt,
    swapaxes,
    take,
    where,
)
from tinymaml.ops import max as largest
from tinymaml.ops import sum as sum_over
from tinymaml.settings import setting
from tinymaml.transforms import value_and_grad

HIDDEN = -1e30  # a score that no image reaches, finite


@dataclass(frozen=True)
class MetricMethod(Method):
    """Base of methods that learn an embedding from episodes, whose shape in training may be another than at test."""

    ITERATES: ClassVar[bool] = False

    train_ways: int | None = setting(None, "ways of the tasks in meta-training (not given: as at test)", least=2)
    train_queries: int | None = setting(None, "query images a class in meta-training (not given: as the domain has it)")
    train_tasks: int | None = setting(None, "tasks a meta-iteration (not given: the meta-batch)")
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)
    half_life: int | None = setting(None, "iterations in which the step size of Adam halves (not given: it stays)")

    def check(self, problem: Problem) -> None:
        """Raises ValueError: the network has no embedding, or there are no classes."""
        check_embeds(self.name, problem)

    def in_training(self) -> Mapping[str, Any]:
        """Episodes of the shape that is learned from."""
        wanted = {"ways": self.train_ways, "query_images": self.train_queries, "meta_batch": self.train_tasks}
        return {name: value for name, value in wanted.items() if value is not None}

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The embedding's parameters, what else is learned beside them, and Adam's state."""
        params = {"hidden": problem.model.init(rng, dtype)["hidden"], **self.beside(problem, rng, dtype)}
        return {"params": params, "optimiser": self._adam.init(params)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the mean loss of a meta-batch's query sets."""
        support, query = batch
        figures: dict[str, Any] = {}

        def objective(params: Tree) -> Tensor:
            s, q = (problem.model.features(params, part["x"]) for part in batch)
            losses, scores = self.losses(problem, params, q, s, support["y"], query["y"])
            figures.update(problem.figures(scores, query["y"]))
            return mean(losses)

        value, gradient = value_and_grad(objective)(state["params"])
        params, optimiser = self._adam.update(gradient, state["optimiser"], state["params"])
        return {**state, "params": params, "optimiser": optimiser}, {"loss": value, **figures}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Scores of classes, the same after any number of steps."""
        outputs = problem.replayed("scores", lambda *arguments: scores_of_queries(problem, self.scores, *arguments))
        return tree.map(lambda x: repeated(np.asarray(x), steps), outputs(state["params"], dict(support), inputs))

    # What a method is made of.

    def beside(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
        """What is learned beside the embedding, by name."""
        return {}

    def scores(self, params: Tree, queries: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        """How well every query fits every class, [T, Q, ways], from embeddings [T, Q, D] and [T, S, D], and the support
        set's labels as vectors [T, S, ways]. They do not depend on the order of the support set."""
        raise NotImplementedError(f"{type(self).__name__} has no scores(params, queries, support, labels)")

    def losses(
        self, problem: Problem, params: Tree, queries: Tensor, support: Tensor, given: Any, wanted: Any
    ) -> tuple[Tensor, Tensor]:
        """(what is descended, [T], the scores), from embeddings, the support set's labels and those of the queries: the
        cross-entropy of the scores, as logits."""
        scores = self.scores(params, queries, support, one_hot(given, problem.model.classes, support))
        return problem.loss(scores, wanted), scores

    @property
    def _adam(self) -> optim.Optimiser:
        rate = self.learning_rate
        return optim.adam(rate if self.half_life is None else optim.exponential(rate, 0.5, self.half_life))


def check_embeds(name: str, problem: Problem) -> None:
    """Raises ValueError: a problem's network has no embedding of which classes are told."""
    if not hasattr(problem.model, "features"):
        raise ValueError(
            f"{name} tells classes apart by an embedding of images: it needs a network with features(params, x) and "
            "classes, such as nn.conv_net"
        )


def scores_of_queries(problem: Problem, scores: Any, params: Tree, support: Batch, inputs: Tree) -> Tree:
    """The scores of query inputs by name, whose embeddings are normalised as the domain has it; without history."""
    model = problem.model
    embedding = model._replace(apply=model.features)
    embedded = embedding.apply(params, support["x"])
    labels = one_hot(support["y"], model.classes, embedded)
    queries = problem.answer_with(embedding, params, support, inputs)
    return tree.map(lambda q: known(scores(params, q, embedded, labels)), queries)


def one_hot(labels: Any, classes: int, like: Tensor) -> Tensor:
    """A vector for every label, 1 at its place: [T, S] -> [T, S, classes]."""
    return take(np.eye(classes, dtype=like.dtype), labels, 0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_n - y_m|² of every two vectors: [T, N, D] and [T, M, D] -> [T, N, M]."""
    of_x, of_y = (sum_over(multiply(z, z), -1, keepdims=True) for z in (x, y))
    return add(linear(multiply(x, -2.0), y, swapaxes(of_y, -1, -2), tb=True), of_x)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """The cosine of the angle between every two vectors: [T, N, D] and [T, M, D] -> [T, N, M]; 0 for vectors of 0."""
    return linear(
        *(divide(z, sqrt(maximum(sum_over(multiply(z, z), -1, keepdims=True), 1e-16))) for z in (x, y)), tb=True
    )


def class_means(embedded: Tensor, labels: Tensor) -> Tensor:
    """The mean embedding of each class's images: [T, S, D] and labels as vectors [T, S, ways] -> [T, ways, D]."""
    counts = expand_dims(sum_over(labels, 1), -1)
    return divide(linear(labels, embedded, ta=True), counts)


def of_nearest(similarity: Tensor, labels: Tensor) -> Tensor:
    """The largest similarity to an image of each class: [T, Q, S], labels as vectors [T, S, ways] -> [T, Q, ways]."""
    return largest(by_class(similarity, labels), -1)


def by_class(similarity: Tensor, labels: Tensor) -> Tensor:
    """Similarities to the images of each class, and `HIDDEN` at those of others: [T, Q, ways, S]."""
    of_class = expand_dims(swapaxes(labels, 1, 2), 1)
    return where(greater(of_class, 0.5), expand_dims(similarity, 2), HIDDEN)

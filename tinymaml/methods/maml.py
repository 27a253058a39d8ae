"""MAML (paper, algorithm 1): a start from which a few inner steps fit a new task. With learned step sizes: Meta-SGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import optim
from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import meta_value_and_grad
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.method import Batch, Episodes, Method, Problem
from tinymaml.settings import setting
from tinymaml.transforms import MODES


@dataclass(frozen=True)
class ThroughInnerSteps(Method):
    """Methods whose outer gradient goes through inner gradient steps."""

    order: int = setting(2, "of the meta-gradient: 1 leaves out the second derivatives", (1, 2))
    steps: int = setting(1, "inner steps in meta-training")
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    learn_alpha: bool = setting(False, "learn a step size for every parameter (Meta-SGD)")
    learning_rate: float = setting(1e-3, "step size of Adam, the outer optimiser", positive=True)
    hvp_mode: str = setting(MODES[0], "how Hessian-vector products are made", MODES)
    records: str = setting(
        "keep", "records of the inner steps: kept, or recomputed to save memory", ("keep", "recompute")
    )
    clip_element: float | None = setting(None, "bound on each element of the meta-gradient", positive=True)
    clip_norm: float | None = setting(None, "bound on the norm of the meta-gradient", positive=True)

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return "learned" if self.learn_alpha else self.alpha

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters, with learned step sizes beside them, and Adam's state."""
        params = problem.model.init(rng, dtype)
        if self.learn_alpha:
            size = self.alpha * problem.inner_scale
            params = {"network": params, "alpha": tree.map(lambda p: np.full_like(p, size), params)}
        return {"params": params, "optimiser": optim.adam(self.learning_rate).init(params)}

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the meta-gradient of a meta-batch."""
        support, query = batch
        outputs: Tensor | None = None  # for the query inputs

        def loss(params: Tree, part: Batch) -> Tensor:
            nonlocal outputs
            result = problem.model.apply(params, part["x"])
            outputs = result if part is query else outputs
            return problem.loss(result, part["y"])

        params = state["params"]
        network, alpha = (params["network"], params["alpha"]) if self.learn_alpha else (params, None)
        value, gradient = meta_value_and_grad(
            loss,
            network,
            support,
            query,
            alpha if self.learn_alpha else self.alpha * problem.inner_scale,
            self.steps,
            order=self.order,
            mode=self.hvp_mode,
            adapted=self._mask(problem, network),
            learn_alpha=self.learn_alpha,
            records=self.records,
            clip_element=self.clip_element,
            clip_norm=self.clip_norm,
        )
        if self.learn_alpha:
            gradient = dict(zip(("network", "alpha"), gradient, strict=True))
        params, optimiser = optim.adam(self.learning_rate).update(gradient, state["optimiser"], params)
        figures = {} if outputs is None else problem.figures(outputs, query["y"])
        return {**state, "params": params, "optimiser": optimiser}, {"loss": value, **figures}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on the support set."""
        params, alpha = state["params"], self.alpha * problem.inner_scale
        if self.learn_alpha:
            params, alpha = params["network"], params["alpha"]
        return predictions_after(problem, params, alpha, support, inputs, steps, self._mask(problem, params))

    def _mask(self, problem: Problem, params: Tree) -> Tree:
        """Which parameters inner steps change; None for all."""
        return None if problem.adapted is None else problem.adapted(params)


@dataclass(frozen=True)
class MAML(ThroughInnerSteps):
    """Model-agnostic meta-learning; `order` 1 is first-order MAML, named fomaml.

    With `learn_alpha` it is Meta-SGD (Li et al. 2017), with `adapted` ("head",) ANIL (Raghu et al. 2020).
    """

    adapted: tuple[str, ...] = setting(
        (), "names of the parts of the network that inner steps change, such as head (not given: as the domain has it)"
    )

    @property
    def name(self) -> str:
        """maml, or fomaml of first order."""
        return "maml" if self.order == 2 else "fomaml"

    def check(self, problem: Problem) -> None:
        """Raises ValueError: the network has no part of a name in `adapted`."""
        if self.adapted:
            parts_of(problem.model.init(np.random.default_rng(0), np.float32), self.adapted)

    def _mask(self, problem: Problem, params: Tree) -> Tree:
        """Which parameters inner steps change; None for all."""
        return parts_of(params, self.adapted) if self.adapted else super()._mask(problem, params)


def parts_of(params: Tree, names: Sequence[str]) -> Tree:
    """Which of a network's parameters belong to parts of these names, as a tree of booleans.

    The last layer of a network that is a list of layers, as that of `nn.mlp` is, is called head.
    Raises ValueError: it has no part of a name.
    """
    leaves, structure = tree.flatten(params)
    paths = [tree.place("params", params, i) for i in range(len(leaves))]

    def belongs(name: str, path: str) -> bool:
        is_last = name == "head" and isinstance(params, list) and path.startswith(f"params[{len(params) - 1}]")
        return is_last or f"['{name}']" in path

    for name in names:
        if not any(belongs(name, path) for path in paths):
            raise ValueError(f"adapted: there is no {name!r} in the network's parameters, which are {', '.join(paths)}")
    return tree.unflatten(structure, [any(belongs(name, path) for name in names) for path in paths])

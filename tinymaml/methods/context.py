"""Adaptation of a context alone: free parameters z that the network is given, while all others stay as they are.

The context vector of the MAML paper (appendix C.2, after Rei 2015), and CAVIA (Zintgraf et al. 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinymaml.autodiff.tensor import Tensor, as_tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods.maml import ThroughInnerSteps
from tinymaml.methods.method import Episodes, Problem
from tinymaml.nn.layers import linear
from tinymaml.ops import add, broadcast_to, concatenate, getitem, matmul, multiply, reshape
from tinymaml.settings import setting


@dataclass(frozen=True)
class ContextVector(ThroughInnerSteps):
    """Inner steps change a context that stands beside each input, or as channels beside each image; its start is
    learned, as the other parameters are."""

    LEARNS_START: ClassVar[bool] = True

    context: int = setting(10, "numbers of the context, which alone inner steps change")
    film_layer: int = setting(
        0,
        "hidden layer, from 1, whose channels the context scales and shifts after batch norm (FiLM), instead of "
        "standing among the inputs (0)",
        least=0,
    )

    @property
    def name(self) -> str:
        """As folders call it."""
        return "context-vector"

    def check(self, problem: Problem) -> None:
        """Raises ValueError: there is no such layer, or no network with more inputs."""
        self._network(problem)

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """As MAML's, with the context among the parameters, which begins at 0."""
        return super().init(self._with_context(problem), rng, dtype)

    def update(self, problem: Problem, state: Tree, batch: Episodes) -> tuple[Tree, dict[str, Any]]:
        """A step of Adam on the meta-gradient of a meta-batch."""
        after, figures = super().update(self._with_context(problem), state, batch)
        if not self.LEARNS_START:
            after = {**after, "params": self._with_start_of(after["params"], state["params"])}
        return after, figures

    def predict(self, problem: Problem, *arguments: Any, **named: Any) -> Tree:
        """Predictions after inner steps of the context on the support set."""
        return super().predict(self._with_context(problem), *arguments, **named)

    def _with_start_of(self, params: Tree, before: Tree) -> Tree:
        """The parameters with the context that inner steps began from before."""
        if self.learn_alpha:
            return {**params, "network": {**params["network"], "context": before["network"]["context"]}}
        return {**params, "context": before["context"]}

    def _with_context(self, problem: Problem) -> Problem:
        """The same problem for a network that has a context, which alone is adapted."""
        return dataclasses.replace(
            problem, model=self._network(problem), adapted=lambda params: {"network": False, "context": True}
        )

    def _network(self, problem: Problem) -> ContextNetwork:
        return _modulated(problem.model, self) if self.film_layer else _beside_inputs(problem, self.context)


@dataclass(frozen=True)
class CAVIA(ContextVector):
    """Inner steps change a context that begins at 0 for every task."""

    LEARNS_START: ClassVar[bool] = False

    context: int = setting(5, "numbers of the context, which alone inner steps change")
    alpha: float = setting(1.0, "step size of the inner steps", positive=True)

    @property
    def name(self) -> str:
        """As folders call it."""
        return "cavia"


class ContextNetwork(NamedTuple):
    """A network whose parameters are {"network": ..., "context": [1, size]}; see `tinymaml.nets.ImageModel`."""

    init: Callable[..., Tree]
    apply: Callable[..., Tensor]
    statistics: Callable[[Tree, Any], Any]


def _beside_inputs(problem: Problem, size: int) -> ContextNetwork:
    """The context stands beside the last axis of the inputs."""
    if problem.wider is None:
        raise ValueError("a context among the inputs needs a problem with wider networks")
    network = problem.wider(size)

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        return {"network": network.init(rng, dtype), "context": np.zeros((1, size), dtype)}

    def joined(context: Any, x: Any) -> Tensor:
        x = as_tensor(x)
        context = as_tensor(context)
        context = reshape(context, (context.shape[0], *(1 for _ in x.shape[1:-1]), size))
        return concatenate([x, broadcast_to(context, (*x.shape[:-1], size))], -1)

    def apply(params: Tree, x: Any, *statistics: Any) -> Tensor:
        return network.apply(params["network"], joined(params["context"], x), *statistics)

    return ContextNetwork(
        init, apply, lambda params, x: network.statistics(params["network"], joined(params["context"], x))
    )


def _modulated(network: Any, method: ContextVector) -> ContextNetwork:
    """The context scales and shifts the channels of a hidden layer after batch norm, by a linear map without bias:
    those of the network alone are kept at a context of 0.

    (1 + s) (gamma x + beta) + t is batch norm with (1 + s) gamma and (1 + s) beta + t.
    """
    layer, size = method.film_layer - 1, method.context
    shapes = network.init(np.random.default_rng(0), np.float32)
    hidden = shapes.get("hidden", ()) if isinstance(shapes, dict) else ()
    if layer >= len(hidden) or "gamma" not in hidden[layer]:
        raise ValueError(
            f"film_layer: there is no hidden layer {method.film_layer} with batch norm in this network, which has "
            f"{sum('gamma' in one for one in hidden)} of them; 0 puts the context among the inputs"
        )
    channels = hidden[layer]["gamma"].shape[-1]
    film = linear(size, 2 * channels, "xavier-uniform")

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        network_params = network.init(rng, dtype)
        params = {"plain": network_params, "film": film.init(rng, dtype)["w"]}
        return {"network": params, "context": np.zeros((1, size), dtype)}

    def modulated(params: Tree) -> Tree:
        plain, context = params["network"]["plain"], as_tensor(params["context"])
        moved = matmul(reshape(context, (context.shape[0], 1, size)), params["network"]["film"])[:, 0]
        scale, shift = add(getitem(moved, np.s_[:, :channels]), 1.0), getitem(moved, np.s_[:, channels:])
        one = plain["hidden"][layer]
        changed = {
            **one,
            "gamma": multiply(scale, one["gamma"]),
            "beta": add(multiply(scale, one["beta"]), shift),
        }
        return {**plain, "hidden": [changed if i == layer else other for i, other in enumerate(plain["hidden"])]}

    def apply(params: Tree, x: Any, *statistics: Any) -> Tensor:
        return network.apply(modulated(params), x, *statistics)

    return ContextNetwork(init, apply, lambda params, x: network.statistics(modulated(params), x))

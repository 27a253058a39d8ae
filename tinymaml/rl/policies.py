"""Stochastic policies as pure functions: a network's outputs are the parameters of a distribution of actions.

Arrays have the axes [T, N, ...]: tasks, and transitions of a task. A distribution is a dict of tensors [T, N, ...].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymaml import nn
from tinymaml.autodiff.tensor import Array, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.ops import (
    add,
    broadcast_to,
    divide,
    exp,
    log_softmax,
    maximum,
    multiply,
    squeeze,
    subtract,
    sum,
    take_along_axis,
)

Distribution = dict[str, Tensor]


class Policy(NamedTuple):
    """A family of distributions of actions given observations.

    init(rng, dtype=float32) -> params
    apply(params, observations [T, N, o]) -> distribution
    log_prob(distribution, actions) -> [T, N]
    divergence(old, new) -> KL(old || new) [T, N]
    fisher(distribution, tangent) -> the Fisher matrix of each distribution, by its parameters, times a tangent
    noise(rng, shape) -> random numbers for `act`, for so many actions
    act(distribution of arrays, noise) -> actions
    """

    init: Callable[..., Tree]
    apply: Callable[[Tree, Any], Distribution]
    log_prob: Callable[[Distribution, Any], Tensor]
    divergence: Callable[[Distribution, Distribution], Tensor]
    fisher: Callable[[Distribution, Distribution], Distribution]
    noise: Callable[[np.random.Generator, tuple[int, ...]], Array]
    act: Callable[[dict[str, Array], Array], Array]


def gaussian(
    observations: int,
    actions: int,
    hidden: Sequence[int] = (100, 100),
    activation: str = "relu",
    log_std: float = 0.0,
    min_std: float = 1e-6,
) -> Policy:
    """Independent normals: the mean is an MLP's output, the log of the standard deviations is a parameter [1, 1, a]
    that does not depend on the state, learned and adapted with the others (paper, appendix A.2).

    Args:
        observations, actions: how many numbers they have.
        log_std: where its logarithm starts.
        min_std: a floor of the standard deviations, > 0.
    """
    lowest = math.log(min_std)
    network = nn.mlp([observations, *hidden, actions], activation, "xavier-uniform")

    def init(rng: np.random.Generator, dtype: Any = np.float32) -> Tree:
        return {"network": network.init(rng, dtype), "log_std": np.full((1, 1, actions), log_std, dtype)}

    def apply(params: Tree, observations: Any) -> Distribution:
        mean = network.apply(params["network"], observations)
        return {"mean": mean, "log_std": broadcast_to(maximum(params["log_std"], lowest), mean.shape)}

    def log_prob(distribution: Distribution, actions: Any) -> Tensor:
        mean, log_std = distribution["mean"], distribution["log_std"]
        z = divide(subtract(actions, mean), exp(log_std))
        return sum(multiply(add(multiply(z, z), add(multiply(log_std, 2.0), math.log(2 * math.pi))), -0.5), axis=2)

    def divergence(old: Distribution, new: Distribution) -> Tensor:
        shift = subtract(old["mean"], new["mean"])
        variances = exp(multiply(old["log_std"], 2.0)), exp(multiply(new["log_std"], 2.0))
        quadratic = divide(add(multiply(shift, shift), subtract(*variances)), multiply(variances[1], 2.0))
        return sum(add(quadratic, subtract(new["log_std"], old["log_std"])), axis=2)

    def fisher(distribution: Distribution, tangent: Distribution) -> Distribution:
        precision = exp(multiply(distribution["log_std"], -2.0))
        return {"mean": multiply(tangent["mean"], precision), "log_std": multiply(tangent["log_std"], 2.0)}

    def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.standard_normal((*shape, actions), np.float32)

    def act(distribution: dict[str, Array], noise: Array) -> Array:
        return distribution["mean"] + np.exp(distribution["log_std"]) * noise

    return Policy(init, apply, log_prob, divergence, fisher, noise, act)


def categorical(
    observations: int, actions: int, hidden: Sequence[int] = (100, 100), activation: str = "relu"
) -> Policy:
    """One of `actions` actions, 0, 1, ...: the logarithms of the probabilities are an MLP's normalised output. Actions
    are arrays of integers [T, N, 1]."""
    network = nn.mlp([observations, *hidden, actions], activation, "xavier-uniform")

    def apply(params: Tree, observations: Any) -> Distribution:
        return {"log_prob": log_softmax(network.apply(params, observations))}

    def log_prob(distribution: Distribution, actions: Any) -> Tensor:
        return squeeze(take_along_axis(distribution["log_prob"], actions, 2), 2)

    def divergence(old: Distribution, new: Distribution) -> Tensor:
        return sum(multiply(exp(old["log_prob"]), subtract(old["log_prob"], new["log_prob"])), axis=2)

    def fisher(distribution: Distribution, tangent: Distribution) -> Distribution:
        # By the logarithms of the probabilities, whose tangents keep the probabilities' sum.
        return {"log_prob": multiply(exp(distribution["log_prob"]), tangent["log_prob"])}

    def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.random((*shape, 1), np.float32)

    def act(distribution: dict[str, Array], noise: Array) -> Array:
        below = np.cumsum(np.exp(distribution["log_prob"]), axis=2) <= noise
        return np.minimum(below.sum(2, keepdims=True), actions - 1)

    return Policy(network.init, apply, log_prob, divergence, fisher, noise, act)

"""The losses of algorithm 3, one number a task; a batch is what `rollouts.batch_of` makes."""

from __future__ import annotations

from typing import Any

from tinymaml.autodiff.tensor import Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.arguments import Loss
from tinymaml.ops import exp, maximum, minimum, multiply, negative, subtract, sum
from tinymaml.rl.policies import Distribution, Policy

Batch = dict[str, Any]


def _weighted(x: Tensor, batch: Batch) -> Tensor:
    """The mean over each task's transitions [T]."""
    return sum(multiply(x, batch["weights"]), axis=1)


def reinforce(policy: Policy) -> Loss:
    """-mean(log pi(a|s) A): its gradient is the policy gradient (paper, equation 4; Williams 1992)."""

    def loss(params: Tree, batch: Batch) -> Tensor:
        log_prob = policy.log_prob(policy.apply(params, batch["observations"]), batch["actions"])
        return negative(_weighted(multiply(log_prob, batch["advantages"]), batch))

    return loss


def surrogate(policy: Policy, clip: float | None = None) -> Loss:
    """-mean(ratio A), with the ratio of the probabilities of the actions to those they were sampled with,
    batch["log_prob"] [T, N] (Schulman et al. 2015); clipped to 1 - clip ... 1 + clip where that is the worse one, if
    clip is given (Schulman et al. 2017)."""

    def loss(params: Tree, batch: Batch) -> Tensor:
        log_prob = policy.log_prob(policy.apply(params, batch["observations"]), batch["actions"])
        ratio = exp(subtract(log_prob, batch["log_prob"]))
        gain = multiply(ratio, batch["advantages"])
        if clip is not None:
            bounded = maximum(minimum(ratio, 1 + clip), 1 - clip)
            gain = minimum(gain, multiply(bounded, batch["advantages"]))
        return negative(_weighted(gain, batch))

    return loss


def divergence(policy: Policy) -> Loss:
    """Each task's part of the mean over all transitions of KL(old || new), [T]: the old distributions are in
    batch["old"]."""

    def loss(params: Tree, batch: Batch) -> Tensor:
        old: Distribution = batch["old"]
        kl = policy.divergence(old, policy.apply(params, batch["observations"]))
        return multiply(_weighted(kl, batch), batch["shares"])

    return loss

"""Advantages of actions: a linear baseline of the returns, and generalised advantage estimates."""

from __future__ import annotations

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.meta.finite import NonFiniteError
from tinymaml.rl.rollouts import Rollouts

RIDGE = 1e-5
_TRIES = 5


def discounted(rewards: Array, ends: Array, factor: float) -> Array:
    """Discounted sums up to the episode's end: x_t + factor x_{t+1} + ... along the last axis."""
    sums = np.empty(rewards.shape)
    after = np.zeros(rewards.shape[:-1])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        after = rewards[..., t] + factor * np.where(ends[..., t], 0.0, after)
        sums[..., t] = after
    return sums


def features(observations: Array, times: Array) -> Array:
    """The features of the linear baseline (Duan et al. 2016): float64[N, 2 o + 4] from observations [N, o] and
    times [N]."""
    seen, clock = np.clip(observations.astype(np.float64), -10, 10), times[:, None] / 100.0
    return np.concatenate([seen, seen**2, clock, clock**2, clock**3, np.ones_like(clock)], 1)


def fitted(x: Array, y: Array) -> Array:
    """Ridge regression of y on the features x [N, F]: the predictions at x. The ridge is small; larger where that gives
    no finite coefficients."""
    gram, moments, ridge = x.T @ x, x.T @ y, RIDGE
    for _ in range(_TRIES):
        try:
            coefficients = np.linalg.solve(gram + ridge * np.eye(len(gram)), moments)
        except np.linalg.LinAlgError:
            coefficients = np.array([np.nan])
        if np.isfinite(coefficients).all():
            return x @ coefficients
        ridge *= 10
    raise NonFiniteError("the baseline cannot be fitted: the returns or the observations are not finite")


def advantages(rollouts: Rollouts, discount: float, gae: float) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016) [T, R, L], for each task standardised over its
    transitions; 0 where not valid.

    The baseline is fitted for each task to the returns of these rollouts. The value after an episode's last step is 0.
    """
    valid, ends = rollouts.valid, rollouts.ends
    rewards = np.where(valid, rollouts.rewards, 0.0)
    returns = discounted(rewards, ends, discount)
    estimates = np.zeros(valid.shape)
    for t in range(len(valid)):
        chosen = valid[t]
        values = np.zeros(chosen.shape)
        values[chosen] = fitted(
            features(rollouts.observations[t][chosen], rollouts.times[t][chosen]), returns[t][chosen]
        )
        following = np.zeros_like(values)
        following[:, :-1] = np.where(ends[t][:, :-1], 0.0, values[:, 1:])
        estimates[t] = discounted(rewards[t] + discount * following - values, ends[t], discount * gae)
        of_task = estimates[t][chosen]
        estimates[t][chosen] = (of_task - of_task.mean()) / (of_task.std() + 1e-8)
        estimates[t][~chosen] = 0
    return estimates

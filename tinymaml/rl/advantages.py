"""How much better than expected an action turned out: a linear baseline, and generalised advantage estimates."""

from __future__ import annotations

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.meta.finite import NonFiniteError
from tinymaml.rl.rollouts import Rollouts

RIDGE = 1e-5
_TRIES = 5


def discounted(rewards: Array, ends: Array, factor: float) -> Array:
    """Sums of what comes, discounted, up to the episode's end: x_t + factor x_{t+1} + ... along the last axis."""
    found = np.empty(rewards.shape)
    after = np.zeros(rewards.shape[:-1])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        after = rewards[..., t] + factor * np.where(ends[..., t], 0.0, after)
        found[..., t] = after
    return found


def features(observations: Array, times: Array) -> Array:
    """What the baseline is linear in (Duan et al. 2016): float64[N, 2 o + 4] from observations [N, o] and times [N]."""
    seen, clock = np.clip(observations.astype(np.float64), -10, 10), times[:, None] / 100.0
    return np.concatenate([seen, seen**2, clock, clock**2, clock**3, np.ones_like(clock)], 1)


def fitted(x: Array, y: Array) -> Array:
    """The least squares' values of y at the features x [N, F] they are fitted to, with a small ridge; a larger one
    where that gives no finite coefficients."""
    gram, right, ridge = x.T @ x, x.T @ y, RIDGE
    for _ in range(_TRIES):
        try:
            coefficients = np.linalg.solve(gram + ridge * np.eye(len(gram)), right)
        except np.linalg.LinAlgError:
            coefficients = np.array([np.nan])
        if np.isfinite(coefficients).all():
            return x @ coefficients
        ridge *= 10
    raise NonFiniteError("the baseline cannot be fitted: the returns or the observations are not finite")


def advantages(rollouts: Rollouts, discount: float, gae: float) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016) [T, R, L], for each task standardised over its
    transitions; 0 where not valid.

    The baseline is fitted for each task to the very returns. The value after an episode's last step is 0.
    """
    valid, ends = rollouts.valid, rollouts.ends
    rewards = np.where(valid, rollouts.rewards, 0.0)
    returns = discounted(rewards, ends, discount)
    found = np.zeros(valid.shape)
    for t in range(len(valid)):
        chosen = valid[t]
        values = np.zeros(chosen.shape)
        values[chosen] = fitted(
            features(rollouts.observations[t][chosen], rollouts.times[t][chosen]), returns[t][chosen]
        )
        following = np.zeros_like(values)
        following[:, :-1] = np.where(ends[t][:, :-1], 0.0, values[:, 1:])
        found[t] = discounted(rewards[t] + discount * following - values, ends[t], discount * gae)
        own = found[t][chosen]
        found[t][chosen] = (own - own.mean()) / (own.std() + 1e-8)
        found[t][~chosen] = 0
    return found

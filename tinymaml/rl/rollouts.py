"""What a policy saw, did and got, and how learning reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Array


class Rollouts(NamedTuple):
    """Whole episodes of every task, of R simulations a task and L steps at most: episode after episode until a
    simulation has as many transitions as the horizon has steps.

    What is not `valid` is padding. `ends` marks the last step of an episode, `times` counts the steps of one.
    """

    observations: Array  # [T, R, L, o]
    actions: Array  # [T, R, L, a]
    rewards: Array  # [T, R, L]
    ends: Array  # bool[T, R, L]
    valid: Array  # bool[T, R, L]
    times: Array  # int[T, R, L]
    unstable: int  # episodes that ended because the physics ceased to be finite

    def returns(self) -> Array:
        """The mean return of each task's episodes [T], not discounted."""
        gained = np.where(self.valid, self.rewards, 0.0).sum((1, 2), dtype=np.float64)
        return gained / self.episodes()

    def arrays(self) -> dict[str, Any]:
        """All but the last field."""
        return {name: getattr(self, name) for name in self._fields if name != "unstable"}

    def select(self, tasks: slice = slice(None), steps: int | None = None) -> Rollouts:
        """Views of the rollouts of some tasks, and of their first steps."""
        return self._replace(**{name: x[tasks, :, :steps] for name, x in self.arrays().items()})

    def pooled(self) -> Rollouts:
        """The rollouts of all tasks as those of one."""
        return self._replace(**{name: x.reshape(1, -1, *x.shape[2:]) for name, x in self.arrays().items()})

    def episodes(self) -> Array:
        """How many each task has [T]."""
        return (self.ends & self.valid).sum((1, 2))

    def transitions(self) -> Array:
        """How many each task has [T]."""
        return self.valid.sum((1, 2))


def allocate(
    tasks: int, simulations: int, horizon: int, observations: int, actions: int, discrete: bool, dtype: Any
) -> Rollouts:
    """Zeros, with room for as many steps as there can be: a simulation that lacks a single one begins a last episode.

    Args:
        observations, actions: how many numbers they have.
        discrete: actions are whole numbers, one each.
        dtype: of observations and actions.
    """
    shape = (tasks, simulations, 2 * horizon - 1)
    return Rollouts(
        observations=np.zeros((*shape, observations), dtype),
        actions=np.zeros((*shape, 1), np.int64) if discrete else np.zeros((*shape, actions), dtype),
        rewards=np.zeros(shape),
        ends=np.zeros(shape, bool),
        valid=np.zeros(shape, bool),
        times=np.zeros(shape, np.int64),
        unstable=0,
    )


_PARTS = 4  # a batch with padding has a multiple of R H / 4 transitions a task, so that there are few shapes


def batch_of(rollouts: Rollouts, advantages: Array, horizon: int, dtype: Any = np.float32) -> dict[str, Array]:
    """What the losses read: transitions one after the other, without what is not valid.

    Returns:
        observations [T, N, o], actions [T, N, a], advantages [T, N]; weights [T, N], of which each task's sum is 1 (0
        for padding); shares [T], of the tasks in all transitions.
    """
    tasks, simulations, length = rollouts.valid.shape
    counts = rollouts.transitions()
    arrays = (rollouts.observations, rollouts.actions, advantages)
    if rollouts.valid.all():
        flat = [np.ascontiguousarray(x).reshape(tasks, simulations * length, *x.shape[3:]) for x in arrays]
        weights = np.full((tasks, simulations * length), 1 / (simulations * length))
    else:
        block = -(-simulations * horizon // _PARTS)
        most = -(-int(counts.max()) // block) * block
        flat = [np.zeros((tasks, most, *x.shape[3:]), x.dtype) for x in arrays]
        weights = np.zeros((tasks, most))
        for t in range(tasks):
            chosen = rollouts.valid[t]
            for compact, x in zip(flat, arrays, strict=True):
                compact[t, : counts[t]] = x[t][chosen]
            weights[t, : counts[t]] = 1 / counts[t]
    observations, actions, advantages = flat
    return {
        "observations": observations.astype(dtype, copy=False),
        "actions": actions if actions.dtype.kind == "i" else actions.astype(dtype, copy=False),
        "advantages": advantages.astype(dtype),
        "weights": weights.astype(dtype),
        "shares": (counts / counts.sum()).astype(dtype),
    }


def pad_to_longest(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The batches with as many transitions as the longest has: the shorter ones with padding, which weighs nothing."""
    longest = max(batch["weights"].shape[1] for batch in batches)

    def padded(x: Array) -> Array:
        missing = longest - x.shape[1] if x.ndim > 1 else 0
        return np.pad(x, [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)]) if missing else x

    return [tree.map(padded, batch) for batch in batches]


def subsample(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """About that share of a batch's transitions, evenly spaced; their weights again sum to 1."""
    every = max(1, round(1 / share))
    if every == 1:
        return batch
    chosen = tree.map(lambda x: np.ascontiguousarray(x[:, ::every]) if x.ndim > 1 else x, batch)
    weights = chosen["weights"]
    return chosen | {"weights": weights / weights.sum(1, keepdims=True, dtype=weights.dtype)}

"""Policies and batches of random numbers, for the tests of reinforcement learning."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml import tree
from tinymaml.rl import policies
from tinymaml.rl.objectives import Batch
from tinymaml.rl.policies import Policy

TASKS, OBSERVATIONS = 3, 4


def policy_of(kind: str) -> Policy:
    if kind == "gaussian":
        return policies.gaussian(OBSERVATIONS, 2, (5, 5), "tanh")
    return policies.categorical(OBSERVATIONS, 3, (5, 5), "tanh")


def parameters(policy: Policy, rng: np.random.Generator, dtype: Any = np.float64) -> Any:
    """None of them is where they start, log-std's 0 for one."""
    return tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(dtype), policy.init(rng, dtype))


def batch(kind: str, rng: np.random.Generator, count: int = 7) -> Batch:
    """Transitions of every task, of which the weights and shares are uneven."""
    weights, shares = rng.random((TASKS, count)), rng.random(TASKS)
    shape = (TASKS, count)
    return {
        "observations": rng.standard_normal((*shape, OBSERVATIONS)),
        "actions": rng.standard_normal((*shape, 2)) if kind == "gaussian" else rng.integers(0, 3, (*shape, 1)),
        "advantages": rng.standard_normal(shape),
        "weights": weights / weights.sum(1, keepdims=True),
        "shares": shares / shares.sum(),
    }


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    """Leaves that differ by no more than that much of the largest."""
    pairs = list(zip(tree.leaves(one), tree.leaves(other), strict=True))
    scale = max(float(np.abs(b).max()) for _, b in pairs)
    assert max(float(np.abs(a - b).max()) for a, b in pairs) <= tolerance * scale

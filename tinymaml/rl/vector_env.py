"""Environments to sample from, as a `gymnasium.vector.VectorEnv` with a goal for each of its lanes.

The package's own run in lockstep. Any other environment of Gymnasium's runs one by one, through `gymnasium.make_vec`:
a method `sample_tasks(rng, n) -> [n, g]` and the option "goal" of its `reset` make tasks of it; one without is a task.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.tasks.extras import require

require("gymnasium", "rl")

import gymnasium  # noqa: E402
from gymnasium.spaces import Box, Discrete  # noqa: E402
from gymnasium.vector import AutoresetMode, VectorEnv  # noqa: E402

from tinymaml.tasks import environments  # noqa: E402
from tinymaml.tasks.vector_env import GoalVectorEnv  # noqa: E402


def make(name: str, count: int, horizon: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`count` simulations of the environment of that name, whose episodes end after `horizon` steps at the latest.

    Actions are in units of their bounds and clipped, for all of them; goals are given to `reset`, [count, g].

    Raises:
        ValueError: an unknown name, counts < 1, spaces other than a Box for observations, and a bounded Box or Discrete
            for actions.
    """
    for what, value in (("simulations", count), ("horizon", horizon)):
        if value < 1:
            raise ValueError(f"{what}: expected at least 1, got {value}")
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ValueError(f"environment: Gymnasium has none of the name {name!r}: {error}") from error
    if name in environments.NAMES:
        return gymnasium.make_vec(
            name, count, vectorization_mode="vector_entry_point", max_episode_steps=horizon, **options
        )
    return _OneByOne(name, count, horizon, options)


def sample_goals(name: str, rng: Any, n: int, **options: Any) -> Array:
    """Goals of n tasks, [n, g]; g is 0 for an environment that has no tasks."""
    env = make_single(name, **options)
    try:
        sample = getattr(env.unwrapped, "sample_tasks", None)
        return np.zeros((n, 0)) if sample is None else np.asarray(sample(rng, n), np.float64).reshape(n, -1)
    finally:
        env.close()


def make_single(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment, as Gymnasium makes it."""
    return gymnasium.make(name, **options)


def sizes(env: VectorEnv[Any, Any, Any]) -> tuple[int, int, bool]:
    """How many numbers an observation has, how many an action (or how many actions there are), and whether actions are
    numbered."""
    seen, acted = env.single_observation_space, env.single_action_space
    observations = math.prod(seen.shape or ())
    if isinstance(acted, Discrete):
        return observations, int(acted.n), True
    return observations, math.prod(acted.shape or ()), False


class _Task(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Begins every episode with the goal that it was given."""

    goal: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.goal is not None:
            options = {**(options or {}), "goal": self.goal}
        return self.env.reset(seed=seed, options=options)


def _unit_actions(env: gymnasium.Env[Any, Any]) -> gymnasium.Wrapper[Any, Any, Any, Any]:
    """Actions in units of their bounds, clipped to them; those that are numbered stay."""
    if isinstance(env.action_space, Discrete):
        return gymnasium.Wrapper(env)
    one: Any = np.ones(env.action_space.shape or (), env.action_space.dtype)
    return gymnasium.wrappers.ClipAction(gymnasium.wrappers.RescaleAction(env, -one, one))


class _OneByOne(gymnasium.vector.VectorWrapper):
    """Any environment."""

    def __init__(self, name: str, count: int, horizon: int, options: dict[str, Any]) -> None:
        single = make_single(name, **options)
        _check_spaces(name, single)
        single.close()
        env = gymnasium.make_vec(
            name,
            count,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            wrappers=[_unit_actions, _Task],
            max_episode_steps=horizon,
            **options,
        )
        super().__init__(env)
        self._lanes: Any = env

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        goals = np.asarray((options or {}).get("goal", np.zeros((self.num_envs, 0))))
        if goals.shape[1]:
            self._lanes.set_attr("goal", list(goals))
        return self.env.reset(seed=seed)


def _check_spaces(name: str, env: gymnasium.Env[Any, Any]) -> None:
    seen, acted = env.observation_space, env.action_space
    if not isinstance(seen, Box):
        raise ValueError(f"{name}: observations must be a Box, got {seen}: wrap it in gymnasium.wrappers, for instance")
    bounded = isinstance(acted, Box) and len(acted.shape) == 1 and np.isfinite([acted.low, acted.high]).all()
    if not bounded and not (isinstance(acted, Discrete) and acted.start == 0):
        raise ValueError(f"{name}: actions must be a bounded Box [a], or Discrete from 0, got {acted}")


def together(env: VectorEnv[Any, Any, Any]) -> int:
    """How many simulations like those of `env` are fastest when they take their steps together."""
    own = env.unwrapped
    return own.together if isinstance(own, GoalVectorEnv) else GoalVectorEnv.together


def finish(env: VectorEnv[Any, Any, Any]) -> None:
    """No new episodes are asked for; those of other environments than ours begin all the same."""
    own = env.unwrapped
    if isinstance(own, GoalVectorEnv):
        own.finishing[:] = True

"""Many simulations of one environment, stepped in one call: a `gymnasium.vector.VectorEnv` with goals."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.tasks.extras import require
from tinymaml.tasks.goals import Array, Goals

require("gymnasium", "rl")

import gymnasium  # noqa: E402
from gymnasium.vector import AutoresetMode, VectorEnv  # noqa: E402

Rows = slice | Array  # of arrays of all simulations: all of them, or the indices of some


class GoalVectorEnv(VectorEnv[Array, Array, Array]):
    """Simulations that take their steps together. What each of them does is, to the bit, what the ordinary environment
    does that is seeded as it is, whatever the others do.

    An episode that ends begins anew in the same step (`AutoresetMode.SAME_STEP`): its last observation is in
    info["final_obs"]. Simulations that are not `active` rest: they stay where they are, with reward 0. Those in their
    `last_episode` rest once it has ended.

    Args:
        goals: whose goals they have.
        num_envs: how many simulations, n.
        max_episode_steps: after which an episode is truncated.

    Raises:
        ValueError: one of them is < 1.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  # as Gymnasium has it
    preferred_num_envs = 1000  # is fastest: a step costs Python as much for few simulations as for many

    def __init__(
        self,
        goals: Goals,
        num_envs: int,
        max_episode_steps: int,
        observations: gymnasium.spaces.Box,
        actions: gymnasium.spaces.Box,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.goals, self.num_envs, self.max_episode_steps = goals, num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = observations, actions
        self.observation_space = gymnasium.vector.utils.batch_space(observations, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(actions, num_envs)
        self.active, self.last_episode = np.ones(num_envs, bool), np.zeros(num_envs, bool)
        self.goal = np.zeros((num_envs, self.goals.size))
        self._steps = np.zeros(num_envs, np.int64)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._seen = np.zeros((num_envs, *observations.shape))
        self._begun = False
        self._action_shape: tuple[int, ...] = actions.shape

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes everywhere.

        Args:
            seed: of the first simulation, the next one has the next seed; or one for each.
            options: {"goal": one for all, or one for each [n, size]}; without, goals stay, and are drawn at first.

        Returns:
            observations [n, o], and {"goal": [n, size]}.
        """
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        if seed is not None:
            if len(seed) != self.num_envs:
                raise ValueError(f"seed: expected one, or {self.num_envs}, got {len(seed)}")
            for i, value in enumerate(seed):
                if value is not None:
                    self._generators[i] = generator(value)
        goal = (options or {}).get("goal")
        if goal is not None:
            self.goal = self._goals(goal)
        elif not self._begun:
            self.goal = np.concatenate([self.goals.sample(g, 1) for g in self._generators])
        self._begun = True
        self.active[:], self.last_episode[:] = True, False
        self._steps[:] = 0
        self._begin_episodes(np.arange(self.num_envs), self._generators)
        self._seen = self._observe(slice(None))
        return self._seen.copy(), {"goal": self.goal.copy()}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Advance the active simulations.

        Args:
            actions: [n, a], in units of the action's bound; they are clipped to it.

        Returns:
            observations [n, o], rewards [n], terminated [n], truncated [n], info, with "unstable" [n]: physics that
            ceased to be finite, which ended the episode.

        Raises:
            ValueError: actions of another shape, or not finite.
        """
        if not self._begun:
            raise gymnasium.error.ResetNeeded("reset the environment before its first step")
        actions = checked_actions(actions, (self.num_envs, *self._action_shape))
        rows: Rows = slice(None) if self.active.all() else np.flatnonzero(self.active)
        seen, rewards, terminated, unstable = self._advance(actions[rows], rows)
        if not isinstance(rows, slice):
            nothing = np.zeros(self.num_envs)
            rewards, terminated, unstable = (_scattered(nothing, rows, x) for x in (rewards, terminated, unstable))
            seen = _scattered(self._seen, rows, seen)
        self._seen = seen
        self._steps[rows] += 1
        truncated = self.active & (self._steps >= self.max_episode_steps) & ~terminated
        info: dict[str, Any] = {"unstable": unstable}
        ends = terminated | truncated
        over = np.flatnonzero(ends)
        if len(over):
            info |= {"final_obs": self._seen.copy(), "_final_obs": ends}
            self._steps[over] = 0
            self.active[over] = ~self.last_episode[over]
            over = over[self.active[over]]
        if len(over):
            self._begin_episodes(over, [self._generators[i] for i in over])
            self._seen[over] = self._observe(over)
        return self._seen.copy(), rewards, terminated, truncated, info

    def _goals(self, goal: Any) -> Array:
        """One for each."""
        if np.ndim(goal) == 2:
            if len(goal) != self.num_envs:
                raise ValueError(f"goal: expected one, or {self.num_envs}, got {len(goal)}")
            return np.array([self.goals.checked(row) for row in goal])
        return np.repeat(self.goals.checked(goal)[None], self.num_envs, 0)

    def _begin_episodes(self, ids: Array, generators: list[np.random.Generator]) -> None:
        """Begin new episodes in the simulations `ids`, with what their generators draw."""
        raise NotImplementedError

    def _advance(self, actions: Array, rows: Rows) -> tuple[Array, Array, Array, Array]:
        """Step those simulations with their actions: returns their observations, rewards, terminated, unstable."""
        raise NotImplementedError

    def _observe(self, rows: Rows) -> Array:
        """The observations of those simulations."""
        raise NotImplementedError


def _scattered(rest: Array, rows: Array, values: Array) -> Array:
    """The values in those rows, in the others what simulations have that rest."""
    result = rest.astype(values.dtype)
    result[rows] = values
    return result


def generator(seed: int) -> np.random.Generator:
    """The generator that `gymnasium.Env.reset(seed=...)` makes."""
    return gymnasium.utils.seeding.np_random(seed)[0]


def checked_actions(actions: Any, shape: tuple[int, ...]) -> Array:
    """Actions clipped to [-1, 1]. Raises ValueError if they have another shape, or are not finite."""
    actions = np.asarray(actions, np.float64)
    if actions.shape != shape:
        raise ValueError(f"action: expected an array of shape {shape}, got {actions.shape}")
    if not np.isfinite(actions).all():
        raise ValueError("action: not finite; has the policy diverged?")
    return np.clip(actions, -1.0, 1.0)

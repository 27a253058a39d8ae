"""2-D navigation: a point is to reach a goal, which it is not told (paper, section 5.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.tasks.extras import require
from tinymaml.tasks.goals import Array, next_goal, within
from tinymaml.tasks.vector_env import GoalVectorEnv, Rows, checked_actions

require("gymnasium", "rl")

import gymnasium  # noqa: E402

GOALS = within(-0.5, 0.5, 2)
HORIZON = 100
STEP = 0.1  # how far the point can go in each coordinate in a step: the unit of actions
NEAR = 0.01  # an episode ends when both coordinates are nearer to the goal's

REWARDS = ("distance", "squared-distance")

_IMAGE = 240  # pixels of a side
_SHOWN = 0.7  # coordinate at the border of the image


class NavigationEnv(gymnasium.Env[Array, Array]):
    """A point in the plane, at the origin at first; the goal is in [-.5, .5] x [-.5, .5].

    observation: the point's position [2]. action: how to move [2], in units of .1, clipped to [-1, 1].
    reward: minus the distance to the goal (the authors' code), or its square (the paper's text).
    The episode terminates within .01 of the goal in both coordinates; it is truncated after 100 steps when made by its
    name, tinymaml/Navigation-v0.

    Args:
        reward: one of `REWARDS`.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it
    goals = GOALS

    def __init__(self, reward: str = REWARDS[0], render_mode: str | None = None) -> None:
        _check_reward(reward)
        self.reward_name, self.render_mode = reward, render_mode
        self.observation_space, self.action_space = _spaces()
        self.goal: Array | None = None
        self._position: Array | None = None

    def sample_tasks(self, rng: Any, n: int) -> Array:
        """Goals [n, 2]."""
        return self.goals.sample(rng, n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Back to the origin. options: {"goal": [2]}; without it the goal stays, and is drawn at first."""
        super().reset(seed=seed)
        self.goal = next_goal(self.goals, self.goal, options, self.np_random)
        self._position = np.zeros(2)
        return self._position.copy(), {"goal": self.goal.copy()}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Raises ValueError for an action of another shape than [2], or one that is not finite."""
        if self._position is None or self.goal is None:
            raise gymnasium.error.ResetNeeded("reset the environment before its first step")
        action = checked_actions(action, (2,))
        position, reward, done = _move(self._position[None], action[None], self.goal[None], self.reward_name)
        self._position = position[0]
        return self._position.copy(), float(reward[0]), bool(done[0]), False, {"goal": self.goal.copy()}

    def render(self) -> Any:
        """The plane [240, 240, 3]: the goal in green, the point in blue."""
        if self.render_mode != "rgb_array" or self._position is None or self.goal is None:
            return None
        return _picture(self._position, self.goal)


class NavigationVectorEnv(GoalVectorEnv):
    """Many points at once, see `NavigationEnv`."""

    def __init__(self, num_envs: int, max_episode_steps: int = HORIZON, reward: str = REWARDS[0]) -> None:
        _check_reward(reward)
        super().__init__(GOALS, num_envs, max_episode_steps, *_spaces())
        self.reward_name = reward
        self._position = np.zeros((num_envs, 2))

    def _begin_episodes(self, ids: Array, generators: list[np.random.Generator]) -> None:
        self._position[ids] = 0

    def _advance(self, actions: Array, rows: Rows) -> tuple[Array, Array, Array, Array]:
        moved, rewards, done = _move(self._position[rows], actions, self.goal[rows], self.reward_name)
        self._position[rows] = moved
        return moved, rewards, done, np.zeros(len(moved), bool)

    def _observe(self, rows: Rows) -> Array:
        return self._position[rows].copy()


def _spaces() -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Of observations and actions."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64), gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


def _check_reward(reward: str) -> None:
    if reward not in REWARDS:
        raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {reward!r}")


def _move(position: Array, actions: Array, goal: Array, reward: str) -> tuple[Array, Array, Array]:
    """Positions [n, 2] after a step, rewards [n], and whether the goal is reached [n]."""
    position = position + STEP * actions
    away = position - goal
    squared = away[:, 0] ** 2 + away[:, 1] ** 2
    return position, -np.sqrt(squared) if reward == "distance" else -squared, (np.abs(away) < NEAR).all(1)


def _picture(position: Array, goal: Array) -> Any:
    image = np.full((_IMAGE, _IMAGE, 3), 255, np.uint8)
    rows, columns = np.mgrid[:_IMAGE, :_IMAGE]
    x = (columns + 0.5) / _IMAGE * 2 * _SHOWN - _SHOWN
    y = _SHOWN - (rows + 0.5) / _IMAGE * 2 * _SHOWN
    image[np.maximum(np.abs(x), np.abs(y)) > 0.5] = (240, 240, 240)  # where no goal is
    for (px, py), radius, colour in ((goal, 0.03, (0, 158, 115)), (position, 0.02, (0, 114, 178))):
        image[(x - px) ** 2 + (y - py) ** 2 < radius**2] = colour
    return image

"""Environments as users write them, for the tests of reinforcement learning: registered when this is imported."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Pole(gymnasium.Env[Any, Any]):
    """A pole to be balanced by pushes to the left and to the right; the goal is how heavy they are. Episodes end early,
    and begin at random."""

    def __init__(self, discrete: bool = True, limit: float = 2.0) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Discrete(2) if discrete else Box(-limit, limit, (1,), np.float32)
        self.strength, self.state, self.pushes = 1.0, np.zeros(2), []

    def sample_tasks(self, rng: Any, n: int) -> Any:
        return rng.uniform(0.5, 1.5, (n, 1))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.strength = float(np.asarray((options or {}).get("goal", 1.0)).item())
        self.state = self.np_random.uniform(-0.2, 0.2, 2)
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        push = (2 * action - 1) if isinstance(self.action_space, Discrete) else float(action[0])
        self.pushes.append(push)
        angle, speed = self.state
        speed += 0.2 * (np.sin(angle) + self.strength * push)
        angle += 0.2 * speed
        self.state = np.array([angle, speed])
        return self.state.astype(np.float32), 1.0, bool(abs(angle) > 0.5), False, {}


class Still(gymnasium.Env[Any, Any]):
    """One without tasks, with spaces of one's choice."""

    def __init__(self, seen: Any = None, acted: Any = None) -> None:
        self.observation_space = Box(-1, 1, (3,), np.float64) if seen is None else seen
        self.action_space = Box(-1, 1, (2,), np.float64) if acted is None else acted

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3), 0.0, False, False, {}


class Target(gymnasium.Env[Any, Any]):
    """A point on a line that is to stand on the goal, an element of a goal space."""

    def __init__(self, goal_space: Any = None) -> None:
        self.observation_space, self.action_space = Box(-np.inf, np.inf, (1,), np.float64), Box(-1, 1, (1,), np.float64)
        self.goal_space = Box(-2, 2, (1, 2), np.float32) if goal_space is None else goal_space
        self.goal: Any = None
        self.received: list[Any] = []
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.goal = {**(options or {})}["goal"]
        self.received.append(self.goal)
        self.position = 0.0
        return np.array([self.position]), {}

    def step(self, action: Any) -> Any:
        self.position += float(action[0])
        return np.array([self.position]), -abs(self.position - float(np.sum(self.goal))), False, False, {}


class Deaf(Still):
    """One that has tasks and does not read which one it is to be."""

    goal_space = Discrete(4)


class Crooked(Still):
    """One whose tasks have the wrong shape."""

    def sample_tasks(self, rng: Any, n: int) -> Any:
        return rng.uniform(size=n)


if "tests/Pole-v0" not in gymnasium.registry:
    gymnasium.register("tests/Pole-v0", entry_point=Pole, max_episode_steps=500)
    gymnasium.register("tests/Still-v0", entry_point=Still)
    gymnasium.register("tests/Target-v0", entry_point=Target)
    gymnasium.register("tests/Deaf-v0", entry_point=Deaf)
    gymnasium.register("tests/Crooked-v0", entry_point=Crooked)

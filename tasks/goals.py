"""Distributions of goals: what tells one task of reinforcement learning from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Goals(NamedTuple):
    """A distribution of goals, which are arrays of `size` numbers."""

    size: int
    draw: Callable[[Any, int], Array]  # (NumPy generator, n) -> float64[n, size]
    contains: Callable[[Array], bool]  # whether a goal float64[size] can be drawn
    text: str  # what they are, for messages

    def sample(self, rng: Any, n: int) -> Array:
        """n goals float64[n, size] from a NumPy Generator or RandomState. Raises ValueError for n < 1."""
        if n < 1:
            raise ValueError(f"tasks: at least 1 must be drawn, got {n}")
        return self.draw(rng, n)

    def checked(self, goal: Any) -> Array:
        """The goal as an array float64[size]. Raises ValueError if it is none of these."""
        try:
            value = np.array(goal, np.float64).reshape(-1)
        except (TypeError, ValueError):
            value = np.empty(0)
        if value.shape != (self.size,) or not self.contains(value):
            raise ValueError(f"goal must be {self.text}, got {goal!r}")
        return value


def within(low: float, high: float, size: int = 1) -> Goals:
    """Uniform in [low, high] in each coordinate."""
    text = f"a number in [{low}, {high}]" if size == 1 else f"{size} numbers in [{low}, {high}]"
    return Goals(
        size,
        lambda rng, n: rng.uniform(low, high, (n, size)),
        lambda goal: bool(((goal >= low) & (goal <= high)).all()),
        text,
    )


DIRECTIONS = Goals(
    1,
    lambda rng, n: rng.binomial(1, 0.5, (n, 1)) * 2.0 - 1.0,
    lambda goal: bool(abs(goal[0]) == 1),
    "1 (forward) or -1 (backward)",
)


def next_goal(goals: Goals, goal: Array | None, options: dict[str, Any] | None, rng: np.random.Generator) -> Array:
    """The goal that options name; else the one there was, or one that is drawn."""
    if options is not None and options.get("goal") is not None:
        return goals.checked(options["goal"])
    return goals.sample(rng, 1)[0] if goal is None else goal

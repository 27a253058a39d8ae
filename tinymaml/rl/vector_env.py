"""Environments to sample from, as vectorised environments of Gymnasium's that take a goal for each simulation.

The package's own environments step all simulations in one call. Any other one is vectorised by Gymnasium, which steps
one simulation after the other. An environment is a task distribution if its `unwrapped` has one of

    sample_tasks(rng, n) -> [n, g]    goals of n tasks, drawn with a NumPy generator
    goal_space                        a Box or Discrete of `gymnasium.spaces`, which goals are drawn from

and its `reset` takes the goal from `options["goal"]`: a row of `sample_tasks`, or an element of `goal_space`. In here
goals are arrays [n, g] in both cases: elements of a space are flattened as `gymnasium.spaces.flatten` does it, one-hot
if the space is Discrete.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import Array
from tinymaml.tasks.extras import require

require("gymnasium", "rl")

import gymnasium  # noqa: E402
from gymnasium.spaces import Box, Discrete  # noqa: E402
from gymnasium.vector import AutoresetMode, VectorEnv  # noqa: E402

from tinymaml.tasks import environments  # noqa: E402
from tinymaml.tasks.goals import Goals  # noqa: E402
from tinymaml.tasks.vector_env import GoalVectorEnv  # noqa: E402


def import_environments(module: str) -> None:
    """Import a module that registers environments with Gymnasium; the working folder is searched last.

    Raises:
        ImportError: there is no such module, or importing it failed.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # for good: the module may import others of the folder later
    try:
        importlib.import_module(module)
    except Exception as error:  # it may raise whatever its author's code does
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            hint = f" (without .py: {module[:-3]})" if module.endswith(".py") else ""
            raise ImportError(
                f"import: there is no module {module!r}, on Python's path or in {folder}{hint}"
            ) from error
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ImportError(f"import: the module {module!r} cannot be imported: {what}") from error


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
    return _SyncVectorEnv(name, count, horizon, options)


def make_single(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One environment; `reset` takes a goal as an array [g]."""
    return _FlatGoal(gymnasium.make(name, **options))


def sample_goals(name: str, rng: Any, n: int, **options: Any) -> Array:
    """Goals of n tasks, float64[n, g]; g is 0 for an environment that is no task distribution.

    Args:
        rng: a NumPy Generator or RandomState.

    Raises:
        ValueError: what `sample_tasks` gives is not [n, g], or `goal_space` is neither a Box nor Discrete.
    """
    env = make_single(name, **options)
    try:
        sample = getattr(env.unwrapped, "sample_tasks", None)
        if sample is not None:
            rows = np.asarray(sample(rng, n), np.float64)
            if rows.ndim != 2 or len(rows) != n:
                raise ValueError(f"{name}: sample_tasks(rng, {n}) must give an array [{n}, g], got {list(rows.shape)}")
            return rows
        space = _goal_space(env)
        if space is None:
            return np.zeros((n, 0))
        space.seed(int.from_bytes(rng.bytes(4), "little"))
        elements = [gymnasium.spaces.flatten(space, space.sample()) for _ in range(n)]
        return np.array(elements, np.float64).reshape(n, -1)
    finally:
        env.close()


def check_tasks(name: str, **options: Any) -> None:
    """Check that an environment is a task distribution, and that its `reset` reads the goal it is given.

    Whether the goal also changes anything cannot be seen from outside.

    Raises:
        ValueError: it is none; the message says what it needs. Or as `sample_goals`.
    """
    goal = sample_goals(name, np.random.default_rng(0), 1, **options)[0]
    if not goal.size:
        raise ValueError(
            f"{name}: no task distribution, which meta-learning needs: give the environment a method "
            "sample_tasks(rng, n) -> goals [n, g], or an attribute goal_space, a Box or Discrete of gymnasium.spaces; "
            'reset then takes the goal from options["goal"]'
        )
    env = gymnasium.make(name, **options)
    try:
        given = _RecordingOptions(goal=_element(_goal_space(env), goal))
        env.reset(seed=0, options=given)
        if not given.goal_was_read:
            raise ValueError(f'{name}: reset does not read options["goal"]: all of its tasks would be the same')
    finally:
        env.close()


def checked_goal(env: gymnasium.Env[Any, Any], goal: Any) -> Array:
    """A goal that a user names, as an array [g]. Raises ValueError if the environment has no such goal."""
    goals = getattr(env.unwrapped, "goals", None)
    if isinstance(goals, Goals):
        return goals.checked(goal)
    flat = np.asarray(goal, np.float64).reshape(-1)
    space = _goal_space(env)
    if space is not None and not space.contains(_element(space, flat)):
        raise ValueError(f"goal: {goal} is not in {space}")
    return flat


def sizes(env: VectorEnv[Any, Any, Any]) -> tuple[int, int, bool]:
    """How many numbers an observation has, how many an action (or how many actions there are), and whether actions are
    numbered."""
    observation, action = env.single_observation_space, env.single_action_space
    observations = math.prod(observation.shape or ())
    if isinstance(action, Discrete):
        return observations, int(action.n), True
    return observations, math.prod(action.shape or ()), False


def preferred_num_envs(env: VectorEnv[Any, Any, Any]) -> int:
    """How many simulations of this environment are stepped fastest in one vectorised environment."""
    inner = env.unwrapped
    return inner.preferred_num_envs if isinstance(inner, GoalVectorEnv) else GoalVectorEnv.preferred_num_envs


def stop_restarting(env: VectorEnv[Any, Any, Any]) -> None:
    """No new episodes are needed; only the package's own environments can save the work of beginning them."""
    inner = env.unwrapped
    if isinstance(inner, GoalVectorEnv):
        inner.last_episode[:] = True


def _goal_space(env: gymnasium.Env[Any, Any]) -> Any:
    """The space that an environment's goals are drawn from; None if it has none. Raises ValueError for other spaces."""
    space = getattr(env.unwrapped, "goal_space", None)
    if space is not None and not isinstance(space, Box | Discrete):
        raise ValueError(f"{env.spec.id if env.spec else env}: goal_space must be a Box or Discrete, got {space}")
    return space


def _element(space: Any, goal: Any) -> Any:
    """The element of a goal space that an array [g] stands for; without a space the array itself."""
    if space is None:
        return goal
    size, flat = gymnasium.spaces.flatdim(space), np.asarray(goal).reshape(-1)
    if len(flat) != size:
        raise ValueError(f"goal: expected {size} numbers, an element of {space} flattened, got {len(flat)}")
    return gymnasium.spaces.unflatten(space, flat.astype(space.dtype))


class _RecordingOptions(dict[str, Any]):
    """Options of `reset` that know whether the goal was read."""

    goal_was_read = False

    def __getitem__(self, key: str) -> Any:
        self.goal_was_read |= key == "goal"
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:  # a dict with another iterator is copied by way of __getitem__
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        self.goal_was_read |= key == "goal"
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.goal_was_read |= key == "goal"
        return super().pop(key, *default)

    def items(self) -> Any:
        self.goal_was_read = True
        return super().items()


class _FlatGoal(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes goals as arrays [g]; the environment gets the element of its goal space, if it has one."""

    goal: Any = None  # with which every episode begins, unless `reset` is given another one

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        goal = (options or {}).get("goal", self.goal)
        if goal is not None:
            options = {**(options or {}), "goal": _element(_goal_space(self), goal)}
        return self.env.reset(seed=seed, options=options)


def _unit_actions(env: gymnasium.Env[Any, Any]) -> gymnasium.Wrapper[Any, Any, Any, Any]:
    """Actions in units of their bounds, clipped to them; those that are numbered stay."""
    if isinstance(env.action_space, Discrete):
        return gymnasium.Wrapper(env)
    one: Any = np.ones(env.action_space.shape or (), env.action_space.dtype)
    return gymnasium.wrappers.ClipAction(gymnasium.wrappers.RescaleAction(env, -one, one))


class _SyncVectorEnv(gymnasium.vector.VectorWrapper):
    """Any environment, vectorised by Gymnasium, with a goal for each simulation."""

    def __init__(self, name: str, count: int, horizon: int, options: dict[str, Any]) -> None:
        single = make_single(name, **options)
        _check_spaces(name, single)
        single.close()
        env = gymnasium.make_vec(
            name,
            count,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            wrappers=[_unit_actions, _FlatGoal],
            max_episode_steps=horizon,
            **options,
        )
        super().__init__(env)
        self._simulations: Any = env

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        goals = np.asarray((options or {}).get("goal", np.zeros((self.num_envs, 0))))
        if goals.shape[1]:
            self._simulations.set_attr("goal", list(goals))
        return self.env.reset(seed=seed)


def _check_spaces(name: str, env: gymnasium.Env[Any, Any]) -> None:
    observations, actions = env.observation_space, env.action_space
    if not isinstance(observations, Box):
        raise ValueError(
            f"{name}: observations must be a Box, got {observations}: wrap it in gymnasium.wrappers, for instance"
        )
    bounded = isinstance(actions, Box) and len(actions.shape) == 1 and np.isfinite([actions.low, actions.high]).all()
    if not bounded and not (isinstance(actions, Discrete) and actions.start == 0):
        raise ValueError(f"{name}: actions must be a bounded Box [a], or Discrete from 0, got {actions}")

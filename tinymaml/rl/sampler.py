"""Rollouts of a policy in many tasks at once.

Tasks are split into shards, of which each thread takes one after the other. In each step all simulations of a shard
act: the policy is one call, with the parameters of each task. Where simulations keep data from step to step, shards are
small enough for a core's cache. Random numbers belong to (key, task, simulation, time), so neither shards nor threads
change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any

import numpy as np

from tinymaml import record, tree
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import NonFiniteError
from tinymaml.rl import vector_env
from tinymaml.rl.policies import Policy
from tinymaml.rl.rollouts import Rollouts, allocate


class Sampler:
    """Samples an environment with a policy, for a number of tasks that is always the same.

    Args:
        name: of the environment, for Gymnasium.
        policy: whose actions are taken.
        tasks, rollouts: how many tasks, T, and simulations of each, R.
        horizon: steps of an episode at most, H. A task's batch has R H transitions, or some more where episodes end
            before their time: each simulation goes on from episode to episode until it has H of them, and ends with a
            whole one.
        workers: threads.
        observes_goal: the goal is appended to the policy's observations.
        dtype: of observations and actions.

    Raises:
        ValueError: counts < 1, and as `vector_env.make`.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        tasks: int,
        rollouts: int,
        horizon: int,
        workers: int = 1,
        observes_goal: bool = False,
        dtype: Any = np.float32,
        **options: Any,
    ) -> None:
        for what, value in (("tasks", tasks), ("rollouts", rollouts), ("horizon", horizon), ("workers", workers)):
            if value < 1:
                raise ValueError(f"{what} must be at least 1, got {value}")
        self.tasks, self.rollouts, self.horizon = tasks, rollouts, horizon
        self.observes_goal, self.dtype, self._threads = observes_goal, np.dtype(dtype), min(workers, tasks)
        with closing(vector_env.make(name, 1, horizon, **options)) as env:
            rounds = math.ceil(tasks * rollouts / (self._threads * vector_env.preferred_num_envs(env)))
        bounds = np.linspace(0, tasks, min(rounds * self._threads, tasks) + 1).round().astype(int)
        self._slices = [slice(int(a), int(b)) for a, b in pairwise(bounds)]
        self._shards = [
            _Shard(name, policy, tasks.stop - tasks.start, rollouts, horizon, observes_goal, self.dtype, options)
            for tasks in self._slices
        ]

    def __call__(self, params: Tree, goals: Array, key: Sequence[int]) -> Rollouts:
        """Rollouts of the tasks with these goals [T, g].

        Args:
            params: leaves [1, ...] or [T, ...].
            key: whole numbers that name these random numbers.

        Raises:
            NonFiniteError: the policy's actions are not finite.
        """
        if len(goals) != self.tasks:
            raise ValueError(f"goals: expected {self.tasks}, one a task, got {len(goals)}")

        observations, actions, discrete = vector_env.sizes(self._shards[0].env)
        observations += goals.shape[1] if self.observes_goal else 0
        rollouts = allocate(self.tasks, self.rollouts, self.horizon, observations, actions, discrete, self.dtype)

        def sample(i: int) -> int:
            tasks = self._slices[i]
            of_tasks = tree.map(lambda x: x if len(x) == 1 else x[tasks], params)
            indices = range(tasks.start, tasks.stop)
            return self._shards[i].sample(of_tasks, goals[tasks], key, indices, rollouts.select(tasks))

        with ThreadPoolExecutor(self._threads) as pool:
            unstable = sum(pool.map(sample, range(len(self._slices))))
        return rollouts.select(steps=int(rollouts.valid.any((0, 1)).sum()))._replace(unstable=unstable)

    def close(self) -> None:
        """Frees the simulations."""
        for shard in self._shards:
            shard.env.close()


class _Shard:
    """Some of the tasks, whose simulations are one vectorised environment."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        tasks: int,
        rollouts: int,
        horizon: int,
        observes_goal: bool,
        dtype: np.dtype[Any],
        options: dict[str, Any],
    ) -> None:
        self.policy, self.tasks, self.rollouts, self.horizon = policy, tasks, rollouts, horizon
        self.observes_goal, self.dtype = observes_goal, dtype
        self.env: Any = vector_env.make(name, tasks * rollouts, horizon, **options)
        self._programs: dict[bool, tuple[Tree, Any]] = {}

    def sample(
        self, params: Tree, goals: Array, key: Sequence[int], task_indices: Sequence[int], rollouts: Rollouts
    ) -> int:
        """Sample into the arrays of `rollouts`; returns how many episodes were unstable. Indices of tasks are part of
        the random numbers' key."""
        distribution = self._policy_with(params, goals.shape[1] if self.observes_goal else 0)
        shape = (self.tasks, self.rollouts)
        count = math.prod(shape)
        seeds = [np.random.SeedSequence([*key, t]).generate_state(self.rollouts) for t in task_indices]
        generators = [np.random.default_rng([*key, t, 1]) for t in task_indices]
        seen, _ = self.env.reset(
            seed=[int(seed) for of_task in seeds for seed in of_task],
            options={"goal": np.repeat(goals, self.rollouts, 0)},
        )
        goal = np.repeat(goals[:, None], self.rollouts, 1).astype(self.dtype)
        active, unstable = np.ones(count, bool), 0
        series = [x.reshape(count, *x.shape[2:]) for x in rollouts.arrays().values()]
        times, time = np.zeros(count, np.int64), 0
        rows: Any = slice(None)  # of those that go on; of the others zeros stay
        noise: Any = None
        while active.any():
            if time == self.horizon - 1:
                vector_env.stop_restarting(self.env)
            if time % self.horizon == 0:
                drawn = [self.policy.noise(g, (self.horizon, self.rollouts)) for g in generators]
                noise = np.stack(drawn, 1).astype(self.dtype)
            observations = np.asarray(seen, self.dtype).reshape(*shape, -1)
            if self.observes_goal:
                observations = np.concatenate([observations, goal], 2)
            actions = self.policy.act(distribution(observations), noise[time % self.horizon])
            if not np.isfinite(actions).all():
                raise NonFiniteError("the policy's actions are not finite")
            flat = actions.reshape(count, -1)
            discrete = actions.dtype.kind == "i"
            seen, rewards, terminated, truncated, info = self.env.step(flat[:, 0] if discrete else flat)
            ends = terminated | truncated
            step = (observations.reshape(count, -1), flat, rewards, ends, active, times)
            for x, value in zip(series, step, strict=True):
                x[rows, time] = value[rows]
            unstable += int((np.asarray(info.get("unstable", False)) & active).sum())
            time += 1
            times = np.where(ends, 0, times + 1)
            if time >= self.horizon:
                active &= ~ends
                rows = active
        return unstable

    def _policy_with(self, params: Tree, goals: int) -> Any:
        """A program observations [T, R, o] -> the distributions' arrays. There is one for shared parameters and one for
        parameters of each task, over arrays that the parameters are copied into: once, not in every step."""
        key = len(tree.leaves(params)[0]) == 1
        if key not in self._programs:
            copy = tree.map(np.array, params)

            def apply(observations: Any) -> Tree:
                return tree.map(lambda x: x.data, self.policy.apply(copy, observations))

            size = math.prod(self.env.single_observation_space.shape) + goals
            example = np.zeros((self.tasks, self.rollouts, size), self.dtype)
            self._programs[key] = copy, record(apply, example, threads=1)
        copy, program = self._programs[key]
        tree.map(np.copyto, copy, params)
        return program

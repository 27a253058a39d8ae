"""Robots that are to run in a direction, or at a velocity, which they are not told (paper, section 5.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.tasks import robots
from tinymaml.tasks.extras import require
from tinymaml.tasks.goals import Array, next_goal
from tinymaml.tasks.mujoco_warnings import suppressed
from tinymaml.tasks.robots import HORIZON, TASKS
from tinymaml.tasks.vector_env import GoalVectorEnv, Rows, checked_actions

require("gymnasium", "rl")
require("mujoco", "rl")

import gymnasium  # noqa: E402
import mujoco  # noqa: E402

_IMAGE = (240, 360)  # height and width of pictures


class LocomotionEnv(gymnasium.Env[Array, Array]):
    """A robot with a task. What it observes, and its rewards, depend on the flavour: see `tinymaml.tasks.robots`.

    action: in units of the actuators' bounds, clipped to [-1, 1]. The episode terminates when the physics is out of
    bounds (info["unstable"]) and, for the Ant, when it has fallen or jumped; it is truncated after 200 steps when made
    by its name, such as tinymaml/AntDirection-v0.

    Args:
        task: a name in `robots.TASKS`.
        flavour: one of `robots.FLAVOURS`.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, task: str, flavour: str = "rllab", render_mode: str | None = None) -> None:
        self.task, self.robot = TASKS[task], robots.robot(TASKS[task].robot, flavour)
        self.goals, self.render_mode = self.task.goals, render_mode
        self.model = self.robot.model()
        self.data = mujoco.MjData(self.model)
        self._seconds = self.model.opt.timestep * self.robot.frame_skip
        self.metadata = self.metadata | {"render_fps": round(1 / self._seconds)}
        self.observation_space, self.action_space = _spaces(self.robot, self.model)
        self.goal: Array | None = None
        self._renderer: Any = None

    def sample_tasks(self, rng: Any, n: int) -> Array:
        """Goals [n, 1]."""
        return self.goals.sample(rng, n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Back to the start, with noise. options: {"goal": a number}; without it the goal stays, and is drawn at
        first."""
        super().reset(seed=seed)
        self.goal = next_goal(self.goals, self.goal, options, self.np_random)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self.robot.initial_state(
            self.np_random, self.model.qpos0, self.data.qvel
        )
        mujoco.mj_forward(self.model, self.data)
        return self.robot.observe(self._fields())[0], {"goal": self.goal.copy()}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Raises ValueError for an action of another shape, or one that is not finite."""
        if self.goal is None:
            raise gymnasium.error.ResetNeeded("reset the environment before its first step")
        action = checked_actions(action, (self.model.nu,))
        before = self.data.qpos[:1].copy()
        self.data.ctrl[:] = action
        with suppressed:
            mujoco.mj_step(self.model, self.data, self.robot.frame_skip)
            if self.robot.stage == robots.ACC:
                # Of all this, the next step must not see the solver's start.
                start = self.data.qacc_warmstart.copy()
                mujoco.mj_forward(self.model, self.data)
                self.data.qacc_warmstart[:] = start
            elif self.robot.stage == robots.VEL:
                mujoco.mj_step1(self.model, self.data)
        observations, rewards, over, unstable = outcome(
            self.task, self.robot, self._fields(), before, self._seconds, action[None], self.goal[None]
        )
        info = {"goal": self.goal.copy(), "unstable": bool(unstable[0])}
        return observations[0], float(rewards[0]), bool(over[0]), False, info

    def render(self) -> Any:
        """The robot from the side [240, 360, 3], the camera going with it. Raises RuntimeError without OpenGL."""
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            try:
                self._renderer = mujoco.Renderer(self.model, *_IMAGE)
            except Exception as error:  # MuJoCo's own, or one of the library below
                raise RuntimeError(
                    f"MuJoCo finds no OpenGL to draw with ({error}): on a machine without a screen set MUJOCO_GL=egl, "
                    "or MUJOCO_GL=osmesa"
                ) from error
        self._renderer.update_scene(self.data, camera="track")
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _fields(self) -> robots.Fields:
        return {name: getattr(self.data, name)[None] for name in robots.FIELDS[self.robot.stage]}


class LocomotionVectorEnv(GoalVectorEnv):
    """Many robots at once, each as in `LocomotionEnv`, on `mujoco.batch.Batch`.

    Args:
        threads: of the physics.
    """

    def __init__(
        self,
        num_envs: int,
        task: str,
        max_episode_steps: int = HORIZON,
        flavour: str = "rllab",
        threads: int = 1,
    ) -> None:
        from mujoco.batch import Batch

        self.task, self.robot = TASKS[task], robots.robot(TASKS[task].robot, flavour)
        model = self.robot.model()
        super().__init__(self.task.goals, num_envs, max_episode_steps, *_spaces(self.robot, model))
        self._seconds = model.opt.timestep * self.robot.frame_skip
        # What was computed at the new state is the beginning of the next step, unless that was all of the physics. A
        # batch must keep its simulations' data for it, which of many is more than a cache holds.
        keep = self.robot.stage == robots.VEL
        self._batch = Batch(model, num_envs, threads, persistent=keep)
        if keep:
            self.preferred_num_envs = 100
        self._fields = {name: self._batch.bind(name) for name in robots.FIELDS[self.robot.stage]}
        self._ctrl, self._solver = self._batch.bind("ctrl"), self._batch.bind("qacc_warmstart")
        self._model = model

    def _begin_episodes(self, ids: Array, generators: list[np.random.Generator]) -> None:
        self._ctrl[ids], self._solver[ids] = 0, 0  # all that an episode leaves behind, but for the state
        qvel0 = np.zeros(self._model.nv)
        for i, generator in zip(ids, generators, strict=True):
            self._fields["qpos"][i], self._fields["qvel"][i] = self.robot.initial_state(
                generator, self._model.qpos0, qvel0
            )
        self._batch.forward(ids)

    def _advance(self, actions: Array, rows: Rows) -> tuple[Array, Array, Array, Array]:
        before = self._fields["qpos"][rows, 0].copy()
        self._ctrl[rows] = actions
        ids = None if isinstance(rows, slice) else rows
        with suppressed:
            self._batch.step(ids, nstep=self.robot.frame_skip, stage=int(self.robot.stage))
        return outcome(self.task, self.robot, self._of(rows), before, self._seconds, actions, self.goal[rows])

    def _observe(self, rows: Rows) -> Array:
        return self.robot.observe(self._of(rows))

    def _of(self, rows: Rows) -> robots.Fields:
        return {name: field[rows] for name, field in self._fields.items()}


def outcome(
    task: robots.Task,
    robot: robots.Robot,
    fields: robots.Fields,
    before: Array,
    seconds: float,
    actions: Array,
    goal: Array,
) -> tuple[Array, Array, Array, Array]:
    """Observations [n, o], rewards [n], whether the episode is over [n], and whether by physics that is out of bounds
    [n]: then reward and observation are zeros.
    """
    observations = robot.observe(fields)
    rewards = task.reward(robots.velocity(robot, before, fields, seconds), goal[:, 0]) + robot.costs(actions, fields)
    over = robot.fails(fields)
    good = (np.abs(rewards) < robots.BOUND) & (np.abs(observations) < robots.BOUND).all(1)  # false for NaN
    if not good.all():
        observations[~good], rewards[~good] = 0, 0
    return observations, rewards, over | ~good, ~good


def _spaces(robot: robots.Robot, model: Any) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Of observations and actions."""
    data = mujoco.MjData(model)
    size = robot.observe({name: getattr(data, name)[None] for name in robots.FIELDS[robot.stage]}).shape[1]
    return (
        gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64),
        gymnasium.spaces.Box(-1.0, 1.0, (model.nu,), np.float32),
    )

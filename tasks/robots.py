"""The paper's robots: how they are simulated, what they see, and what they are rewarded for (appendix A.2).

A flavour says whose environment it is: "rllab" is what the paper was run on, one physics step an action; "gym" is
Gymnasium's, five of them, with its observations, costs and noise. The functions take fields of n simulations, [n, ...].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymaml.tasks.extras import require
from tinymaml.tasks.goals import DIRECTIONS, Array, Goals, within

require("mujoco", "rl")

import mujoco  # noqa: E402

FLAVOURS = ("rllab", "gym")
HORIZON = 200
BOUND = float(mujoco.mjMAXVAL)  # of what is observed and gained: beyond it MuJoCo takes its physics for unstable

TORSO = 1  # its body
VELOCITY = slice(0, 3)  # of the whole robot's centre of mass, in the data of the sensors

NONE, VEL, ACC = mujoco.mjtStage.mjSTAGE_NONE, mujoco.mjtStage.mjSTAGE_VEL, mujoco.mjtStage.mjSTAGE_ACC
_STATE = ("qpos", "qvel")
_MOVING = (*_STATE, "subtree_com", "sensordata")
FIELDS = {NONE: _STATE, VEL: _MOVING, ACC: (*_MOVING, "cfrc_ext", "xmat")}  # of MjData, by what is computed

Fields = dict[str, Array]


class Robot(NamedTuple):
    """A robot in a flavour."""

    file: str
    flavour: str
    frame_skip: int  # physics steps an action
    stage: Any  # mujoco.mjtStage: what is computed at the new state, as the functions see it
    initial_state: Callable[[np.random.Generator, Array, Array], tuple[Array, Array]]  # (rng, qpos0, qvel0)
    observe: Callable[[Fields], Array]  # [n, o]
    costs: Callable[[Array, Fields], Array]  # (actions [n, a], fields) -> [n], what is added to the task's reward
    fails: Callable[[Fields], Array]  # whether the episode is over [n]

    def model(self) -> Any:
        """A mujoco.MjModel of its own."""
        model = mujoco.MjModel.from_xml_path(str(Path(__file__).parent / "xml" / self.file))
        # Physics that fails is seen and ends the episode; MuJoCo shall not begin it anew by itself.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        if self.file == "ant.xml" and self.flavour == "rllab":
            model.opt.timestep = 0.02
            model.geom_solref[:] = (0.02, 1)
            model.geom_solimp[:, :3] = (0.8, 0.8, 0.01)
        return model


def robot(name: str, flavour: str) -> Robot:
    """A robot by its name. Raises ValueError for an unknown flavour."""
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour must be one of {', '.join(FLAVOURS)}, got {flavour!r}")
    return _ROBOTS[name, flavour]


def velocity(robot: Robot, before: Array, fields: Fields, seconds: float) -> Array:
    """The velocity along x [n]: that of the whole robot's centre of mass at the new state (rllab), or the mean one of
    the torso during the step (gym); `before` is the torso's x [n] before it."""
    if robot.flavour == "rllab":
        return fields["sensordata"][:, VELOCITY.start]
    return (fields["qpos"][:, 0] - before) / seconds


class Task(NamedTuple):
    """What is asked of a robot."""

    robot: str
    goals: Goals
    reward: Callable[[Array, Array], Array]  # (velocity [n], goal [n]) -> [n]


TASKS = {
    "HalfCheetahDirection": Task("half_cheetah", DIRECTIONS, lambda v, goal: goal * v),
    "HalfCheetahVelocity": Task("half_cheetah", within(0.0, 2.0), lambda v, goal: -np.abs(v - goal)),
    "AntDirection": Task("ant", DIRECTIONS, lambda v, goal: goal * v),
    "AntVelocity": Task("ant", within(0.0, 3.0), lambda v, goal: 1.0 - np.abs(v - goal)),
}


def _squares(x: Array) -> Array:
    """Sums of squares [n] over all but the first axis."""
    return (x * x).reshape(len(x), -1).sum(1)


def _contact(fields: Fields) -> Array:
    return np.clip(fields["cfrc_ext"], -1.0, 1.0)


def _never(fields: Fields) -> Array:
    return np.zeros(len(fields["qpos"]), bool)


def _fallen(fields: Fields) -> Array:
    z = fields["qpos"][:, 2]
    return ~((z >= 0.2) & (z <= 1.0))


def _rllab_initial_state(rng: np.random.Generator, qpos: Array, qvel: Array) -> tuple[Array, Array]:
    return qpos + 0.01 * rng.standard_normal(len(qpos)), qvel + 0.1 * rng.standard_normal(len(qvel))


_ANT_POSE = np.array([0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1.0])  # ankles bent, just above the ground


def _rllab_ant_initial_state(rng: np.random.Generator, qpos: Array, qvel: Array) -> tuple[Array, Array]:
    return _rllab_initial_state(rng, _ANT_POSE, qvel)


def _gym_initial_state(rng: np.random.Generator, qpos: Array, qvel: Array) -> tuple[Array, Array]:
    return qpos + rng.uniform(-0.1, 0.1, len(qpos)), qvel + 0.1 * rng.standard_normal(len(qvel))


def _cheetah_rllab(fields: Fields) -> Array:
    return np.concatenate([fields["qpos"][:, 1:], fields["qvel"], fields["subtree_com"][:, TORSO]], 1)


def _cheetah_gym(fields: Fields) -> Array:
    return np.concatenate([fields["qpos"][:, 1:], fields["qvel"]], 1)


def _ant_rllab(fields: Fields) -> Array:
    n = len(fields["qpos"])
    seen = (_contact(fields).reshape(n, -1), fields["xmat"][:, TORSO].reshape(n, 9), fields["subtree_com"][:, TORSO])
    return np.concatenate([fields["qpos"], fields["qvel"], *seen], 1)


def _ant_gym(fields: Fields) -> Array:
    n = len(fields["qpos"])
    return np.concatenate([fields["qpos"][:, 2:], fields["qvel"], _contact(fields)[:, 1:].reshape(n, -1)], 1)


_CHEETAH, _ANT = "half_cheetah.xml", "ant.xml"

_ROBOTS = {
    ("half_cheetah", "rllab"): Robot(
        _CHEETAH, "rllab", 1, VEL, _rllab_initial_state, _cheetah_rllab, lambda a, f: -0.05 * _squares(a), _never
    ),
    ("half_cheetah", "gym"): Robot(
        _CHEETAH, "gym", 5, NONE, _gym_initial_state, _cheetah_gym, lambda a, f: -0.1 * _squares(a), _never
    ),
    ("ant", "rllab"): Robot(
        _ANT,
        "rllab",
        1,
        ACC,
        _rllab_ant_initial_state,
        _ant_rllab,
        lambda a, f: 0.05 - 0.005 * _squares(a) - 0.0005 * _squares(_contact(f)),
        _fallen,
    ),
    ("ant", "gym"): Robot(
        _ANT,
        "gym",
        5,
        ACC,
        _gym_initial_state,
        _ant_gym,
        lambda a, f: 1.0 - 0.5 * _squares(a) - 0.0005 * _squares(_contact(f)),
        _fallen,
    ),
}

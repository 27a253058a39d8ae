"""The environments: Gymnasium's rules, Gymnasium's physics, and many at once as one by one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="environments need gymnasium: pip install 'tinymaml[rl]'")
pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")

import gymnasium
from gymnasium.utils.env_checker import check_env

from tinymaml.tasks import environments, robots
from tinymaml.tasks.robots import TASKS

FLAVOURS: list[tuple[str, dict[str, Any]]] = [
    ("tinymaml/Navigation-v0", {}),
    ("tinymaml/Navigation-v0", {"reward": "squared-distance"}),
    *[(f"tinymaml/{task}-v0", {"flavour": flavour}) for task in TASKS for flavour in robots.FLAVOURS],
]
ROBOTS = [name for name in environments.NAMES if "Navigation" not in name]
every = pytest.mark.parametrize(("name", "options"), FLAVOURS)


def vectorised(name: str, count: int, **options: Any) -> Any:
    return gymnasium.make_vec(name, count, vectorization_mode="vector_entry_point", **options)


@every
def test_gymnasiums_own_checks(name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env = gymnasium.make(name, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*observation space (min|max)imum value.*")  # positions have no bounds
        check_env(env.unwrapped, skip_render_check=True)
    env.close()
    assert not list(tmp_path.iterdir())  # no MUJOCO_LOG.TXT


@every
def test_goals(name: str, options: dict[str, Any]) -> None:
    env = gymnasium.make(name, **options).unwrapped
    goals = env.sample_tasks(np.random.RandomState(1), 500)
    assert goals.shape == (500, env.goals.size)
    for goal in goals[:5]:
        _, info = env.reset(seed=0, options={"goal": goal})
        assert np.array_equal(info["goal"], goal)
        assert np.array_equal(env.goal, goal)
        env.reset()
        assert np.array_equal(env.goal, goal)  # it stays
    expected = {
        "Direction": (-1, 1, 0),
        "CheetahVelocity": (0, 2, 1),
        "AntVelocity": (0, 3, 1.5),
        "Nav": (-0.5, 0.5, 0),
    }
    (low, high, mean) = next(value for key, value in expected.items() if key in name)
    assert goals.min() == pytest.approx(low, abs=0.02)
    assert goals.max() == pytest.approx(high, abs=0.02)
    assert goals.mean() == pytest.approx(mean, abs=0.1)
    for bad in (high + 0.1, "forward", [0.0] * 3, np.nan):
        with pytest.raises(ValueError, match=r"goal must be .*, got"):
            env.reset(options={"goal": bad})
    with pytest.raises(ValueError, match="at least 1 must be drawn"):
        env.sample_tasks(np.random.default_rng(0), 0)


@every
def test_many_at_once_are_as_one_by_one(name: str, options: dict[str, Any]) -> None:
    """Over whole episodes and the beginnings of the next: observations, rewards and ends, to the bit."""
    count = 4
    many = vectorised(name, count, **options)
    singles = [gymnasium.make(name, **options) for _ in range(count)]
    goals = many.unwrapped.goals.sample(np.random.default_rng(3), count)
    seeds = [100 + 7 * i for i in range(count)]
    seen, _ = many.reset(seed=seeds, options={"goal": goals})
    alone = [env.reset(seed=s, options={"goal": g})[0] for env, s, g in zip(singles, seeds, goals, strict=True)]
    assert np.array_equal(seen, alone)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(250):
        actions = rng.uniform(-1.5, 1.5, (count, *many.single_action_space.shape))
        seen, rewards, terminated, truncated, info = many.step(actions)
        for i, env in enumerate(singles):
            own, reward, over, cut, _ = env.step(actions[i])
            assert (reward, over, cut) == (rewards[i], terminated[i], truncated[i])
            if over or cut:
                ends += 1
                assert np.array_equal(info["final_obs"][i], own)
                own, _ = env.reset()
            assert np.array_equal(own, seen[i])
    assert ends >= count


def test_those_that_rest_stay_where_they_are() -> None:
    for name in ("tinymaml/Navigation-v0", "tinymaml/AntVelocity-v0"):
        some, whole = vectorised(name, 3), vectorised(name, 3)
        actions = np.full((3, *some.single_action_space.shape), 0.3)
        goals = some.unwrapped.goals.sample(np.random.default_rng(0), 3)
        for env in (some, whole):
            env.reset(seed=5, options={"goal": goals})
            env.step(actions)
        some.unwrapped.active[1] = False
        before = some.unwrapped._seen[1].copy()
        for _ in range(3):
            seen, rewards, *_ = some.step(actions)
            reference, expected, *_ = whole.step(actions)
        assert np.array_equal(seen[1], before)
        assert rewards[1] == 0
        assert np.array_equal(seen[[0, 2]], reference[[0, 2]])
        assert np.array_equal(rewards[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("flavour", robots.FLAVOURS)
@pytest.mark.parametrize(("ours", "theirs"), [("HalfCheetahDirection", "HalfCheetah-v5"), ("AntDirection", "Ant-v5")])
def test_the_physics_is_gymnasiums(ours: str, theirs: str, flavour: str, tmp_path: Path, monkeypatch: Any) -> None:
    """From the same state with the same actions: positions and velocities to the bit, over 200 steps."""
    monkeypatch.chdir(tmp_path)  # where their model leaves its log
    env = gymnasium.make(f"tinymaml/{ours}-v0", flavour=flavour).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their model
        other = gymnasium.make(theirs, frame_skip=env.robot.frame_skip).unwrapped
    if (ours, flavour) == ("AntDirection", "rllab"):
        other.model.opt.timestep = 0.02
        other.model.geom_solref[:] = (0.02, 1)
        other.model.geom_solimp[:, :3] = (0.8, 0.8, 0.01)
    env.reset(seed=4, options={"goal": 1})
    other.reset(seed=4)
    other.set_state(env.data.qpos, env.data.qvel)
    for action in np.random.default_rng(1).uniform(-1, 1, (200, env.model.nu)):
        env.step(action)
        other.step(action)
        assert np.array_equal(env.data.qpos, other.data.qpos)
        assert np.array_equal(env.data.qvel, other.data.qvel)


def test_the_gym_flavour_is_gymnasiums_half_cheetah(tmp_path: Path, monkeypatch: Any) -> None:
    """Forward, it is Gymnasium's: the same start from the same seed, observations and rewards."""
    monkeypatch.chdir(tmp_path)
    env = gymnasium.make("tinymaml/HalfCheetahDirection-v0", flavour="gym")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = gymnasium.make("HalfCheetah-v5")
    env.reset(seed=1, options={"goal": 1})  # draws a goal for the first episode only if none is given
    assert np.array_equal(env.reset(seed=2, options={"goal": 1})[0], other.reset(seed=2)[0])
    for action in np.random.default_rng(1).uniform(-1, 1, (50, 6)).astype(np.float32):
        seen, reward, *_ = env.step(action)
        theirs, expected, *_ = other.step(action)
        assert np.array_equal(seen, theirs)
        assert reward == pytest.approx(expected, rel=1e-6)


def test_what_the_robots_see_and_gain() -> None:
    """The rllab flavour, from MuJoCo's own fields and the formulas of the protocol."""
    for name, size in (("HalfCheetahVelocity", 20), ("AntVelocity", 125)):
        env = gymnasium.make(f"tinymaml/{name}-v0").unwrapped
        data = env.data
        seen, _ = env.reset(seed=0, options={"goal": 1.5})
        assert seen.shape == (size,)
        most = 0.0
        for action in np.random.default_rng(0).uniform(-1.5, 1.5, (60, env.model.nu)):
            seen, reward, over, _, _ = env.step(action)
            v, squares = data.subtree_linvel[1][0], (np.clip(action, -1, 1) ** 2).sum()
            assert data.sensordata[0] == v
            com = np.average(data.xipos, axis=0, weights=env.model.body_mass)
            assert seen[-3:] == pytest.approx(com, abs=1e-12)
            if name == "HalfCheetahVelocity":
                assert reward == pytest.approx(-abs(v - 1.5) - 0.05 * squares, abs=1e-12)
                assert np.array_equal(seen[:17], np.r_[data.qpos[1:], data.qvel])
                assert not over
            else:
                forces = np.clip(data.cfrc_ext, -1, 1)
                most = max(most, np.abs(forces).max())
                cost = 0.005 * squares + 0.0005 * (forces**2).sum()
                assert reward == pytest.approx(1 - abs(v - 1.5) - cost + 0.05, abs=1e-12)
                assert np.array_equal(seen[:29], np.r_[data.qpos, data.qvel])
                assert np.array_equal(seen[29:113], forces.ravel())
                assert np.array_equal(seen[113:122], data.xmat[1])
                assert over == (not 0.2 <= data.qpos[2] <= 1.0)
    assert most == 1  # it came to the ground


def test_the_velocity_is_that_of_the_centre_of_mass() -> None:
    """Against the difference of its positions over a very short step."""
    env = gymnasium.make("tinymaml/HalfCheetahDirection-v0").unwrapped
    env.reset(seed=0, options={"goal": 1})
    env.step(np.full(6, 0.5))
    v, before = env.data.sensordata[0], env.data.subtree_com[1][0]
    env.model.opt.timestep = 1e-6
    env.step(np.full(6, 0.5))
    assert (env.data.subtree_com[1][0] - before) / 1e-6 == pytest.approx(v, abs=1e-3)


def test_navigation() -> None:
    env = gymnasium.make("tinymaml/Navigation-v0")
    env.reset(options={"goal": [0.3, -0.4]})
    seen, reward, over, _, _ = env.step(np.array([5.0, -0.5]))
    assert seen == pytest.approx([0.1, -0.05])
    assert reward == pytest.approx(-np.hypot(0.2, 0.35))
    assert not over
    env.step(np.array([1.0, -1.0]))
    env.step(np.array([0.95, -1.0]))
    env.step(np.array([0, -1.0]))
    *_, over, _, _ = env.step(np.array([0, -0.45]))
    assert over


RANDOM_RETURNS = {"HalfCheetahDirection": -36, "HalfCheetahVelocity": -255, "AntDirection": 3, "AntVelocity": -79}


@pytest.mark.parametrize("task", TASKS)
def test_random_policies(task: str) -> None:
    """About the authors' returns of policies that were not trained: unit normal actions about a small mean."""
    env = vectorised(f"tinymaml/{task}-v0", 60)
    env.reset(seed=0, options={"goal": env.unwrapped.goals.sample(np.random.default_rng(0), 60)})
    rng = np.random.default_rng(0)
    gained, running = np.zeros(60), np.ones(60, bool)
    for _ in range(200):
        _, rewards, terminated, _, _ = env.step(rng.standard_normal((60, *env.single_action_space.shape)))
        gained += rewards * running
        running &= ~terminated
    expected = RANDOM_RETURNS[task]
    assert gained.mean() == pytest.approx(expected, abs=max(12, 0.15 * abs(expected)))


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("bad", [np.nan, 1e9])
def test_unstable_physics_ends_the_episode(name: str, bad: float, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env, action = vectorised(name, 3), np.zeros(vectorised(name, 1).single_action_space.shape)
    env.reset(seed=0)
    env.unwrapped._fields["qvel"][1] = bad
    seen, rewards, terminated, _, info = env.step(np.stack([action] * 3))
    assert info["unstable"].tolist() == [False, True, False]
    assert terminated.tolist() == [False, True, False]
    assert rewards[1] == 0
    assert np.isfinite(seen).all()
    for _ in range(5):
        seen, _, terminated, _, info = env.step(np.stack([action] * 3))
        assert not info["unstable"].any()
        assert np.isfinite(seen).all()
    alone = gymnasium.make(name)
    alone.reset(seed=0)
    alone.unwrapped.data.qvel[:] = bad
    _, reward, over, _, info = alone.step(action)
    assert (reward, over, info["unstable"]) == (0, True, True)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@every
def test_bad_input(name: str, options: dict[str, Any]) -> None:
    env = gymnasium.make(name, **options).unwrapped
    shape = env.action_space.shape
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset the environment"):
        env.step(np.zeros(shape))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected an array of shape \(\d,\), got \(11,\)"):
        env.step(np.zeros(11))
    with pytest.raises(ValueError, match="action: not finite"):
        env.step(np.full(shape, np.nan))
    for count, horizon in ((0, 10), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            vectorised(name, count, max_episode_steps=horizon, **options)
    many = vectorised(name, 2, **options)
    with pytest.raises(ValueError, match="goal: expected one, or 2, got 3"):
        many.reset(options={"goal": env.sample_tasks(np.random.default_rng(0), 3)})
    with pytest.raises(ValueError, match="seed: expected one, or 2, got 1"):
        many.reset(seed=[1])


def test_unknown_flavours() -> None:
    with pytest.raises(ValueError, match="flavour must be one of rllab, gym, got 'v2'"):
        gymnasium.make(ROBOTS[0], flavour="v2")
    with pytest.raises(ValueError, match="reward must be one of distance, squared-distance, got 'manhattan'"):
        gymnasium.make("tinymaml/Navigation-v0", reward="manhattan")


def test_pictures() -> None:
    env = gymnasium.make("tinymaml/Navigation-v0", render_mode="rgb_array")
    env.reset(options={"goal": [0.4, 0.4]})
    picture = env.render()
    assert picture.shape == (240, 240, 3)
    assert tuple(picture[120, 120]) == (0, 114, 178)  # the point
    robot = gymnasium.make("tinymaml/AntDirection-v0", render_mode="rgb_array")
    robot.reset(seed=0)
    try:
        picture = robot.render()
    except RuntimeError as error:
        assert "MUJOCO_GL" in str(error)
        pytest.skip(f"needs OpenGL: {error}")
    assert picture.shape == (240, 360, 3)
    assert picture.std() > 10
    robot.close()

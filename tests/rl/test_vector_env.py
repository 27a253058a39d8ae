"""Which environments are task distributions, what goals are drawn and handed on, and modules that register some."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="environments need gymnasium: pip install 'tinymaml[rl]'")
pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")

import gymnasium
from gymnasium.spaces import Box, Dict, Discrete

from tests.cases import rl_environments
from tinymaml.rl import policies, vector_env
from tinymaml.rl.sampler import Sampler

SPACES = {
    "box": Box(-2, 2, (1, 2), np.float32),
    "discrete": Discrete(3, start=5),
}


def rngs() -> list[Any]:
    return [np.random.default_rng(3), np.random.RandomState(3)]


@pytest.mark.parametrize("space", SPACES)
def test_goals_of_a_space_are_drawn_from_the_generator_alone(space: str) -> None:
    for one, again in zip(rngs(), rngs(), strict=True):
        goals = vector_env.sample_goals("tests/Target-v0", one, 40, goal_space=SPACES[space])
        same = vector_env.sample_goals("tests/Target-v0", again, 40, goal_space=SPACES[space])
        assert goals.dtype == np.float64
        assert np.array_equal(goals, same)
        others = vector_env.sample_goals("tests/Target-v0", one, 40, goal_space=SPACES[space])
        assert not np.array_equal(goals, others)
        if space == "box":
            assert goals.shape == (40, 2)
            assert len(np.unique(goals)) == 80
            assert np.abs(goals).max() <= 2
        else:  # one-hot
            assert goals.shape == (40, 3)
            assert np.array_equal(goals.sum(1), np.ones(40))
            assert (goals.sum(0) > 5).all()


@pytest.mark.parametrize(("space", "goal"), [("box", [[0.5, -1.25]]), ("discrete", 6)])
def test_reset_gets_elements_of_the_space(space: str, goal: Any) -> None:
    """In every episode, also in those that begin by themselves, and in a single environment."""
    flat = gymnasium.spaces.flatten(SPACES[space], np.array(goal, SPACES[space].dtype))
    env = vector_env.make("tests/Target-v0", 2, 3, goal_space=SPACES[space])
    targets: list[rl_environments.Target] = [each.unwrapped for each in env.unwrapped.envs]  # type: ignore[attr-defined]
    env.reset(seed=[1, 2], options={"goal": np.stack([flat, flat]).astype(np.float64)})
    for _ in range(9):
        env.step(np.full((2, 1), 0.5))
    for target in targets:
        assert len(target.received) == 4  # three more episodes began
        for element in target.received:
            assert SPACES[space].contains(element)
            assert np.array_equal(element, goal)
    env.close()
    single = vector_env.make_single("tests/Target-v0", goal_space=SPACES[space])
    options = {"goal": flat.astype(np.float64), "other": 1}
    single.reset(seed=0, options=options)
    assert np.array_equal(single.unwrapped.goal, goal)  # type: ignore[attr-defined]
    assert np.array_equal(options["goal"], flat)  # the caller's is as it was
    with pytest.raises(ValueError, match=r"goal: expected \d numbers, an element of .* flattened, got 4"):
        single.reset(options={"goal": np.zeros(4)})


def test_a_policy_is_sampled_in_the_tasks_of_a_goal_space() -> None:
    goals = vector_env.sample_goals("tests/Target-v0", np.random.default_rng(0), 4)
    policy = policies.gaussian(1, 1, (4,))
    rollouts = Sampler("tests/Target-v0", policy, 4, 2, 6)(policy.init(np.random.default_rng(1)), goals, (0,))
    for t, goal in enumerate(goals):
        for r in range(2):
            positions = rollouts.observations[t, r, 1:, 0]
            assert rollouts.rewards[t, r, :5] == pytest.approx(-np.abs(positions - goal.sum()), rel=1e-5)


def test_task_distributions_are_told_from_other_environments() -> None:
    for name in ("tests/Pole-v0", "tests/Target-v0", "tinymaml/Navigation-v0", "tinymaml/AntVelocity-v0"):
        vector_env.check_tasks(name)
    vector_env.check_tasks("tests/Target-v0", goal_space=Discrete(2))
    for name, options, message in (
        ("tests/Still-v0", {}, "tests/Still-v0: no task distribution, which meta-learning needs: give .* sample_tasks"),
        ("CartPole-v1", {}, "CartPole-v1: no task distribution, .* goal_space, a Box or Discrete"),
        ("tests/Deaf-v0", {}, r'tests/Deaf-v0: reset does not read options\["goal"\]: all of its tasks would be'),
        ("tests/Crooked-v0", {}, r"tests/Crooked-v0: sample_tasks\(rng, 1\) must give an array \[1, g\], got \[1\]"),
        ("tests/Target-v0", {"goal_space": Dict()}, "tests/Target-v0: goal_space must be a Box or Discrete, got Dict"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            vector_env.check_tasks(name, **options)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda options: options["goal"],
        lambda options: options.get("goal"),
        lambda options: options.pop("goal"),
        lambda options: {**options},
        lambda options: dict(options),
        lambda options: options.copy(),
        lambda options: options | {"other": 1},
        lambda options: dict(options.items()),
        lambda options: (lambda **named: named)(**options),
    ],
)
def test_the_goal_is_seen_to_be_read(read: Any) -> None:
    options = vector_env._RecordingOptions(goal=1)
    assert isinstance(options, dict)
    assert "goal" in options
    assert len(options) == 1
    assert not options.goal_was_read
    read(options)
    assert options.goal_was_read


def test_goals_that_users_name_are_checked() -> None:
    env = vector_env.make_single("tinymaml/HalfCheetahVelocity-v0")
    assert vector_env.checked_goal(env, [1.5]).tolist() == [1.5]
    with pytest.raises(ValueError, match=r"goal must be a number in \[0.0, 2.0\], got"):
        vector_env.checked_goal(env, [3.0])
    env = vector_env.make_single("tests/Target-v0")
    assert vector_env.checked_goal(env, [1.5, 0]).tolist() == [1.5, 0]
    for goal, message in (([3.0, 0.0], "is not in Box"), ([1.0], "expected 2 numbers")):
        with pytest.raises(ValueError, match=message):
            vector_env.checked_goal(env, goal)
    assert vector_env.checked_goal(vector_env.make_single("tests/Pole-v0"), 0.5).tolist() == [0.5]


def test_modules_that_register_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "my_pole.py").write_text(
        "import gymnasium\nfrom tests.cases.rl_environments import Pole\ngymnasium.register('mine/Pole-v0', Pole)\n"
    )
    (tmp_path / "my_wrong.py").write_text("1 / 0\n")
    (tmp_path / "my_needy.py").write_text("import nowhere_at_all\n")
    (tmp_path / "numpy.py").write_text("raise AssertionError('shadows the one that is installed')\n")
    try:
        vector_env.import_environments("my_pole")
        assert vector_env.sample_goals("mine/Pole-v0", np.random.default_rng(0), 2).shape == (2, 1)
    finally:
        gymnasium.registry.pop("mine/Pole-v0", None)
    for module, message in (
        ("my_pool", "import: there is no module 'my_pool', on Python's path or in "),
        ("my_pole.more", "import: there is no module 'my_pole.more', on Python's path"),
        ("my.pole", "import: there is no module 'my.pole', on Python's path"),
        ("my_wrong", "import: the module 'my_wrong' cannot be imported: ZeroDivisionError: division by zero"),
        ("my_needy", "import: the module 'my_needy' cannot be imported: .*No module named 'nowhere_at_all'"),
        ("my pole", "import: there is no module 'my pole'"),
        ("", "import: the module '' cannot be imported: ValueError: Empty module name"),
        (".pole", "import: the module '.pole' cannot be imported: TypeError: .*relative import"),
    ):
        with pytest.raises(ImportError, match=message) as refused:
            vector_env.import_environments(module)
        assert "\n" not in str(refused.value)

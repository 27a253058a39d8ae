"""The sampler: the bits do not depend on the workers, batches are of whole episodes, any environment can be sampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="environments need gymnasium: pip install 'tinymaml[rl]'")
pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")

import gymnasium
from gymnasium.spaces import Box, Dict, Discrete

from tests.cases import rl_environments
from tinymaml import tree
from tinymaml.meta.maml import NonFiniteError
from tinymaml.rl import policies, vector_env
from tinymaml.rl.rollouts import Rollouts
from tinymaml.rl.sampler import Sampler

CASES = [("tinymaml/Navigation-v0", 30), ("tinymaml/HalfCheetahVelocity-v0", 20), ("tinymaml/AntDirection-v0", 80)]
CASES += [("tests/Pole-v0", 15)]
cases = pytest.mark.parametrize(("name", "horizon"), CASES)

TASKS, ROLLOUTS = 5, 3


class Case:
    """Goals, a policy, and parameters of every task."""

    def __init__(
        self, name: str, horizon: int, per_task: bool = True, observes_goal: bool = False, **options: Any
    ) -> None:
        env = vector_env.make(name, 1, horizon, **options)
        observations, actions, discrete = vector_env.sizes(env)
        env.close()
        self.goals = vector_env.sample_goals(name, np.random.default_rng(0), TASKS, **options)
        observations += self.goals.shape[1] if observes_goal else 0
        self.policy = (policies.categorical if discrete else policies.gaussian)(observations, actions, (8,))
        rng = np.random.default_rng(1)
        params = self.policy.init(rng)
        draw = lambda x: (x + 0.3 * rng.standard_normal((TASKS, *x.shape[1:]))).astype(x.dtype)  # noqa: E731
        self.params = tree.map(draw, params) if per_task else params
        self.make = lambda tasks=TASKS, workers=1: Sampler(
            name, self.policy, tasks, ROLLOUTS, horizon, workers, observes_goal, **options
        )


def same_bits(one: Rollouts, other: Rollouts, tasks: slice = slice(None)) -> None:
    for name, b in other.arrays().items():
        a = one.arrays()[name][tasks]
        assert a[:, :, : b.shape[2]].tobytes() == b.tobytes()


@cases
@pytest.mark.parametrize("per_task", [True, False])
def test_the_same_bits_for_any_number_of_workers_and_shards(
    name: str, horizon: int, per_task: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(name, horizon, per_task)
    alone = case.make()(case.params, case.goals, (7, 2))
    for workers in (2, 3, 8):
        same_bits(alone, case.make(workers=workers)(case.params, case.goals, (7, 2)))
    monkeypatch.setattr(vector_env, "preferred_num_envs", lambda env: 2 * ROLLOUTS)
    for workers, shards in ((1, 3), (2, 4), (3, 3)):
        sampler = case.make(workers=workers)
        assert len(sampler._shards) == shards
        same_bits(alone, sampler(case.params, case.goals, (7, 2)))


@cases
def test_a_pure_function_of_parameters_goals_and_key(name: str, horizon: int) -> None:
    case = Case(name, horizon)
    sampler = case.make(workers=2)
    first = sampler(case.params, case.goals, (7, 2))
    other = sampler(case.params, case.goals, (7, 3))
    assert not np.array_equal(first.actions[:, :, 0], other.actions[:, :, 0])
    same_bits(first, sampler(case.params, case.goals, (7, 2)))
    # The first tasks are the same without the others.
    fewer = case.make(2)(tree.map(lambda x: x[:2], case.params), case.goals[:2], (7, 2))
    same_bits(first, fewer, slice(2))


@cases
def test_whole_episodes(name: str, horizon: int) -> None:
    """Every simulation has at least as many transitions as the horizon has steps, and ends with the first episode that
    ends from there on; rewards and observations are those of the environment, one by one."""
    case = Case(name, horizon)
    found = case.make(workers=2)(case.params, case.goals, (1,))
    assert (found.valid.sum(2) >= horizon).all()
    assert (found.valid.sum(2) < 2 * horizon).all()
    counts = found.valid.sum(2)
    assert np.take_along_axis(found.ends, counts[..., None] - 1, 2).all()
    late = found.ends & found.valid & (np.arange(found.ends.shape[2]) >= horizon - 1)
    assert (late.sum(2) == 1).all()
    if name in ("tests/Pole-v0", "tinymaml/AntDirection-v0"):
        assert found.ends[found.times < horizon - 1].any()  # some end early
    assert found.times.max() <= horizon - 1
    for x in (found.observations, found.rewards, found.actions, found.times):
        assert (x[~found.valid] == 0).all()
    if name.startswith("tinymaml"):
        env: Any = gymnasium.make(name, max_episode_steps=horizon)
        seed = np.random.SeedSequence((1, 3)).generate_state(ROLLOUTS)[1]
        seen, _ = env.reset(seed=int(seed), options={"goal": case.goals[3]})
        for t in range(counts[3, 1]):
            assert np.array_equal(found.observations[3, 1, t], seen.astype(np.float32))
            seen, reward, terminated, truncated, _ = env.step(found.actions[3, 1, t])
            assert reward == found.rewards[3, 1, t]
            assert (terminated or truncated) == found.ends[3, 1, t]
            if terminated or truncated:
                seen, _ = env.reset()


def test_the_goal_is_observed() -> None:
    case = Case("tinymaml/HalfCheetahDirection-v0", 10, observes_goal=True)
    found = case.make()(case.params, case.goals, (0,))
    assert found.observations.shape[3] == 21
    assert np.array_equal(found.observations[:, 0, 0, 20], case.goals[:, 0].astype(np.float32))


def test_actions_of_a_users_environment_are_in_units_of_their_bounds() -> None:
    made: list[rl_environments.Pole] = []
    env = vector_env.make("tests/Pole-v0", 2, 10, discrete=False, limit=3.0)
    made = [own.unwrapped for own in env.unwrapped.envs]
    env.reset(seed=[1, 2], options={"goal": np.array([[0.7], [1.2]])})
    env.step(np.array([[0.5], [7.0]], np.float32))
    assert [pole.pushes for pole in made] == [[1.5], [3.0]]
    assert [pole.strength for pole in made] == [0.7, 1.2]
    env.close()


def test_an_environment_without_tasks() -> None:
    case = Case("tests/Still-v0", 5, per_task=False)
    assert case.goals.shape == (TASKS, 0)
    assert case.make()(case.params, case.goals, (0,)).observations.shape == (TASKS, ROLLOUTS, 5, 3)


def test_bad_input() -> None:
    case = Case("tinymaml/Navigation-v0", 10)
    with pytest.raises(ValueError, match="goals: expected 5, one a task, got 2"):
        case.make()(case.params, case.goals[:2], (0,))
    for counts in ((0, 1, 10), (1, 0, 10), (1, 1, 0)):
        with pytest.raises(ValueError, match=r"(tasks|rollouts|horizon) must be at least 1, got 0"):
            Sampler("tinymaml/Navigation-v0", case.policy, *counts)
    with pytest.raises(ValueError, match="Gymnasium has none of the name 'tinymaml/Nowhere-v0'"):
        vector_env.make("tinymaml/Nowhere-v0", 1, 10)
    for spaces, message in (
        ({"seen": Discrete(3)}, "observations must be a Box, got Discrete"),
        ({"seen": Dict({"x": Discrete(2)})}, "observations must be a Box, got Dict"),
        ({"acted": Box(-np.inf, np.inf, (2,), np.float64)}, "actions must be a bounded Box"),
        ({"acted": Discrete(3, start=1)}, "actions must be a bounded Box"),
        ({"acted": Box(-1, 1, (2, 2))}, "actions must be a bounded Box"),
    ):
        with pytest.raises(ValueError, match=message):
            vector_env.make("tests/Still-v0", 1, 10, **spaces)
    params = tree.map(lambda x: np.full_like(x, np.nan), case.params)
    with pytest.raises(NonFiniteError, match="the policy's actions are not finite"):
        case.make()(params, case.goals, (0,))


def test_unstable_physics_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinymaml.tasks.locomotion import LocomotionVectorEnv

    advance, calls = LocomotionVectorEnv._advance, []

    def spoilt(self: Any, actions: Any, ids: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            self._fields["qvel"][[0, 4]] = np.nan
        return advance(self, actions, ids)

    monkeypatch.setattr(LocomotionVectorEnv, "_advance", spoilt)
    case = Case("tinymaml/HalfCheetahVelocity-v0", 10)
    found = case.make()(case.params, case.goals, (0,))
    assert found.unstable == 2
    assert found.ends[0, 0, 2]
    assert found.ends[1, 1, 2]
    assert found.ends[:, :, 2].sum() == 2
    assert np.isfinite(found.observations).all()

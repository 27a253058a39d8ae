"""Returns, the baseline and generalised advantages, against plain loops, on episodes of unequal length."""

from __future__ import annotations

import numpy as np
import pytest

from tinymaml.meta.maml import NonFiniteError
from tinymaml.rl import advantages as adv
from tinymaml.rl.rollouts import Rollouts, batch_of, pad_to_longest, subsample

TASKS, SIMULATIONS, LENGTH, HORIZON = 2, 3, 7, 5


def rollouts(seed: int = 0, padded: bool = True) -> Rollouts:
    """Whole episodes; with padding simulations end at different times, each with an episode."""
    rng = np.random.default_rng(seed)
    shape = (TASKS, SIMULATIONS, LENGTH)
    ends = rng.random(shape) < 0.3
    ends[..., -1] = True
    last = rng.integers(HORIZON - 1, LENGTH, shape[:2]) if padded else np.full(shape[:2], LENGTH - 1)
    np.put_along_axis(ends, last[..., None], True, 2)
    valid = np.arange(LENGTH) <= last[..., None]
    times = np.zeros(shape, int)
    for t in range(1, LENGTH):
        times[..., t] = np.where(ends[..., t - 1], 0, times[..., t - 1] + 1)
    observations, actions = rng.standard_normal((*shape, 2)), rng.standard_normal((*shape, 1))
    return Rollouts(observations, actions, rng.standard_normal(shape), ends, valid, times, 0)


def episodes(result: Rollouts, task: int) -> list[list[tuple[int, int]]]:
    """The places (simulation, time) of each episode's transitions."""
    every: list[list[tuple[int, int]]] = []
    for simulation in range(SIMULATIONS):
        episode: list[tuple[int, int]] = []
        for t in range(LENGTH):
            if result.valid[task, simulation, t]:
                episode.append((simulation, t))
                if result.ends[task, simulation, t]:
                    every.append(episode)
                    episode = []
        assert not episode
    return every


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("discount", "gae"), [(0.99, 1.0), (0.9, 0.7)])
def test_advantages_against_plain_loops(padded: bool, discount: float, gae: float) -> None:
    given = rollouts(padded=padded)
    result = adv.advantages(given, discount, gae)
    for task in range(TASKS):
        returns: dict[tuple[int, int], float] = {}
        rows, targets, places = [], [], []
        for episode in episodes(given, task):
            total = 0.0
            for place in reversed(episode):
                total = float(given.rewards[task][place]) + discount * total
                returns[place] = total
            for t, place in enumerate(episode):
                o = np.clip(given.observations[task][place], -10, 10)
                rows.append([*o, *(o**2), t / 100, (t / 100) ** 2, (t / 100) ** 3, 1.0])
                targets.append(returns[place])
                places.append(place)
        x, y = np.array(rows), np.array(targets)
        values = dict(zip(places, x @ np.linalg.solve(x.T @ x + 1e-5 * np.eye(8), x.T @ y), strict=True))
        expected = {}
        for episode in episodes(given, task):
            for t, place in enumerate(episode):
                total = 0.0
                for later in range(t, len(episode)):
                    after = values[episode[later + 1]] if later + 1 < len(episode) else 0.0
                    delta = given.rewards[task][episode[later]] + discount * after - values[episode[later]]
                    total += (discount * gae) ** (later - t) * float(delta)
                expected[place] = total
        numbers = np.array(list(expected.values()))
        for place, value in expected.items():
            assert result[task][place] == pytest.approx((value - numbers.mean()) / numbers.std(), abs=1e-6)
        assert (result[task][~given.valid[task]] == 0).all()


def test_returns_of_unequal_episodes() -> None:
    given = rollouts()
    for task in range(TASKS):
        of_task = episodes(given, task)
        gains = [sum(given.rewards[task][place] for place in episode) for episode in of_task]
        assert given.returns()[task] == pytest.approx(np.mean(gains))
        assert given.episodes()[task] == len(of_task)
        assert given.transitions()[task] == sum(map(len, of_task))


def test_observations_are_clipped_in_the_features() -> None:
    result = adv.features(np.array([[100.0, -0.5]]), np.array([50]))
    assert result[0].tolist() == [10.0, -0.5, 100.0, 0.25, 0.5, 0.25, 0.125, 1.0]


def test_a_baseline_that_cannot_be_fitted() -> None:
    x = np.ones((4, 2))
    assert adv.fitted(x, np.arange(4.0)) == pytest.approx(np.full(4, 1.5), abs=1e-4)  # singular but for the ridge
    with pytest.raises(NonFiniteError, match="the baseline cannot be fitted"):
        adv.fitted(x, np.array([np.nan, 0, 0, 0]))


def test_batches_keep_what_is_valid() -> None:
    given = rollouts()
    weighed = np.where(given.valid, given.rewards, np.nan)  # what is not valid must not come through
    result = batch_of(given, weighed, HORIZON, np.float64)
    counts = given.transitions()
    assert result["weights"].sum(1) == pytest.approx(1)
    assert result["shares"] == pytest.approx(counts / counts.sum())
    for task in range(TASKS):
        chosen = given.valid[task]
        for name, whole in (("observations", given.observations), ("actions", given.actions), ("advantages", weighed)):
            assert np.array_equal(result[name][task, : counts[task]], whole[task][chosen])
            assert (result[name][task, counts[task] :] == 0).all()
        assert result["weights"][task, : counts[task]] == pytest.approx(1 / counts[task])
        assert (result["weights"][task, counts[task] :] == 0).all()
    assert result["weights"].shape[1] % -(-SIMULATIONS * HORIZON // 4) == 0


def test_a_share_of_a_batch() -> None:
    result = batch_of(rollouts(padded=False), np.zeros((TASKS, SIMULATIONS, LENGTH)), LENGTH, np.float64)
    few = subsample(result, 1 / 3)
    assert few["weights"].shape == (TASKS, 7)
    assert few["weights"].sum(1) == pytest.approx(1)
    assert np.array_equal(few["observations"], result["observations"][:, ::3])
    assert subsample(result, 1.0) is result


def test_batches_are_made_alike() -> None:
    one, other = (
        {"weights": np.ones((2, n)), "old": {"mean": np.ones((2, n, 3))}, "shares": np.ones(2)} for n in (4, 6)
    )
    result, same = pad_to_longest([one, other])
    assert result["old"]["mean"].shape == (2, 6, 3)
    assert result["weights"].sum() == 8
    assert result["shares"] is one["shares"]
    assert same["weights"] is other["weights"]


def test_tasks_are_pooled() -> None:
    one = rollouts(0)
    assert one.pooled().returns() == pytest.approx(np.average(one.returns(), weights=one.episodes()))

"""How fast rollouts are sampled, policy included, beside the physics alone and beside Gymnasium's own vectors.

The physics alone is `mujoco.batch.Batch.rollout`, open loop, on as many threads: the same episodes, with the starts and
the actions that the sampler's have; that their velocities are the same to the bit is checked first. Gymnasium's is
SyncVectorEnv of the reference environments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.output import Row
from bench.timing import spread

if TYPE_CHECKING:
    from tinymaml.rl.rollouts import Rollouts

TASKS, ROLLOUTS, HORIZON = 40, 20, 200
SYNC, SYNC_STEPS = 32, 100
THREADS = 2
KEY = (0,)  # of the sampler's random numbers

CASES = {  # task, flavour, and where the velocities begin among what is observed
    "cheetah, rllab": ("HalfCheetahDirection", "rllab", 8),
    "cheetah, gym": ("HalfCheetahDirection", "gym", 8),
    "ant, rllab": ("AntDirection", "rllab", 15),
    "ant, gym": ("AntDirection", "gym", 13),
}


def run(rounds: int) -> list[Row]:
    """Transitions a second of each, in interleaved rounds; medians, and the middle 80 % of the ratios."""
    import threadpoolctl

    print(f"\nSampling, {TASKS} tasks x {ROLLOUTS} episodes x {HORIZON} steps, MLP 100-100, {THREADS} threads")
    names = ("physics alone", "sampler", "ratio", "SyncVectorEnv", "ratio")
    print(f"  {'transitions a second':22}" + "".join(f"{name:>18}" for name in names))
    rows: list[Row] = []
    with threadpoolctl.threadpool_limits(1):
        for name, (task, flavour, velocities) in CASES.items():
            sample = _sampler(task, flavour)
            turns = {
                "physics": _physics(task, flavour, velocities, sample()),
                "sampler": _timed(lambda sample=sample: int(sample().transitions().sum())),
                "sync": _sync(task, flavour),
            }
            for one in turns.values():
                one()
            rates = {key: np.array([], float) for key in turns}
            for _ in range(rounds):
                for key, one in turns.items():
                    rates[key] = np.append(rates[key], one())
            ratio = spread(rates["sampler"] / rates["physics"])
            medians = {key: float(np.median(values)) for key, values in rates.items()}
            beside = medians["sampler"] / medians["sync"]
            cells = [f"{medians[key]:.0f}" for key in turns]
            cells[2:2] = ["{:.2f} ({:.2f}-{:.2f})".format(*ratio)]
            print(f"  {name:22}" + "".join(f"{cell:>18}" for cell in [*cells, f"{beside:.1f}"]))
            rows.append({"part": "sampler", "case": name, **medians, "ratio": ratio[0], "over_sync": beside})
    return rows


def _timed(work: Callable[[], int]) -> Callable[[], float]:
    """Transitions a second of work that says how many it made."""

    def turn() -> float:
        start = time.perf_counter()
        count = work()
        return count / (time.perf_counter() - start)

    return turn


def _physics(task: str, flavour: str, velocities: int, rollouts: Rollouts) -> Callable[[], float]:
    """The physics of these rollouts: an episode a simulation, side by side, each for as long as it has actions."""
    from mujoco import mjtState
    from mujoco.batch import Batch

    from tinymaml.tasks import robots
    from tinymaml.tasks.vector_env import generator

    robot = robots.robot(robots.TASKS[task].robot, flavour)
    model, skip = robot.model(), robot.frame_skip
    episodes = []
    for t, lane in np.ndindex(TASKS, ROLLOUTS):
        rng = generator(int(np.random.SeedSequence([*KEY, t]).generate_state(ROLLOUTS)[lane]))
        ends = np.flatnonzero(rollouts.ends[t, lane] & rollouts.valid[t, lane]) + 1
        for a, b in pairwise([0, *ends]):
            actions = np.clip(rollouts.actions[t, lane, a:b].astype(np.float64), -1, 1).repeat(skip, 0)
            start = robot.initial_state(rng, model.qpos0, np.zeros(model.nv))
            episodes.append((actions, start, rollouts.observations[t, lane, a:b]))
    episodes.sort(key=lambda episode: -len(episode[0]))
    lengths = np.array([len(actions) for actions, _, _ in episodes])
    controls = [
        np.stack([actions[a:b] for actions, _, _ in episodes[: np.count_nonzero(lengths >= b)]])
        for a, b in pairwise([0, *np.unique(lengths)])
    ]
    batch = Batch(model, len(episodes), THREADS)
    qpos, qvel = batch.bind("qpos"), batch.bind("qvel")

    def work(*record: str) -> list[dict[str, Any]]:
        batch.reset()
        for i, (_, start, _) in enumerate(episodes):
            qpos[i], qvel[i] = start
        control = int(mjtState.mjSTATE_CTRL)
        return [batch.rollout(x.shape[1], x, control, record, np.arange(len(x))) for x in controls]

    moved = [part["qvel"] for part in work("qvel")]
    for i, (_, _, observations) in enumerate(episodes):
        alone = np.concatenate([x[i] for x in moved if i < len(x)])[skip - 1 : -1 : skip].astype(np.float32)
        seen = observations[1:, velocities:][:, : model.nv]
        if not np.array_equal(alone, seen):
            raise RuntimeError(f"episode {i} of {task}, {flavour}: the physics alone goes another way than the sampler")

    def turn() -> int:
        work()
        return int(lengths.sum()) // skip

    return _timed(turn)


def _policy(task: str, flavour: str) -> tuple[str, Any, Any, Any]:
    from tinymaml.rl import policies, vector_env

    name = f"tinymaml/{task}-v0"
    observations, actions, _ = vector_env.sizes(vector_env.make(name, 1, HORIZON, flavour=flavour))
    policy = policies.gaussian(observations, actions)
    goals = vector_env.sample_goals(name, np.random.default_rng(0), TASKS, flavour=flavour)
    return name, policy, policy.init(np.random.default_rng(0)), goals


def _sampler(task: str, flavour: str) -> Callable[[], Rollouts]:
    from tinymaml import tree
    from tinymaml.rl.sampler import Sampler

    name, policy, params, goals = _policy(task, flavour)
    sampler = Sampler(name, policy, TASKS, ROLLOUTS, HORIZON, THREADS, flavour=flavour)
    of_tasks = tree.map(lambda x: x.repeat(TASKS, 0), params)  # a policy for every task, as after adaptation
    return lambda: sampler(of_tasks, goals, KEY)


def _sync(task: str, flavour: str) -> Callable[[], float]:
    import gymnasium

    name, policy, params, _ = _policy(task, flavour)
    env = gymnasium.make_vec(name, SYNC, vectorization_mode="sync", flavour=flavour)
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)

    def work() -> int:
        observations = seen
        for _ in range(SYNC_STEPS):
            outputs = policy.apply(params, np.asarray(observations, np.float32)[None])
            distribution = {key: x.numpy() for key, x in outputs.items()}
            observations, *_ = env.step(policy.act(distribution, policy.noise(rng, (1, SYNC)))[0])
        return SYNC * SYNC_STEPS

    return _timed(work)

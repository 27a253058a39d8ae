"""How fast rollouts are sampled, policy included, beside the physics alone and beside Gymnasium's own vectors.

The physics alone is `mujoco.batch.Batch.rollout`, open loop: the same numbers of simulations, steps and threads, with
actions drawn as the untrained policy draws them. Gymnasium's is SyncVectorEnv of the reference environments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.output import Row
from bench.timing import spread

TASKS, ROLLOUTS, HORIZON = 40, 20, 200
SYNC, SYNC_STEPS = 32, 100
THREADS = 2

CASES = {
    "cheetah, rllab": ("HalfCheetahDirection", "rllab"),
    "cheetah, gym": ("HalfCheetahDirection", "gym"),
    "ant, rllab": ("AntDirection", "rllab"),
    "ant, gym": ("AntDirection", "gym"),
}


def run(rounds: int) -> list[Row]:
    """Transitions a second of each, in interleaved rounds; medians, and the middle 80 % of the ratios."""
    import threadpoolctl

    print(f"\nSampling, {TASKS} tasks x {ROLLOUTS} episodes x {HORIZON} steps, MLP 100-100, {THREADS} threads")
    names = ("physics alone", "sampler", "ratio", "SyncVectorEnv", "ratio")
    print(f"  {'transitions a second':22}" + "".join(f"{name:>18}" for name in names))
    rows: list[Row] = []
    with threadpoolctl.threadpool_limits(1):
        for name, (task, flavour) in CASES.items():
            turns = {
                "physics": _physics(task, flavour),
                "sampler": _sampler(task, flavour),
                "sync": _sync(task, flavour),
            }
            for one in turns.values():
                one()
            found = {key: np.array([], float) for key in turns}
            for _ in range(rounds):
                for key, one in turns.items():
                    found[key] = np.append(found[key], one())
            ratio = spread(found["sampler"] / found["physics"])
            medians = {key: float(np.median(values)) for key, values in found.items()}
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


def _physics(task: str, flavour: str) -> Callable[[], float]:
    import mujoco
    from mujoco.batch import Batch

    from tinymaml.tasks import robots

    robot = robots.robot(robots.TASKS[task].robot, flavour)
    model = robot.model()
    count = TASKS * ROLLOUTS
    batch = Batch(model, count, THREADS)
    qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
    rng = np.random.default_rng(0)
    actions = np.clip(rng.standard_normal((count, HORIZON, model.nu)), -1, 1).repeat(robot.frame_skip, 1)
    control = int(mujoco.mjtState.mjSTATE_CTRL)

    def work() -> int:
        batch.reset()
        for i in range(count):
            qpos[i], qvel[i] = robot.start(rng, model.qpos0, np.zeros(model.nv))
        batch.rollout(HORIZON * robot.frame_skip, actions, control_spec=control)
        return count * HORIZON

    return _timed(work)


def _policy(task: str, flavour: str) -> tuple[str, Any, Any, Any]:
    from tinymaml.rl import lanes, policies

    name = f"tinymaml/{task}-v0"
    observations, actions, _ = lanes.sizes(lanes.make(name, 1, HORIZON, flavour=flavour))
    policy = policies.gaussian(observations, actions)
    goals = lanes.sample_goals(name, np.random.default_rng(0), TASKS, flavour=flavour)
    return name, policy, policy.init(np.random.default_rng(0)), goals


def _sampler(task: str, flavour: str) -> Callable[[], float]:
    from tinymaml import tree
    from tinymaml.rl.sampler import Sampler

    name, policy, params, goals = _policy(task, flavour)
    sampler = Sampler(name, policy, TASKS, ROLLOUTS, HORIZON, THREADS, flavour=flavour)
    own = tree.map(lambda x: x.repeat(TASKS, 0), params)  # a policy for every task, as after adaptation
    return _timed(lambda: int(sampler(own, goals, (0,)).transitions().sum()))


def _sync(task: str, flavour: str) -> Callable[[], float]:
    import gymnasium

    name, policy, params, _ = _policy(task, flavour)
    env = gymnasium.make_vec(name, SYNC, vectorization_mode="sync", flavour=flavour)
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)

    def work() -> int:
        observations = seen
        for _ in range(SYNC_STEPS):
            found = policy.apply(params, np.asarray(observations, np.float32)[None])
            distribution = {key: x.numpy() for key, x in found.items()}
            observations, *_ = env.step(policy.act(distribution, policy.noise(rng, (1, SYNC)))[0])
        return SYNC * SYNC_STEPS

    return _timed(work)

"""An animated picture of a policy before and after adaptation."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.control.workbench import Workbench
from tinymaml.experiments.registry import check_run
from tinymaml.tasks.extras import require, require_all
from tinymaml.train import loop
from tinymaml.train.experiment import Experiment
from tinymaml.train.files import atomic_write

_FRAMES = 25  # a second, at most
_EPISODE, _ADAPTATION = 3, 4  # parts of the random numbers' key, which training and evaluation do not have


def draw(
    experiment: Experiment,
    run: Path,
    method: str,
    goal: list[float] | None,
    steps: int,
    seed: int,
    picture: Path,
) -> Path:
    """Draw an episode of the policy as it was meta-trained, beside one after inner steps towards the goal.

    The parameters are those best in validation, if there are such, or the last.

    Args:
        run: folder of the run.
        goal: numbers, or None to draw one.
        steps: inner steps, each from fresh episodes as in an evaluation.
        picture: the file, a GIF; its folder is made if need be.

    Returns:
        The path.

    Raises:
        FileNotFoundError: the method was not trained there.
        RunOfAnother: what was trained there is another experiment, or another method.
        ValueError: a goal that is none of the task's, steps < 1, or a name that does not end in .gif.
        RuntimeError: MuJoCo finds no OpenGL.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if picture.suffix.lower() != ".gif":
        raise ValueError(f"picture: the name must end in .gif, got {picture.name}")
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when it is imported
    require_all([("PIL.Image", "rl"), ("h5py", "train"), *experiment.needs])
    from tinymaml.rl import vector_env

    image = require("PIL.Image", "rl")
    trained = loop.latest(run / method)
    check_run(run / method, trained.settings, experiment, method)
    trained_with: Any = experiment.of(trained.settings)
    bench = Workbench(trained_with.domain, trained_with.method(method), trained_with.training)
    env = bench.single("rgb_array")
    drawn = bench.goals(np.random.default_rng(seed), 1)[0]
    goals = (vector_env.checked_goal(env, goal) if goal is not None else drawn)[None]
    params = trained.best["params"] if trained.best else trained.state["params"]
    episodes = [_episode(bench, env, params, goals, seed)]
    sampler = bench.sampler(1, bench.domain.eval_rollouts)
    for k in range(steps):
        rollouts = sampler(params, goals, (seed, _ADAPTATION, k))
        size = bench.method.alpha * (bench.domain.eval_decay if k else 1.0)
        params = bench.adapted(params, bench.batch(rollouts), np.asarray(size, bench.training.dtype))
    episodes.append(_episode(bench, env, params, goals, seed))
    every = max(1, round(env.unwrapped.metadata["render_fps"] / _FRAMES))
    shown = " ".join(f"{x:g}" for x in goals[0])
    titles = (f"goal {shown}: before", f"after {steps} inner step{'s' * (steps > 1)}")
    frames = _side_by_side([frames[::every] for frames, _ in episodes], titles, [gained for _, gained in episodes])
    env.close()
    buffer = io.BytesIO()
    first, *rest = [image.fromarray(frame) for frame in frames]
    delay = round(1000 * every / env.unwrapped.metadata["render_fps"])
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=delay, loop=0)
    picture.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(picture, buffer.getvalue())
    return picture


def _episode(bench: Workbench, env: Any, params: Tree, goals: Array, seed: int) -> tuple[list[Array], float]:
    """The frames of an episode, and its return."""
    rng = np.random.default_rng((seed, _EPISODE))
    observation, _ = env.reset(seed=seed, options={"goal": goals[0]})
    frames, gained, over = [env.render()], 0.0, False
    while not over:
        seen = np.asarray(observation, bench.training.dtype)[None, None]
        if bench.method.INFORMED:
            seen = np.concatenate([seen, goals[None].astype(seen.dtype)], 2)
        distribution = tree.map(lambda x: x.numpy(), bench.policy.apply(params, seen))
        action = bench.policy.act(distribution, bench.policy.noise(rng, (1, 1)))[0, 0]
        observation, reward, terminated, truncated, _ = env.step(action)
        frames.append(env.render())
        gained, over = gained + float(reward), terminated or truncated
    return frames, gained


def _side_by_side(episodes: list[list[Array]], titles: tuple[str, ...], returns: list[float]) -> list[Array]:
    """Frames next to each other, each with its title above; one that is over waits for the other."""
    image, draw = require("PIL.Image", "rl"), require("PIL.ImageDraw", "rl")
    length = max(len(frames) for frames in episodes)
    frames_beside = []
    for i in range(length):
        parts = []
        for frames, title, gained in zip(episodes, titles, returns, strict=True):
            frame = frames[min(i, len(frames) - 1)]
            whole = image.new("RGB", (frame.shape[1] + 4, frame.shape[0] + 18), "white")
            whole.paste(image.fromarray(frame), (2, 16))
            draw.Draw(whole).text((4, 3), f"{title}, return {gained:.0f}", fill="black")
            parts.append(np.asarray(whole))
        frames_beside.append(np.concatenate(parts, 1))
    return frames_beside

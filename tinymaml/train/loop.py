"""The training loop: resumes from the latest good checkpoint, writes metrics, stops cleanly, says why it diverged."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinymaml.autodiff import tree
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, lock
from tinymaml.train.metrics import Metrics
from tinymaml.train.trainer import Figures, Trained, Trainer
from tinymaml.train.training import Loop

Report = Callable[..., None]  # with the names and values of a line of metrics


class TrainingDiverged(ArithmeticError):
    """The loss or a gradient stopped being finite; the message says where, and what to try."""


class Interrupted(Exception):
    """Training was asked to stop, and did so after writing a checkpoint."""


class SettingsDiffer(ValueError):
    """The folder holds a run with other settings."""


def train(
    folder: Path,
    trainer: Trainer,
    report: Report = lambda **line: None,
    defaults: Mapping[str, Any] | None = None,
) -> Tree:
    """Train to the trainer's `iterations`, from where the folder's latest checkpoint is.

    Args:
        folder: holds `checkpoints/` and `metrics.jsonl`; made if need be. While it trains no other process may.
        trainer: what is trained. Figures of its steps are averaged between two lines of metrics. A step is asked for at
            most `longest_step` iterations, and never for more than there are until the next line, validation or
            checkpoint. The parameters with the smallest validation error are kept in the checkpoints, beside the last.
        report: is called with every line of metrics, and the figures of the last validation among them.
        defaults: what settings were for runs from before there were these settings; the trainer's own, if not given.

    Returns:
        The final state.

    Raises:
        SettingsDiffer, TrainingDiverged, Interrupted, checkpoint.CheckpointError, lock.InUse.
    """
    trainer.ready()
    with lock.held(folder / "lock", str(folder)):
        return _train(folder, trainer, report, defaults or {})


def _train(folder: Path, trainer: Trainer, report: Report, defaults: Mapping[str, Any]) -> Tree:
    places, settings, wanted = folder / "checkpoints", trainer.training, _description(trainer)
    resumed = resumable(folder, trainer, defaults)
    if resumed is None:
        iteration, state, running, seconds, best = 0, trainer.start(), _EMPTY, 0.0, None
    else:
        iteration, state = resumed.iteration, resumed.state["state"]
        running, seconds, best = (resumed.state[name] for name in ("running", "seconds", "best"))
        check_parameters(folder, trainer, state["params"])
    if iteration >= settings.iterations:
        return state

    saved = iteration if resumed is not None else None

    def save() -> None:
        nonlocal saved
        content = {"state": state, "running": running, "seconds": seconds, "best": best}
        checkpoint.write_numbered(places, content, wanted, iteration, settings.keep)
        saved = iteration

    validated: Figures = {}
    before = time.perf_counter() - seconds
    with stop_signals() as stopped:
        metrics = Metrics(folder, iteration)
        try:
            while iteration < settings.iterations:
                began, count = time.perf_counter(), _until_next_event(iteration, settings)
                try:
                    state, figures = trainer.step(state, count)
                except NonFiniteError as caught:
                    done, reason = _first_bad(trainer, state, count, caught)
                    raise TrainingDiverged(_diverged(iteration + done, reason, places, saved)) from reason
                iteration += count
                running = _add(running, figures, time.perf_counter() - began)
                if iteration % settings.log_every == 0 or iteration == settings.iterations:
                    seconds = time.perf_counter() - before
                    line = {**_means(running, trainer.images), "seconds": round(seconds, 3)}
                    running = _EMPTY
                    metrics.write(iteration, **line)
                    report(iteration=iteration, **line, **validated)
                if iteration % settings.validate_every == 0:
                    try:
                        validated = trainer.validate(state) or {}
                    except NonFiniteError as reason:
                        raise TrainingDiverged(_diverged(iteration, reason, places, saved)) from reason
                    if validated:
                        metrics.write(iteration, **validated)
                        error = validated["validation"]
                        if best is None or error < best["error"]:
                            best = {"iteration": iteration, "error": error, "params": state["params"]}
                if iteration % settings.checkpoint_every == 0 or iteration == settings.iterations or stopped():
                    seconds = time.perf_counter() - before
                    save()
                    if stopped() and iteration < settings.iterations:
                        raise Interrupted(f"stopped at iteration {iteration}; the same command goes on from there")
        finally:
            metrics.close()
    return state


def resumable(folder: Path, trainer: Trainer, defaults: Mapping[str, Any]) -> checkpoint.Checkpoint | None:
    """The checkpoint that a run goes on from, None if there is none. Raises SettingsDiffer: it is of another run."""
    saved = checkpoint.latest(folder / "checkpoints")
    if saved is not None:
        wanted = _description(trainer)
        _check_settings(folder, saved, wanted, {**wanted, **defaults}, trainer.free())
    return saved


def _description(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint says that it is of."""
    return {"experiment": trainer.experiment, "method": trainer.name, **trainer.settings()}


def _until_next_event(iteration: int, settings: Loop) -> int:
    """How many iterations to take at once."""
    events = (settings.log_every, settings.validate_every, settings.checkpoint_every)
    left = [every - iteration % every for every in events]
    return min(settings.longest_step, settings.iterations - iteration, *left)


def _first_bad(trainer: Trainer, state: Tree, count: int, error: NonFiniteError) -> tuple[int, NonFiniteError]:
    """How many of the iterations are good, and what the next one raises: they are taken again, one at a time."""
    if count == 1:
        return 0, error
    for done in range(count):
        try:
            state, _ = trainer.step(state, 1)
        except NonFiniteError as first:
            return done, first
    return count - 1, error


# What was summed since the last line of metrics.
_EMPTY: dict[str, Any] = {"iterations": 0, "busy": 0.0, "sums": {}}


def _add(running: dict[str, Any], figures: list[Figures], busy: float) -> dict[str, Any]:
    sums = running["sums"]
    for of_iteration in figures:
        sums = {name: sums.get(name, 0.0) + value for name, value in of_iteration.items()}
    return {"iterations": running["iterations"] + len(figures), "busy": running["busy"] + busy, "sums": sums}


def _means(running: dict[str, Any], images: int) -> Figures:
    """The means of the figures, and how many images a second the steps went through, if it was images."""
    count = running["iterations"]
    means = {name: total / count for name, total in running["sums"].items()}
    return {**means, "images_per_second": round(images * count / running["busy"], 1)} if images else means


def latest(folder: Path) -> Trained:
    """The latest checkpoint in a run's folder. Raises FileNotFoundError if there is none."""
    saved = checkpoint.latest(folder / "checkpoints")
    if saved is None:
        raise FileNotFoundError(f"{folder} has no checkpoint: train it first")
    return Trained(
        renamed(saved.settings), saved.state["state"], saved.iteration, saved.state["seconds"], saved.state["best"]
    )


def check_parameters(folder: Path, trainer: Trainer, params: Tree) -> None:
    """Raises SettingsDiffer if a run's parameters are not those of the trainer's network."""
    before, now = (
        {path: f"{x.dtype} {list(x.shape)}" for path, x in zip(tree.paths(of), tree.leaves(of), strict=True)}
        for of in (params, trainer.start()["params"])
    )
    for path in [*before, *now]:
        if before.get(path) != now.get(path):
            raise SettingsDiffer(
                f"{folder} holds a run of another network: params{path} is {before.get(path, 'not')} there, and "
                f"{now.get(path, 'not')} here: take another folder, or the same network"
            )


# Settings that had other names once.
_RENAMED = {"start": "initialiser", "head_start": "head_initialiser"}


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint under their names of today."""
    return {_RENAMED.get(name, name): value for name, value in settings.items()}


def _check_settings(
    folder: Path,
    saved: checkpoint.Checkpoint,
    wanted: Mapping[str, Any],
    defaults: Mapping[str, Any],
    free: frozenset[str],
) -> None:
    """Raises SettingsDiffer, which names the first difference, unless a run may go on from a checkpoint."""
    before = renamed(saved.settings)
    if saved.iteration > wanted["iterations"]:
        raise SettingsDiffer(
            f"{folder} holds a run of {saved.iteration} iterations, this one has {wanted['iterations']}: "
            f"take another --out, or --iterations {saved.iteration} to evaluate what is there"
        )
    for name in ("experiment", "method", *sorted(set(wanted) | set(before) - set(defaults))):
        was = before[name] if name in before else defaults.get(name)
        if name not in free and was != wanted.get(name):
            raise SettingsDiffer(
                f"{folder} holds a run with {name} = {was}, this one has {wanted.get(name)}: "
                "take another --out, or the same settings to go on"
            )


def _diverged(iteration: int, error: Exception, places: Path, saved: int | None) -> str:
    good = (
        "there is no checkpoint yet"
        if saved is None
        else f"the last good checkpoint, {places}, is at iteration {saved}"
    )
    return (
        f"training diverged at iteration {iteration}: {error}; {good}. "
        "Try a smaller --learning-rate or --alpha, or --clip-norm 10"
    )


@contextmanager
def stop_signals(act: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM set a flag, and call `act`, instead of breaking off in the middle; a second one breaks off."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def stop(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()
        act()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

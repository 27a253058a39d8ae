"""The training loop: resumes from the latest good checkpoint, writes metrics, stops cleanly, says why it diverged."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.maml import NonFiniteError
from tinymaml.train import checkpoint
from tinymaml.train.metrics import Metrics
from tinymaml.train.settings import Settings
from tinymaml.tree import Tree

Step = Callable[[Tree], tuple[Tree, float]]
Report = Callable[[int, float, float], None]  # iteration, loss, seconds


class TrainingDiverged(ArithmeticError):
    """The loss or a gradient stopped being finite; the message says where, and what to try."""


class Interrupted(Exception):
    """Training was asked to stop, and did so after writing a checkpoint."""


class SettingsDiffer(ValueError):
    """The folder holds a run with other settings."""


def train(
    folder: Path,
    settings: Settings,
    method: str,
    start: Callable[[], Tree],
    step: Step,
    report: Report = lambda iteration, loss, seconds: None,
    validate: Callable[[Tree], float] | None = None,
) -> Tree:
    """Train to `settings.iterations`, from where the folder's latest checkpoint is.

    Args:
        folder: holds `checkpoints/` and `metrics.jsonl`; made if need be.
        start: gives the first state, a pytree that holds all that a step depends on: parameters, the optimiser's state,
            the position in the stream of tasks.
        step: state -> (next state, loss); pure, so that a resumed run gives the same bits as one that never stopped.
        report: is called with every line of metrics.
        validate: state -> error on held-out tasks; every `settings.validate_every` iterations. The parameters with the
            smallest are kept in the checkpoints, beside the last.

    Returns:
        The final state.

    Raises:
        SettingsDiffer, TrainingDiverged, Interrupted, checkpoint.CheckpointError.
    """
    places = folder / "checkpoints"
    wanted = {"method": method, **settings.as_dict()}
    found = checkpoint.latest(places)
    if found is None:
        iteration, state, running, seconds, best = 0, start(), [0.0, 0], 0.0, None
    else:
        _check_settings(folder, found.settings, wanted, settings.FREE)
        iteration, state = found.iteration, found.state["state"]
        running, seconds, best = list(found.state["running"]), found.state["seconds"], found.state["best"]
    if iteration >= settings.iterations:
        return state

    saved = iteration if found is not None else None

    def save() -> None:
        nonlocal saved
        content = {"state": state, "running": running, "seconds": seconds, "best": best}
        checkpoint.write_numbered(places, content, wanted, iteration, settings.keep)
        saved = iteration

    metrics = Metrics(folder, iteration)
    before = time.perf_counter() - seconds
    try:
        with stop_signals() as stopped:
            while iteration < settings.iterations:
                try:
                    state, loss = step(state)
                except NonFiniteError as reason:
                    raise TrainingDiverged(_diverged(iteration, reason, places, saved)) from reason
                iteration += 1
                running = [running[0] + loss, running[1] + 1]
                if iteration % settings.log_every == 0 or iteration == settings.iterations:
                    seconds = time.perf_counter() - before
                    mean = running[0] / running[1]
                    running = [0.0, 0]
                    metrics.write(iteration, loss=mean, seconds=round(seconds, 3))
                    report(iteration, mean, seconds)
                if validate is not None and iteration % settings.validate_every == 0:
                    error = validate(state)
                    metrics.write(iteration, validation=error)
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


class Trained(NamedTuple):
    """What the latest checkpoint of a run holds."""

    settings: dict[str, Any]
    state: Tree
    iterations: int
    seconds: float
    best: dict[str, Any] | None  # iteration, validation error and params; None if there was no validation


def latest(folder: Path) -> Trained:
    """The latest checkpoint in a run's folder. Raises FileNotFoundError if there is none."""
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint: train it first")
    return Trained(found.settings, found.state["state"], found.iteration, found.state["seconds"], found.state["best"])


def _check_settings(folder: Path, found: dict[str, Any], wanted: dict[str, Any], free: tuple[str, ...]) -> None:
    for name in sorted(set(found) | set(wanted)):
        if name not in free and found.get(name) != wanted.get(name):
            raise SettingsDiffer(
                f"{folder} holds a run with {name} = {found.get(name)}, this one has {wanted.get(name)}: "
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

"""The training loop: resumes from the latest good checkpoint, writes metrics, stops cleanly, says why it diverged."""

from __future__ import annotations

import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.autodiff.tree import Tree
from tinymaml.device import describe_gpu
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, lock
from tinymaml.train.metrics import Metrics
from tinymaml.train.settings import Settings

Figures = dict[str, float]
Step = Callable[..., tuple[Tree, list[Figures]]]  # step(state, count=1) -> (state, figures of each iteration)
Report = Callable[..., None]  # with the names and values of a line of metrics


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
    report: Report = lambda **line: None,
    validate: Callable[[Tree], Figures] | None = None,
    experiment: str | None = None,
) -> Tree:
    """Train to `settings.iterations`, from where the folder's latest checkpoint is.

    Args:
        folder: holds `checkpoints/` and `metrics.jsonl`; made if need be. While it trains no other process may.
        start: gives the first state, a pytree that holds all that a step depends on: parameters, the optimiser's state,
            the position in the stream of tasks.
        step: step(state, count) -> (the state after so many iterations, and of each {"loss": ...}, with other figures
            perhaps, which are averaged between two lines of metrics); pure, so that a resumed run gives the same bits
            as one that never stopped. It is asked for at most `settings.longest_step` iterations, and never for
            more than there are until the next line, validation or checkpoint.
        report: is called with every line of metrics, and the figures of the last validation among them.
        validate: state -> {"validation": the error on held-out tasks}, with other figures perhaps; every
            `settings.validate_every` iterations. The parameters with the smallest error are kept in the checkpoints,
            beside the last.
        experiment: the name of what is trained, if it has one: checkpoints say it, and are refused elsewhere.

    Returns:
        The final state.

    Raises:
        SettingsDiffer, TrainingDiverged, Interrupted, checkpoint.CheckpointError, lock.InUse.
    """
    with lock.held(folder / "lock", str(folder)):
        return _train(folder, settings, method, start, step, report, validate, experiment)


def _train(
    folder: Path,
    settings: Settings,
    method: str,
    start: Callable[[], Tree],
    step: Step,
    report: Report,
    validate: Callable[[Tree], Figures] | None,
    experiment: str | None,
) -> Tree:
    places = folder / "checkpoints"
    wanted = {**({"experiment": experiment} if experiment else {}), "method": method, **settings.as_dict()}
    found = checkpoint.latest(places)
    if found is None:
        iteration, state, running, seconds, best = 0, start(), _EMPTY, 0.0, None
    else:
        _check_settings(folder, found, wanted, settings.FREE)
        iteration, state = found.iteration, found.state["state"]
        running, seconds, best = (found.state[name] for name in ("running", "seconds", "best"))
    if iteration >= settings.iterations:
        return state

    saved = iteration if found is not None else None

    def save() -> None:
        nonlocal saved
        content = {"state": state, "running": running, "seconds": seconds, "best": best}
        checkpoint.write_numbered(places, content, wanted, iteration, settings.keep)
        saved = iteration

    metrics = Metrics(folder, iteration)
    validated: Figures = {}
    before = time.perf_counter() - seconds
    try:
        with stop_signals() as stopped:
            while iteration < settings.iterations:
                began, count = time.perf_counter(), _until_next_event(iteration, settings)
                try:
                    state, figures = step(state, count)
                except NonFiniteError as caught:
                    done, reason = _first_bad(step, state, count, caught)
                    raise TrainingDiverged(_diverged(iteration + done, reason, places, saved)) from reason
                iteration += count
                running = _add(running, figures, time.perf_counter() - began)
                if iteration % settings.log_every == 0 or iteration == settings.iterations:
                    seconds = time.perf_counter() - before
                    line = {**_means(running, settings.images), "seconds": round(seconds, 3)}
                    running = _EMPTY
                    metrics.write(iteration, **line)
                    report(iteration=iteration, **line, **validated)
                if validate is not None and iteration % settings.validate_every == 0:
                    validated = validate(state)
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


def one_by_one(step: Callable[[Tree], tuple[Tree, Figures]]) -> Step:
    """A step of several iterations from a step of one."""

    def several(state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        found = []
        for _ in range(count):
            state, figures = step(state)
            found.append(figures)
        return state, found

    return several


def _until_next_event(iteration: int, settings: Settings) -> int:
    """How many iterations to take at once."""
    events = (settings.log_every, settings.validate_every, settings.checkpoint_every)
    left = [every - iteration % every for every in events]
    return min(settings.longest_step, settings.iterations - iteration, *left)


def _first_bad(step: Step, state: Tree, count: int, error: NonFiniteError) -> tuple[int, NonFiniteError]:
    """How many of the iterations are good, and what the next one raises: they are taken again, one at a time."""
    if count == 1:
        return 0, error
    for done in range(count):
        try:
            state, _ = step(state, 1)
        except NonFiniteError as found:
            return done, found
    return count - 1, error


# What was summed since the last line of metrics.
_EMPTY: dict[str, Any] = {"iterations": 0, "busy": 0.0, "sums": {}}


def _add(running: dict[str, Any], figures: list[Figures], busy: float) -> dict[str, Any]:
    sums = running["sums"]
    for own in figures:
        sums = {name: sums.get(name, 0.0) + value for name, value in own.items()}
    return {"iterations": running["iterations"] + len(figures), "busy": running["busy"] + busy, "sums": sums}


def _means(running: dict[str, Any], images: int) -> Figures:
    """The means of the figures, and how many images a second the steps went through, if it was images."""
    count = running["iterations"]
    found = {name: total / count for name, total in running["sums"].items()}
    return {**found, "images_per_second": round(images * count / running["busy"], 1)} if images else found


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


def provenance(settings: Settings, trained: Trained) -> dict[str, Any]:
    """What every entry of results.json says of how its figures came about."""
    on_gpu = settings.device == "gpu"
    return {
        "seed": settings.seed,
        "iterations": trained.iterations,
        "seconds": round(trained.seconds, 1),
        "versions": versions(),
        "machine": f"{platform.machine()}, {platform.system()}" + (f", {describe_gpu()}" if on_gpu else ""),
        "settings": settings.as_dict(),
    }


def versions() -> dict[str, str]:
    """Of Python and of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("tinymaml", "numpy", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = sys.modules[name].__version__ if name in sys.modules else "not installed"
    return found


def _check_settings(folder: Path, saved: checkpoint.Checkpoint, wanted: dict[str, Any], free: tuple[str, ...]) -> None:
    # Runs from before there was a choice, and from before they said what they are of.
    found = {"precision": "fp32", "experiment": wanted.get("experiment"), **saved.settings}
    if saved.iteration > wanted["iterations"]:
        raise SettingsDiffer(
            f"{folder} holds a run of {saved.iteration} iterations, this one has {wanted['iterations']}: "
            f"take another --out, or --iterations {saved.iteration} to evaluate what is there"
        )
    for name in ("experiment", "method", *sorted(set(found) | set(wanted))):
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

"""Training methods into a run's folder, side by side in processes of their own, and evaluating what is there."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tinymaml.command import INTERRUPTED
from tinymaml.device import keep_memory
from tinymaml.experiments.registry import check_run
from tinymaml.meta.maml import NonFiniteError
from tinymaml.tasks.extras import require
from tinymaml.train import devices, loop, memory, metrics, results
from tinymaml.train.checkpoint import Checkpoint
from tinymaml.train.experiment import Experiment
from tinymaml.train.loop import Report
from tinymaml.train.progress import Progress
from tinymaml.train.trainer import Trainer

_CHILD = ("--json-progress", "--no-evaluate", "--stop-with-input")
_TRIALS = 20  # iterations taken at most to see how long one is
_LINES = 100  # that are kept of what a child says of errors


def check_training(experiment: Experiment, run: Path, defaults: Experiment) -> None:
    """All that can be said before training begins.

    Args:
        defaults: the experiment as it is without other settings, for a message.

    Raises:
        ValueError: settings that do not go together.
        DeviceError: the device is not there, or cannot do what the settings say.
        TooLarge: more memory is needed than there is.
        ResultsError: the folder's results.json, where the figures are to go, cannot be used.
    """
    experiment.domain.check(experiment.training)
    devices.check_training(experiment.training)
    memory.check(experiment, defaults)
    _check_results(experiment, run)


def train(
    experiment: Experiment,
    run: Path,
    method: str,
    defaults: Experiment | None = None,
    report: Report | None = None,
    announce: Callable[[str], None] | None = None,
) -> Trainer:
    """Train one method in this process, and return what trained it.

    Args:
        defaults: as of `check_training`.
        report: gets the progress instead of the terminal.
        announce: gets a line that says how long it will take, about.

    Raises:
        As `check_training` and `loop.train`.
        TooLarge: the memory did not suffice.
    """
    defaults = defaults or experiment
    check_training(experiment, run, defaults)
    keep_memory()
    progress = None if report else Progress(method, experiment.training.iterations)
    try:
        with _one_blas_thread(), memory.enough(experiment, defaults):
            trainer = experiment.trainer(method)
            if announce:
                announce(_how_long(trainer, loop.resumable(run / method, trainer, defaults.settings())))
            loop.train(run / method, trainer, report or progress.update, defaults.settings())  # type: ignore[union-attr]  # one of them is there
    finally:
        if progress:
            progress.close()
    return trainer


def _how_long(trainer: Trainer, resumed: Checkpoint | None) -> str:
    """From a few iterations, which are taken to see and then taken again: a step is a pure function."""
    trainer.ready()
    state = trainer.start() if resumed is None else resumed.state["state"]
    left = trainer.training.iterations - (0 if resumed is None else resumed.iteration)
    iterations = f"{left:,} iterations".replace(",", " ")
    if left <= _TRIALS:
        return f"  to do         {iterations}" if left > 0 else "  to do         nothing: it is trained"
    try:
        trainer.step(state)  # which records the step, perhaps
        began = time.perf_counter()
        times: list[float] = []
        while not times or (len(times) < _TRIALS and time.perf_counter() - began < 0.2):
            before = time.perf_counter()
            trainer.step(state)
            times.append(time.perf_counter() - before)
    except NonFiniteError:  # training will say at which iteration
        return "  to do         it diverges at once"
    return f"  to do         {iterations}, about {_words(left * min(times))} beside validation"


def _words(seconds: float) -> str:
    """A time, roughly."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"


def train_side_by_side(
    experiment: Experiment, run: Path, options: Mapping[str, list[str]], jobs: int, module: str | None = None
) -> None:
    """Train several methods, `jobs` at a time, each in a process of its own; results do not depend on how many.

    Args:
        options: of the command line, by method: the settings that are not the experiment's.
        module: to import first, as it registers an environment.

    Raises:
        loop.Interrupted: one of them was stopped.
        RuntimeError: one of them failed; the message is its own.
        ValueError: jobs < 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    methods = list(options)
    children: list[subprocess.Popen[str]] = []
    starting = threading.Lock()  # so that a signal finds every child that was started, and none is started after it
    bars = [Progress(method, experiment.training.iterations, position) for position, method in enumerate(methods)]

    threads = str(max(1, (os.cpu_count() or 1) // min(jobs, len(methods))))  # the cores, shared out

    def work(position: int) -> tuple[int, str]:
        command = [sys.executable, "-m", "tinymaml", "train", experiment.name, "--method", methods[position]]
        command += ["--import", module] if module else []
        with starting:
            if stopped():
                return INTERRUPTED, ""
            child = subprocess.Popen(
                [
                    *command,
                    "--out",
                    str(run),
                    "--json-progress",
                    "--no-evaluate",
                    "--stop-with-input",
                    *options[methods[position]],
                ],
                stdin=subprocess.PIPE,  # which ends with this process, however that ends
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                env={"TINYMAML_THREADS": threads, **os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,  # a signal from the terminal comes to this process alone; it hands it on once
            )
            children.append(child)
        said: deque[str] = deque(maxlen=_LINES)
        with child, ThreadPoolExecutor(1) as reader:  # both pipes are read, as a full one would stop the child
            reader.submit(said.extend, child.stderr or ())
            try:
                for line in child.stdout or ():
                    bars[position].update(**metrics.from_json(line))
            except BaseException:
                child.kill()
                raise
        return child.returncode, "".join(said).strip().removeprefix("tinymaml: ")

    def hand_on() -> None:
        with starting:
            for child in children:
                child.terminate()

    try:
        with loop.stop_signals(hand_on) as stopped, ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(work, range(len(methods))))
    finally:
        for bar in bars:
            bar.close()
    if stopped():
        raise loop.Interrupted("stopped, each method after a checkpoint; the same command goes on from there")
    for method, (code, message) in zip(methods, outcomes, strict=True):
        if code == INTERRUPTED:
            raise loop.Interrupted(f"{method}: {message}")
        if code:
            raise RuntimeError(f"{method}: {message or f'exit status {code}'}")
        if message:  # it went on from an older checkpoint, say
            print(f"tinymaml: {method}: {message}", file=sys.stderr)


def evaluate(
    experiment: Experiment, run: Path, methods: Sequence[str], protocol: dict[str, Any], progress: bool = True
) -> results.Results:
    """Evaluate what was trained in a run's folder; `results.json` there gets an entry for each method.

    Args:
        protocol: settings of the evaluation; all others are those of the training.
        progress: whether it is shown.

    Raises:
        FileNotFoundError: a method has no checkpoint.
        RunOfAnother: what was trained there is another experiment, or another method.
        ValueError: a setting is out of range.
        TooLarge: the memory does not suffice.
        ResultsError: the results.json that is there cannot be used.
    """
    _check_results(experiment, run)
    keep_memory()
    runs = []
    for method in methods:
        trained = loop.latest(run / method)
        check_run(run / method, trained.settings, experiment, method)
        trained_with = experiment.of(trained.settings, **protocol)
        memory.check(trained_with, experiment)
        runs.append((method, trained_with, trained))
    for method, trained_with, trained in runs:
        devices.use(trained_with.training)
        with _one_blas_thread(), memory.enough(trained_with, experiment):
            trainer = trained_with.trainer(method)
            loop.check_parameters(run / method, trainer, trained.state["params"])
            entry = trainer.evaluate(trained, progress)
        results.merge(run / "results.json", experiment.name, method, entry)
    return results.load(run / "results.json", experiment.name)


def _check_results(experiment: Experiment, run: Path) -> None:
    path = run / "results.json"
    if path.exists():
        results.load(path, experiment.name)


def stop_with_input() -> None:
    """When standard input ends, as it does with the process at its other end, stop as if by SIGTERM."""

    def watch() -> None:
        while os.read(0, 1):  # not by way of sys.stdin, whose lock a thread must not hold when the process ends
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _one_blas_thread() -> Any:
    """Small products are faster on one BLAS thread, and the same bits on every machine with these versions."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    return require("threadpoolctl", "fast").threadpool_limits(1)

"""Training methods into a run's folder, side by side in processes of their own, and evaluating what is there."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tinymaml.command import INTERRUPTED
from tinymaml.device import keep_memory
from tinymaml.experiments.registry import Experiment, check_run
from tinymaml.tasks.extras import require
from tinymaml.train import devices, loop, memory, metrics, results
from tinymaml.train.loop import Report
from tinymaml.train.progress import Progress
from tinymaml.train.settings import Settings

_LINES = 100  # that are kept of what a child says of errors


def check_training(experiment: Experiment, run: Path, settings: Settings) -> None:
    """All that can be said before training begins.

    Raises:
        DeviceError: the device is not there, or cannot do what the settings say.
        TooLarge: more memory is needed than there is.
        ResultsError: the folder's results.json, where the figures are to go, cannot be used.
    """
    devices.check_training(settings)
    memory.check(settings, experiment.settings)
    _check_results(experiment, run)


def train(experiment: Experiment, run: Path, method: str, settings: Settings, report: Report | None = None) -> None:
    """Train one method in this process. `report` gets the progress instead of the terminal.

    Raises:
        As `check_training` and `loop.train`.
        TooLarge: the memory did not suffice.
    """
    check_training(experiment, run, settings)
    keep_memory()
    progress = None if report else Progress(method, settings.iterations)
    try:
        with _one_blas_thread(), memory.enough(settings, experiment.settings):
            loop.train(
                run / method,
                settings,
                method,
                lambda: experiment.code.start_state(settings, method),
                experiment.code.stepper(settings, method),
                report or progress.update,  # type: ignore[union-attr]  # one of them is there
                experiment.code.validator(settings, method),
                experiment.name,
            )
    finally:
        if progress:
            progress.close()


def train_side_by_side(
    experiment: Experiment, run: Path, methods: Sequence[str], settings: Settings, options: list[str], jobs: int
) -> None:
    """Train several methods, `jobs` at a time, each in a process of its own; results do not depend on how many.

    Raises:
        loop.Interrupted: one of them was stopped.
        RuntimeError: one of them failed; the message is its own.
        ValueError: jobs < 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    children: list[subprocess.Popen[str]] = []
    starting = threading.Lock()  # so that a signal finds every child that was started, and none is started after it
    bars = [Progress(method, settings.iterations, position) for position, method in enumerate(methods)]

    threads = str(max(1, (os.cpu_count() or 1) // min(jobs, len(methods))))  # the cores, shared out

    def work(position: int) -> tuple[int, str]:
        command = [sys.executable, "-m", "tinymaml", "train", experiment.name, "--method", methods[position]]
        with starting:
            if stopped():
                return INTERRUPTED, ""
            child = subprocess.Popen(
                [*command, "--out", str(run), "--json-progress", "--no-evaluate", "--stop-with-input", *options],
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


def evaluate(experiment: Experiment, run: Path, methods: Sequence[str], protocol: dict[str, Any]) -> results.Results:
    """Evaluate what was trained in a run's folder; `results.json` there gets an entry for each method.

    Args:
        protocol: settings of the evaluation (`Settings.EVALUATION`); all others are those of the training.

    Raises:
        FileNotFoundError: a method has no checkpoint.
        RunOfAnother: what was trained there is another experiment, or another method.
        ValueError: a setting is out of range.
        TooLarge: the memory does not suffice.
        ResultsError: the results.json that is there cannot be used.
    """
    _check_results(experiment, run)
    keep_memory()
    found = []
    for method in methods:
        trained = loop.latest(run / method)
        check_run(run / method, trained.settings, experiment, method)
        settings = type(experiment.settings).from_dict({**trained.settings, **protocol})
        memory.check(settings, experiment.settings)
        found.append((method, settings, trained))
    for method, settings, trained in found:
        devices.use(settings)
        with _one_blas_thread(), memory.enough(settings, experiment.settings):
            entry = experiment.code.evaluate(settings, method, trained)
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

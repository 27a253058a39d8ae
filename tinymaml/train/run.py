"""Training methods into a run's folder, side by side in processes of their own, and evaluating what is there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tinymaml.device import keep_memory
from tinymaml.train import devices, loop, results
from tinymaml.train.experiments import Experiment
from tinymaml.train.extras import require
from tinymaml.train.loop import Report
from tinymaml.train.progress import Progress
from tinymaml.train.settings import Settings

INTERRUPTED = 130  # the exit status of a process that was stopped


def train(experiment: Experiment, run: Path, method: str, settings: Settings, report: Report | None = None) -> None:
    """Train one method in this process. `report` gets the progress instead of the terminal."""
    keep_memory()
    devices.check_training(settings)
    progress = None if report else Progress(method, settings.iterations)
    try:
        with _one_blas_thread():
            loop.train(
                run / method,
                settings,
                method,
                lambda: experiment.code.start_state(settings, method),
                experiment.code.stepper(settings, method),
                report or progress.update,  # type: ignore[union-attr]  # one of them is there
                experiment.code.validator(settings, method),
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
                [*command, "--out", str(run), "--json-progress", "--no-evaluate", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={"TINYMAML_THREADS": threads, **os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,  # a signal from the terminal comes to this process alone; it hands it on once
            )
            children.append(child)
        with child:
            for line in child.stdout or ():
                bars[position].update(**json.loads(line))
            message = child.stderr.read() if child.stderr else ""
        return child.returncode, message.strip().removeprefix("tinymaml: ")

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
    """
    keep_memory()
    for method in methods:
        trained = loop.latest(run / method)
        settings = type(experiment.settings).from_dict({**trained.settings, **protocol})
        devices.use(settings)
        with _one_blas_thread():
            entry = experiment.code.evaluate(settings, method, trained)
        results.merge(run / "results.json", experiment.name, method, entry)
    return results.load(run / "results.json", experiment.name)


def _one_blas_thread() -> Any:
    """Small products are faster on one BLAS thread, and the same bits on every machine with these versions."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    return require("threadpoolctl", "fast").threadpool_limits(1)

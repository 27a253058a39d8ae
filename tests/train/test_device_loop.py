"""A step may take several iterations at once: the run is the one that single iterations give."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

from tests.train.test_resume import TINY, assert_same_bits
from tinymaml.experiments.sinusoid import training as sinusoid
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, loop, metrics


def settings(device: str = "gpu", **changes: Any) -> SinusoidSettings:
    """On a GPU the loop asks for many iterations; the step that the tests give it is the CPU's all the same."""
    return SinusoidSettings(**{**TINY, "iterations": 60, "checkpoint_every": 20, "device": device, **changes})


def run(out: Path, own: SinusoidSettings, asked: list[int], act: Any = lambda task: None) -> Any:
    steps = sinusoid.stepper(settings("cpu"), "maml")

    def step(state: Any, count: int) -> Any:
        asked.append(count)
        for i in range(count):
            act(state["stream"]["next_task"] // 4 + i)
        return steps(state, count)

    start = lambda: sinusoid.start_state(own, "maml")  # noqa: E731
    return loop.train(out, own, "maml", start, step, validate=sinusoid.validator(settings("cpu"), "maml"))


def test_the_same_run_as_one_by_one(tmp_path: Path) -> None:
    asked: dict[str, list[int]] = {"cpu": [], "gpu": []}
    for device, counts in asked.items():
        run(tmp_path / device, settings(device), counts)
    assert asked["cpu"] == [1] * 60
    assert asked["gpu"] == [10, 5, 5, 10] * 2  # to the next line, validation or checkpoint
    lines = [[{**line, "seconds": 0} for line in metrics.read(tmp_path / d / "metrics.jsonl")] for d in asked]
    assert lines[0] == lines[1]
    for iteration in (20, 40, 60):
        found = [checkpoint.load(tmp_path / device / f"checkpoints/{iteration:09}.h5").state for device in asked]
        for own in found:
            own["seconds"] = own["running"]["busy"] = 0.0
        assert_same_bits(*found)


def test_a_step_is_not_too_long(tmp_path: Path) -> None:
    asked: list[int] = []
    rare = {"log_every": 10_000, "checkpoint_every": 10_000, "validate_every": 10_000}
    run(tmp_path, settings(iterations=1203, **rare), asked)
    assert asked == [500, 500, 203]


def test_divergence_names_the_first_bad_iteration(tmp_path: Path) -> None:
    def act(iteration: int) -> None:
        if iteration == 33:
            raise NonFiniteError("the query loss is not finite")

    with pytest.raises(loop.TrainingDiverged, match=r"diverged at iteration 33: the query.* is at iteration 20"):
        run(tmp_path, settings(), [], act)


def test_a_run_from_before_there_were_devices_goes_on(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", settings("cpu"), [])
    run(tmp_path / "old", settings("cpu", iterations=20), [])
    path = tmp_path / "old/checkpoints/000000020.h5"
    found = checkpoint.load(path)
    known = {name: value for name, value in found.settings.items() if name not in ("device", "precision")}
    checkpoint.save(path, found.state, known, found.iteration)
    assert_same_bits(run(tmp_path / "old", settings("cpu"), []), whole)
    assert loop.latest(tmp_path / "old").settings["precision"] == "fp32"


def test_a_signal_stops_after_the_step(tmp_path: Path) -> None:
    def act(iteration: int) -> None:
        if iteration == 33:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(loop.Interrupted, match="stopped at iteration 40"):
        run(tmp_path / "stopped", settings(), [], act)
    whole = run(tmp_path / "whole", settings(), [])
    assert_same_bits(run(tmp_path / "stopped", settings("cpu"), []), whole)  # and goes on on another device

"""A step may take several iterations at once: the run is the one that single iterations give."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import tiny
from tests.train.test_resume import assert_same_bits
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, loop, metrics


def run(out: Path, asked: list[int], act: Any = lambda task: None, device: str = "gpu", **changes: Any) -> Any:
    """On a GPU the loop asks for many iterations; the step that it gets here is the CPU's all the same."""
    trainer, on_cpu = tiny(device=device, **changes).trainer("maml"), tiny().trainer("maml")

    def step(state: Any, count: int) -> Any:
        asked.append(count)
        for i in range(count):
            act(state["stream"]["next_task"] // 4 + i)
        return on_cpu.step(state, count)

    trainer.step, trainer.validate = step, on_cpu.validate  # type: ignore[method-assign]
    return loop.train(out, trainer)


def test_the_same_run_as_one_by_one(tmp_path: Path) -> None:
    asked: dict[str, list[int]] = {"cpu": [], "gpu": []}
    for device, counts in asked.items():
        run(tmp_path / device, counts, device=device)
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
    run(tmp_path, asked, iterations=1203, **rare)
    assert asked == [500, 500, 203]


def test_divergence_names_the_first_bad_iteration(tmp_path: Path) -> None:
    def act(iteration: int) -> None:
        if iteration == 33:
            raise NonFiniteError("the query loss is not finite")

    with pytest.raises(loop.TrainingDiverged, match=r"diverged at iteration 33: the query.* is at iteration 20"):
        run(tmp_path, [], act)


def test_a_run_from_before_there_were_devices_goes_on(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", [], device="cpu")
    run(tmp_path / "old", [], device="cpu", iterations=20)
    path = tmp_path / "old/checkpoints/000000020.h5"
    found = checkpoint.load(path)
    known = {name: value for name, value in found.settings.items() if name not in ("device", "precision")}
    checkpoint.save(path, found.state, known, found.iteration)
    assert_same_bits(run(tmp_path / "old", [], device="cpu"), whole)
    assert loop.latest(tmp_path / "old").settings["precision"] == "fp32"


def test_a_signal_stops_after_the_step(tmp_path: Path) -> None:
    def act(iteration: int) -> None:
        if iteration == 33:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(loop.Interrupted, match="stopped at iteration 40"):
        run(tmp_path / "stopped", [], act)
    whole = run(tmp_path / "whole", [])
    assert_same_bits(run(tmp_path / "stopped", [], device="cpu"), whole)  # and goes on on another device

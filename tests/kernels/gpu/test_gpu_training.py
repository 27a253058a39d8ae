"""Training with `--device gpu`, many iterations at a time: as on the CPU; a run that goes on gives the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import small, tiny, write_small
from tests.train.test_resume import assert_same_bits
from tinymaml import tree
from tinymaml.train import loop, metrics
from tinymaml.train.experiment import Experiment

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"))


def run(out: Path, experiment: Experiment, method: str = "maml") -> Any:
    return loop.train(out, experiment.trainer(method))


def waves(**changes: Any) -> Experiment:
    return tiny(**{"iterations": 12, "log_every": 5, "checkpoint_every": 8, **changes})


def pictures(folder: Path, **changes: Any) -> Experiment:
    return small(folder, **{"iterations": 6, "log_every": 4, "validate_every": 6, "validation_tasks": 3, **changes})


def assert_same_run(one: Path, other: Path, limit: float) -> None:
    """Parameters to the limit, norm-wise; lines of metrics, figures of which may differ by as much."""
    ends = [loop.latest(out) for out in (one, other)]
    actual, expected = (tree.leaves(end.state["params"]) for end in ends)
    for x, y in zip(actual, expected, strict=True):
        assert x.dtype == y.dtype and np.linalg.norm(x - y) <= limit * max(1.0, np.linalg.norm(y))
    assert ends[0].state["stream"] == ends[1].state["stream"]
    if "optimiser" in ends[0].state:  # Reptile has none of the whole
        assert int(ends[0].state["optimiser"]["iteration"]) == ends[1].iterations
    lines = [metrics.read(out / "metrics.jsonl") for out in (one, other)]
    assert [set(line) for line in lines[0]] == [set(line) for line in lines[1]]
    for own, reference in zip(*lines, strict=True):
        for name in set(own) - {"seconds", "images_per_second"}:
            assert own[name] == pytest.approx(reference[name], rel=limit, abs=limit)


USUAL = ("maml", "fomaml", "pretrained", "oracle")
ON_A_GPU = [
    pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow])
    for name, method in tiny().methods.items()
    if getattr(method, "RECORDED", True)
]


@pytest.mark.parametrize("method", ON_A_GPU)
def test_sinusoids_train_as_on_the_cpu(tmp_path: Path, method: str) -> None:
    for device in ("cpu", "gpu"):
        run(tmp_path / device, waves(device=device, dtype="float64", learn_alpha=method == "maml"), method)
    assert_same_run(tmp_path / "gpu", tmp_path / "cpu", 1e-9)


def test_a_method_that_records_parts_of_its_update_is_for_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multi-task trains on the CPU alone: take --device cpu"):
        run(tmp_path, waves(device="gpu"), "multi-task")


def test_sinusoids_in_single_precision(tmp_path: Path) -> None:
    for device in ("cpu", "gpu"):
        run(tmp_path / device, waves(device=device))
    assert_same_run(tmp_path / "gpu", tmp_path / "cpu", 1e-4)


@pytest.mark.parametrize("downsample", ["stride", "max-pool"])
def test_images_train_as_on_the_cpu(tmp_path: Path, folder: Path, downsample: str) -> None:
    for device in ("cpu", "gpu"):
        run(tmp_path / device, pictures(folder, device=device, dtype="float64", downsample=downsample))
    assert_same_run(tmp_path / "gpu", tmp_path / "cpu", 1e-8)


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, folder: Path) -> None:
    for name, settings in (("waves", waves), ("pictures", lambda **own: pictures(folder, **own))):
        whole = run(tmp_path / name / "whole", settings(device="gpu"))
        parts = tmp_path / name / "parts"
        run(parts, settings(device="gpu", iterations=3))
        assert_same_bits(run(parts, settings(device="gpu", log_every=2)), whole)  # so many at a time, or others


def test_a_run_goes_on_on_the_other_device(tmp_path: Path) -> None:
    run(tmp_path / "cpu", waves(dtype="float64", log_every=4))
    for device, iterations in (("gpu", 4), ("cpu", 8), ("gpu", 12)):
        run(tmp_path / "both", waves(device=device, dtype="float64", log_every=4, iterations=iterations))
    assert_same_run(tmp_path / "both", tmp_path / "cpu", 1e-9)


def test_precision_belongs_to_the_run(tmp_path: Path) -> None:
    run(tmp_path, waves(device="gpu", iterations=2))
    with pytest.raises(loop.SettingsDiffer, match="precision = fp32, this one has tf32"):
        run(tmp_path, waves(device="gpu", precision="tf32"))


def test_divergence_names_the_first_bad_iteration(tmp_path: Path) -> None:
    said = []
    for device in ("cpu", "gpu"):
        with np.errstate(all="ignore"), pytest.raises(loop.TrainingDiverged) as caught:
            run(tmp_path / device, waves(device=device, alpha=10.0, learning_rate=100.0, iterations=100, log_every=50))
        said.append(str(caught.value).partition(";")[0])
    assert said[0] == said[1]
    assert said[0].startswith("training diverged at iteration 9: the query loss is not finite (tasks 1)")


def test_evaluation(tmp_path: Path, folder: Path) -> None:
    settings = pictures(folder, iterations=2)
    run(tmp_path, settings)
    cpu, gpu = (
        pictures(folder, device=device).trainer("maml").evaluate(loop.latest(tmp_path)) for device in ("cpu", "gpu")
    )
    assert "compute capability" in gpu["machine"] and "compute" not in cpu["machine"]
    expected = cpu["parameters"]["last"]["figures"]
    for condition, own in gpu["parameters"]["last"]["figures"].items():
        np.testing.assert_allclose(own["mean"], expected[condition]["mean"], atol=0.03)

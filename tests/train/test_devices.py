"""`--device` and `--precision`: what is missing is said at once, and `tinymaml doctor` says the same."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tinymaml.cli import main
from tinymaml.kernels.gpu import launch
from tinymaml.train import loop

SMALL = ["--iterations", "4", "--hidden", "8", "--meta-batch", "4", "--log-every", "2", "--no-evaluate"]


def without(count: Any) -> Any:
    """A CuPy where counting devices does this."""
    return SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count)), __version__="14.2.0")


def no_driver() -> int:
    raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")


MISSING = {
    "CuPy": (None, "pip install 'tinymaml[cuda13]'"),
    "driver": (without(no_driver), "CUDA finds no GPU: cudaErrorInsufficientDriver"),
    "GPU": (without(lambda: 0), "NVIDIA's driver is there, but sees no device"),
}


@pytest.mark.parametrize("what", MISSING)
@pytest.mark.parametrize("experiment", ["sinusoid", "omniglot-5way-1shot", "miniimagenet-5way-5shot"])
def test_without_a_gpu_training_fails_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    experiment: str,
    what: str,
) -> None:
    module, message = MISSING[what]
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert main(["train", experiment, "--device", "gpu", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("tinymaml: --device gpu: ") and message in said.err and said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "run").exists()
    assert main(["doctor"]) == 0
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "tf32"], "--precision tf32 is of GPUs alone: add --device gpu"),
        (["--device", "gpu", "--no-record"], "--no-record is for the CPU"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["train", "sinusoid", "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_doctor_describes_the_gpu(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  gpu ")]
    for part in (f"CuPy {gpu.__version__}", "compute capability", "GiB", "CUDA 1", "a driver for CUDA 1"):
        assert part in line


def test_a_run_from_the_command_line(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "sinusoid", *SMALL, "--out", str(tmp_path)]
    assert main([*argv, "--device", "gpu"]) == 0
    printed = capsys.readouterr().out
    assert "device           gpu" in printed
    trained = loop.latest(tmp_path / "maml")
    assert (trained.iterations, trained.settings["device"]) == (4, "gpu")
    assert main([*argv, "--iterations", "6"]) == 0  # on the CPU
    assert loop.latest(tmp_path / "maml").settings["device"] == "cpu"


def test_what_was_trained_on_a_gpu_is_evaluated_without_one(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_precision", "fp32")  # to be the same again afterwards
    argv = ["train", "sinusoid", *SMALL, "--out", str(tmp_path), "--device", "gpu", "--precision", "tf32"]
    assert main([*argv, "--eval-tasks", "5", "--eval-steps", "2"]) == 0
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["evaluate", "sinusoid", "--out", str(tmp_path)]) == 2
    assert "--device gpu: " in capsys.readouterr().err
    assert main(["evaluate", "sinusoid", "--out", str(tmp_path), "--device", "cpu"]) == 0

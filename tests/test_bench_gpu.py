"""What the bench on a GPU does around its timings, by the stand-in for CuPy; and without a GPU it says so."""

from dataclasses import replace

import numpy as np
import pytest

from bench import gpu as bench_gpu
from bench import gpu_frameworks, gpu_kernels, ours, packed
from bench.arguments import parse_gpu
from bench.frameworks import distance
from bench.workloads import WORKLOADS
from tests.experiment_cases import write_small
from tinymaml.kernels import gpu as kernels
from tinymaml.tasks import imageset

TINY = {
    "W1": {"tasks": 2, "width": 6},
    "W2a": {"tasks": 2, "width": 4, "image": (14, 7, 1)},
    "W4": {"tasks": 2, "width": 4, "image": (21, 28, 3), "steps": 1, "query": 5},
}


def tiny(name):
    return replace(WORKLOADS[name], **TINY[name])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", TINY)
def test_our_meta_steps_on_a_gpu(name):
    w = tiny(name)
    data = w.data(np.dtype(np.float64), w.tasks)
    expected = ours.ours_eager(w, *data, 2)[0]()
    for maker in (ours.gpu_eager, ours.gpu_graph):
        gradient, step = maker(w, *data, 2)
        assert distance(expected, gradient()) < 1e-9
        step()


@pytest.mark.usefixtures("gpu")
def test_kernels_on_a_gpu():
    for name in ("W2a", "W4"):
        found = list(gpu_kernels.cases(tiny(name)))
        assert len(found) > 20
        for case in found:
            plan, amount = case.make()
            assert plan.launches and amount > 0
    plan, _ = found[0].make()
    assert gpu_kernels.milliseconds(plan.run) > 0


def test_implementations_on_a_gpu():
    names = {one.name for one in gpu_frameworks.implementations("W2b", "fp32")}
    assert {"tinymaml-graph-fp32", "tinymaml-eager-fp32", "torch-loop-fp32", "jax-im2col-fp32"} <= names
    assert "torch-graph-fp32" not in names
    assert all(one.settings["BENCH_PRECISION"] == "tf32" for one in gpu_frameworks.implementations("W1", "tf32"))


def test_without_a_gpu(monkeypatch, tmp_path, capsys):
    def missing():
        raise kernels.GpuMissingError("CUDA finds no GPU: here is none")

    monkeypatch.setattr(kernels, "require", missing)
    args = parse_gpu(["--out", str(tmp_path / "found"), "--parts", "kernels,frameworks"])
    assert bench_gpu.run(args.out, args.parts, args.workloads, args.rounds, args.data) == 2
    assert "CUDA finds no GPU: here is none" in capsys.readouterr().err
    assert not args.out.exists()
    with pytest.raises(SystemExit):
        parse_gpu(["--out", "x", "--parts", "nothing"])


def test_a_part_that_fails_does_not_stop_the_next(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kernels, "require", lambda: None)
    monkeypatch.setattr(bench_gpu, "describe", lambda: {"gpu": "none", "driver": 0, "cupy": "0"})
    monkeypatch.setattr(bench_gpu, "parity", lambda out: [{"part": "parity", "result": "1 passed"}])
    assert bench_gpu.run(tmp_path, ["training", "parity"], [], 1, None) == 1
    assert "failed: training" in capsys.readouterr().err
    assert "needs --data FILE.npz" in (tmp_path / "training.txt").read_text()
    assert '"result": "1 passed"' in (tmp_path / "gpu.json").read_text()


def test_packed_images_are_the_same(tmp_path):
    prepared = write_small(tmp_path) / "small.h5"
    packed.pack(prepared, tmp_path / "small.npz")
    again = packed.unpack(tmp_path / "small.npz", tmp_path / "again")
    assert imageset.describe(again) == imageset.describe(prepared)
    for split in packed.SPLITS:
        one, other = imageset.read(prepared, split), imageset.read(again, split)
        np.testing.assert_array_equal(one.images, other.images)
        assert one.classes == other.classes

"""What the bench on a GPU does around its timings, by the stand-in for CuPy; and without a GPU it says so."""

import importlib
import json
import pkgutil
import sys
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench import implementations, metastep, ours
from bench.arguments import parse_gpu
from bench.gpu import frameworks, launches, packed, small
from bench.gpu import kernels as gpu_kernels
from bench.gpu import run as bench_gpu
from bench.gpu.clock import Clock
from bench.parts.frameworks import distance
from bench.picture import draw
from bench.worker import Failed
from bench.workloads import WORKLOADS
from tests.cases.experiment_cases import write_small
from tinymaml.kernels import gpu as kernels
from tinymaml.kernels.gpu.launch import Plan
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


@pytest.fixture
def tiny_workloads(monkeypatch):
    for name in TINY:
        monkeypatch.setitem(WORKLOADS, name, tiny(name))
    for name, value in {"STORE": 1 << 20, "BLOCK": 1 << 16, "ROTATED": 1 << 17, "SETS": 2, "LAUNCHES": 2, "ROUNDS": 1,
                        "PRODUCT": 8, "COPIED": 1 << 12}.items():  # fmt: skip
        monkeypatch.setattr(gpu_kernels, name, value)
    monkeypatch.setattr(ours, "REPEATED", 2)
    monkeypatch.setattr(frameworks, "REPEATED", 2)
    for name, value in {"BUSY": 1 << 12, "COPIES": 1, "AT_ONCE": 7, "ROUNDS": 1, "SHOWN": 3}.items():
        monkeypatch.setattr(launches, name, value)


@pytest.fixture
def workers_here(monkeypatch):
    """Workers are objects in this process, so that they have the stand-in for CuPy; what they answer is JSON."""

    class Here:
        def __init__(self, target, arguments, environment):
            module, name = target.split(":")
            self._made = getattr(importlib.import_module(module), name)(*json.loads(json.dumps(arguments)))

        def ask(self, method, *arguments, limit=None):
            assert limit is None or limit > 0
            try:
                return json.loads(json.dumps(getattr(self._made, method)(*arguments)))
            except Exception as error:
                raise Failed(f"{type(error).__name__}: {error}") from error

        def kill(self): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

    for module in (gpu_kernels, launches, implementations):
        monkeypatch.setattr(module, "Worker", Here)


@pytest.mark.usefixtures("gpu", "tiny_workloads", "workers_here")
def test_kernels(capsys):
    rows = list(gpu_kernels.run(["W2a", "W4"], Clock(1000)))
    assert capsys.readouterr().out.count("TFLOP/s  ") == len([row for row in rows if row["unit"] == "TFLOP/s"])
    for workload, precision, count in (
        ("W2a", "fp32", 28),
        ("W2a", "tf32", 11),
        ("W4", "fp32", 28),
        ("W4", "tf32", 11),
    ):
        some = [row for row in rows if (row["workload"], row["precision"]) == (workload, precision)]
        assert len(some) == count and all(row["value"] > 0 for row in some)


@pytest.mark.usefixtures("gpu", "tiny_workloads")
def test_sets_of_a_kernel_are_apart():
    store = gpu_kernels.Store()
    arrays = [store(3, 1000) for _ in range(100)]
    places = sorted([x.data.ptr for x in arrays[:80]])
    assert min(np.diff(places)) >= arrays[0].nbytes
    assert arrays[0].data.ptr in [x.data.ptr for x in arrays[80:]]
    assert 0.9 < np.std(arrays[-1].get()) < 1.1


@pytest.mark.usefixtures("gpu", "tiny_workloads", "workers_here")
def test_launches(monkeypatch, capsys):
    monkeypatch.setattr(ours, "REPEATED", 2)
    (one, other) = launches.run(["W1"], Clock(1000))
    assert one["launches"][-1][0].startswith("find_not_finite") and one["step_ms"] > 0
    assert len(one["launches"]) == len(other["launches"]) > 20 and all(us > 0 for *_, us in one["launches"])
    assert "the longest:" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no time left"):
        list(launches.run(["W1"], Clock(0)))


@pytest.mark.usefixtures("gpu", "tiny_workloads", "workers_here")
def test_frameworks(monkeypatch, tmp_path, capsys):
    """With a peer that is ours on the CPU, one that is wrong, one that is not installed and one that fails later."""
    monkeypatch.setattr(frameworks, "TORCH", {"right": "", "wrong": "", "late": ""})
    monkeypatch.setattr(frameworks, "JAX", {"absent": ""})
    monkeypatch.setattr("bench.timing.PAUSE", 0.0)
    monkeypatch.setattr(ours, "REPEATED", 2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jax" else True)
    monkeypatch.setattr(metastep.MetaStep, "device_peak", lambda self: 1.5)

    def peer(kind, w, *data_and_order):
        gradient, step = ours.ours_eager(w, *data_and_order)
        calls = []

        def stepped():
            calls.append(None)
            if kind == "late" and len(calls) > 2:
                raise RuntimeError("out of memory")
            step()

        return (lambda: [2 * g for g in gradient()] if kind == "wrong" else gradient()), stepped

    module = types.SimpleNamespace(**{kind: partial(peer, kind) for kind in ("right", "wrong", "late")})
    monkeypatch.setitem(sys.modules, "bench.peers.torch", module)
    rows = list(frameworks.run(["W1"], 2, Clock(1000)))
    assert {row["implementation"] for row in rows} == {
        "tinymaml-graph-fp32", "tinymaml-repeated-fp32", "tinymaml-eager-fp32", "torch-right-fp32",
        "tinymaml-graph-tf32", "tinymaml-repeated-tf32", "torch-right-tf32",
    }  # fmt: skip
    assert all(row["error"] < 0.2 and row["median_ms"] > 0 and row["rounds"] == 2 for row in rows)
    said = capsys.readouterr().out
    assert "torch-wrong-fp32: its gradient differs by 1.0e+00" in said
    assert "torch-late-tf32: RuntimeError: out of memory" in said
    assert "jax-absent-fp32: jax is not installed" in said
    assert "the fastest of the others, torch-right-fp32, takes" in said
    draw(tmp_path / "gpu.png", {"gpu": "NVIDIA H200"}, rows)
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="nothing is timed of W1"):
        list(frameworks.run(["W1"], 2, Clock(0)))


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_small_steps_have_kernels_of_every_family(monkeypatch):
    """So compute-sanitizer sees them all."""
    families = {
        module.name
        for module in pkgutil.iter_modules(kernels.__path__)
        if hasattr(importlib.import_module(f"{kernels.__name__}.{module.name}"), "INSTANCES")
    }
    launched, launch = set(), Plan.launch

    def noted(self, family, name, *arguments):
        launched.add(family)
        launch(self, family, name, *arguments)

    monkeypatch.setattr(Plan, "launch", noted)
    small.steps()
    small.indexing()
    small.training()
    assert families - launched == {"elementwise"}  # which has units of its own making; every fused kernel is one


def test_implementations_on_a_gpu():
    names = {one.name for one in frameworks.implementations("W2b", "fp32")}
    assert {"tinymaml-graph-fp32", "tinymaml-eager-fp32", "torch-loop-fp32", "jax-im2col-fp32"} <= names
    assert "torch-compiled-fp32" not in names
    assert all(one.settings["BENCH_PRECISION"] == "tf32" for one in frameworks.implementations("W1", "tf32"))


def test_without_a_gpu(monkeypatch, tmp_path, capsys):
    def missing():
        raise kernels.GpuMissingError("CUDA finds no GPU: here is none")

    monkeypatch.setattr(kernels, "require", missing)
    args = parse_gpu(["--out", str(tmp_path / "found"), "--parts", "kernels,frameworks"])
    assert bench_gpu.run(args.out, args.parts, args.workloads, args.rounds, args.data, args.minutes) == 2
    assert "CUDA finds no GPU: here is none" in capsys.readouterr().err
    assert not args.out.exists()
    with pytest.raises(SystemExit):
        parse_gpu(["--out", "x", "--parts", "nothing"])


def test_a_part_that_fails_does_not_stop_the_next(monkeypatch, tmp_path, capsys):
    def half(clock):
        assert 0 < clock.left() <= 60
        yield {"part": "parity", "result": "1 passed, 1 failed"}
        raise SystemExit("1 failed")

    monkeypatch.setattr(kernels, "require", lambda: None)
    monkeypatch.setattr(bench_gpu, "describe", lambda: {"gpu": "none", "driver": 0, "cupy": "0"})
    monkeypatch.setattr(bench_gpu, "parity", half)
    monkeypatch.setattr(bench_gpu, "sanitizer", lambda clock: iter([{"part": "sanitizer"}]))
    assert bench_gpu.run(tmp_path, ["training", "parity", "sanitizer"], [], 1, None, 1.0) == 1
    assert "failed: training, parity" in capsys.readouterr().err
    assert "needs --data FILE.npz" in (tmp_path / "training.txt").read_text()
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["part"] for row in rows] == ["training", "parity", "parity", "sanitizer"]
    assert rows[1]["result"] == "1 passed, 1 failed" and rows[2]["failed"] == "SystemExit: 1 failed"


def test_parity_is_that_of_the_tests_on_a_gpu():
    names = {Path(path).name for path in bench_gpu.parity_tests()}
    assert {"test_gpu_steps.py", "test_gpu_optim.py", "test_gpu_training.py"} <= names
    assert "test_gpu_compile.py" not in names


def test_a_command_says_what_it_printed_until_its_time_was_over(capsys):
    program = "import time; print('begun'); time.sleep({}); print('done')"
    assert bench_gpu.command([sys.executable, "-c", program.format(0)], Clock(60)) == (0, "done")
    status, last = bench_gpu.command([sys.executable, "-c", program.format(60)], Clock(7))
    assert status != 0 and "KeyboardInterrupt" in last
    assert capsys.readouterr().out.startswith("begun\ndone\nbegun\n")


def test_packed_images_are_the_same(tmp_path):
    prepared = write_small(tmp_path) / "small.h5"
    packed.pack(prepared, tmp_path / "small.npz")
    again = packed.unpack(tmp_path / "small.npz", tmp_path / "again")
    assert imageset.describe(again) == imageset.describe(prepared)
    for split in packed.SPLITS:
        one, other = imageset.read(prepared, split), imageset.read(again, split)
        np.testing.assert_array_equal(one.images, other.images)
        assert one.classes == other.classes

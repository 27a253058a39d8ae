"""Small meta-steps on the GPU, eager and as a graph, and a short training; they launch kernels of every family.

For compute-sanitizer: `python -m bench.gpu.small`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np

import tinymaml as tm
from bench import ours
from bench.workloads import WORKLOADS
from tinymaml import cli
from tinymaml.device import to_device, to_host
from tinymaml.kernels.gpu import cupy

SMALL = {"W1": {}, "W2a": {"image": (14, 14, 1), "width": 8}, "W4": {"image": (21, 28, 3), "width": 8, "query": 10}}
TRAINING = ("--iterations 3 --log-every 3 --checkpoint-every 3 --validate-every 3 --validation-tasks 2 --meta-batch 2 "
            "--filters 8 --no-evaluate --json-progress")  # fmt: skip


def steps() -> None:
    for name, changes in SMALL.items():
        w = replace(WORKLOADS[name], tasks=2, steps=1, **changes)
        for maker in (ours.gpu_eager, ours.gpu_graph):
            gradient, step = maker(w, *w.data(np.dtype(np.float32), w.tasks), 2)
            gradient()
            step()
            step()
        print(f"{name}, {ours.PRECISION}: done")


def indexing() -> None:
    """Which no network has."""
    x, (some, others) = to_device(np.eye(3, dtype=np.float32), "gpu"), np.array([[2, 0, 0], [1, 1, 2]])
    to_host(tm.grad(lambda x: tm.sum(x[some] * x[others]))(x))


def training() -> None:
    """On drawn images, the tasks too are drawn on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = ["train", "glyphs-5way-1shot", "--device", "gpu", "--out", folder]
        if cli.main([*experiment, *TRAINING.split()]):
            raise SystemExit("the training failed")


def main() -> None:
    cupy().cuda.set_allocator(None)  # each array in an allocation of its own: what is beyond its end is seen
    for ours.PRECISION in ("fp32", "tf32"):
        steps()
    indexing()
    training()


if __name__ == "__main__":
    main()

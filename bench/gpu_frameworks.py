"""Whole meta-steps on a GPU: ours beside PyTorch and JAX, in fp32 and TF32, gradients agreeing first."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.frameworks import distance
from bench.implementations import Implementation
from bench.ours import REPEATED
from bench.output import Row
from bench.timing import interleaved, spread
from bench.worker import Failed, Worker
from bench.workloads import WORKLOADS

LIMIT = 100.0  # seconds that an implementation has for its gradient, and for its first step: most of it is compiling
# Largest difference of a whole meta-gradient from ours in float64, relative to its norm; see frameworks.TOLERANCE for
# what a ReLU does. TF32 has 10 bits.
TOLERANCE = {"fp32": 1e-2, "tf32": 2e-1}
COMPILED = ("W1", "W2a")  # the compiler needs minutes for the others


def implementations(workload: str, precision: str) -> list[Implementation]:
    """What is compared, in processes with these settings."""
    common = {"BENCH_DEVICE": "gpu", "BENCH_PRECISION": precision}
    jax = {**common, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    found = [
        ("tinymaml-graph", "a meta-step recorded as a CUDA graph", "bench.ours:gpu_graph", "cupy", common),
        (
            "tinymaml-repeat",
            f"the same, {REPEATED} in a row as in training; per meta-step",
            "bench.ours:gpu_repeated",
            "cupy",
            common,
        ),
        ("tinymaml-eager", "kernel by kernel", "bench.ours:gpu_eager", "cupy", common),
        ("torch-vmap", "torch.func: grad of vmap of grad, fused Adam", "bench.peers_torch:by_vmap", "torch", common),
        (
            "torch-graph",
            "the same, torch.compile(mode='reduce-overhead'): CUDA graphs",
            "bench.peers_torch:as_graph",
            "torch",
            common,
        ),
        (
            "torch-loop",
            "as users write it: autograd.grad in a loop over tasks",
            "bench.peers_torch:by_loop",
            "torch",
            common,
        ),
        ("jax-conv", "as users write it: jit of grad of vmap of grad, lax.conv", "bench.peers_jax:plain", "jax", jax),
        ("jax-im2col", "the same with im2col and a batched product", "bench.peers_jax:im2col", "jax", jax),
    ]
    return [
        Implementation(f"{name}-{precision}", how, maker, (needs,), settings)
        for name, how, maker, needs, settings in found
        if (name != "torch-graph" or workload in COMPILED) and (name != "tinymaml-eager" or precision == "fp32")
    ]


def run(workloads: Sequence[str], rounds: int) -> list[Row]:
    rows: list[Row] = []
    for workload in workloads:
        rows += _run(workload, rounds)
    return rows


def _run(workload: str, rounds: int) -> list[Row]:
    w = WORKLOADS[workload]
    asked = [one for precision in TOLERANCE for one in implementations(workload, precision)]
    left_out: dict[str, str] = {}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        expected = _gradient(stack.enter_context(asked[0].worker(workload, 2)), "float64", w.tasks, folder)
        workers: dict[str, Worker] = {}
        errors: dict[str, float] = {}
        firsts: dict[str, float] = {}
        for one in asked:
            name, precision = one.name, one.settings["BENCH_PRECISION"]
            if importlib.util.find_spec(one.needs[0]) is None:
                left_out[name] = f"{one.needs[0]} is not installed"
                continue
            worker = stack.enter_context(one.worker(workload, 2))
            try:
                errors[name] = distance(expected, _gradient(worker, "float32", w.tasks, folder))
                if not errors[name] <= TOLERANCE[precision]:
                    raise Failed(f"its gradient differs by {errors[name]:.1e} (allowed: {TOLERANCE[precision]})")
                firsts[name] = worker.ask("first", limit=LIMIT)
                workers[name] = worker
            except Failed as error:
                if name.startswith("tinymaml"):
                    raise
                left_out[name] = str(error)
        times = interleaved(
            {name: partial(worker.ask, "turn", limit=LIMIT) for name, worker in workers.items()}, rounds
        )
        peaks = {name: worker.ask("device_peak") for name, worker in workers.items()}
    rows = []
    for one in asked:
        if one.name in workers:
            each = REPEATED if "repeat" in one.name else 1
            median, low, high = (ms / each for ms in spread(times[one.name]))
            rows.append(
                {
                    "part": "frameworks", "workload": workload, "order": 2, "implementation": one.name,
                    "median_ms": median, "low_ms": low, "high_ms": high, "rounds": len(times[one.name]),
                    "first_step_s": firsts[one.name], "device_mb": peaks[one.name], "error": errors[one.name],
                    "gflop": w.gflop(2), "how": one.explained(),
                }
            )  # fmt: skip
    _print(workload, rows, left_out)
    return rows


def _gradient(worker: Worker, dtype: str, tasks: int, folder: str) -> list[Any]:
    path = Path(folder) / "gradient.npz"
    worker.ask("gradient", dtype, tasks, str(path), limit=LIMIT)
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files]


def _print(workload: str, rows: Sequence[Row], left_out: dict[str, str]) -> None:
    w = WORKLOADS[workload]
    print(
        f"\n{workload}: {w.title}; {w.tasks} tasks, inner steps: {w.steps}, second order, {w.gflop(2):.3g} GFLOP\n"
        f"{'':22} median ms   10 % - 90 %          TFLOP/s  first step s  GPU's MB  off float64 by"
    )
    for row in rows:
        print(
            f"{row['implementation']:22}{row['median_ms']:10.3f}   {row['low_ms']:8.3f} - {row['high_ms']:<8.3f}"
            f"{row['gflop'] / row['median_ms']:10.2f}{row['first_step_s']:14.2f}{row['device_mb']:10.0f}"
            f"{row['error']:14.0e}"
        )
    for precision in TOLERANCE:
        own = [row["median_ms"] for row in rows if row["implementation"] == f"tinymaml-graph-{precision}"]
        others = [row for row in rows if not row["implementation"].startswith("tinymaml")]
        peers = [row["median_ms"] for row in others if row["implementation"].endswith(precision)]
        if own and peers:
            print(f"{precision}: the fastest of the others takes {min(peers) / own[0]:.1f} times as long as our graph")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(*[row["how"] for row in rows], sep="\n")

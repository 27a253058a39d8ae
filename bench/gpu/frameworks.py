"""Whole meta-steps on a GPU: ours beside PyTorch and JAX, in fp32 and TF32, gradients agreeing first.

All have their processes from the beginning, so that they are imported side by side, and those that compile do it side
by side; nothing runs beside what is timed.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import timing
from bench.gpu.clock import Clock
from bench.gpu.kernels import rates
from bench.implementations import Implementation
from bench.ours import REPEATED
from bench.output import Row
from bench.parts.frameworks import distance
from bench.timing import spread
from bench.worker import Failed, Worker
from bench.workloads import WORKLOADS

LIMIT = 90.0  # seconds that an implementation has for its gradient, and for its first step: most of it is compiling
# Largest difference of a whole meta-gradient from ours in float64, relative to its norm; see frameworks.TOLERANCE for
# what a ReLU does. TF32 has 10 bits.
TOLERANCE = {"fp32": 1e-2, "tf32": 2e-1}
COMPILED = ("W1", "W2a")  # torch.compile needs minutes for the others
AIMS = {  # milliseconds of a recorded step
    "fp32": {"W2a": 1.0, "W2b": 1.5, "W3": 3.5, "W4": 4.5},
    "tf32": {"W2b": 0.9, "W3": 2.2, "W4": 3.0},
}
ENOUGH = 2000.0  # milliseconds of one that was timed three times
SHORTEST = 5.0  # seconds that a turn may take when no time is left

OURS = {
    "graph": "a meta-step recorded as a CUDA graph",
    "repeated": f"the same, {REPEATED} in a row as in training; per meta-step",
    "eager": "kernel by kernel",
}
TORCH = {
    "by_vmap": "torch.func: grad of vmap of grad, fused Adam, cudnn.benchmark",
    "by_graph": "the same and Adam captured as one torch.cuda.CUDAGraph",
    "by_loop": "as users write it: autograd.grad in a loop over tasks",
    "as_compiled": "torch.compile(mode='reduce-overhead') of the gradient: fused kernels in CUDA graphs",
}
JAX = {
    "plain": "as users write it: jit of grad of vmap of grad, lax.conv",
    "im2col": "the same with im2col and one batched product a layer",
}


def implementations(workload: str, precision: str) -> list[Implementation]:
    """What is compared, in processes with these settings."""
    common = {"BENCH_DEVICE": "gpu", "BENCH_PRECISION": precision}
    compared = []
    for framework, needs, module, makers, more in (
        ("tinymaml", "cupy", "bench.ours:gpu_", OURS, {}),
        ("torch", "torch", "bench.peers.torch:", TORCH, {}),
        ("jax", "jax", "bench.peers.jax:", JAX, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    ):
        for maker, how in makers.items():
            if (maker != "as_compiled" or workload in COMPILED) and (maker != "eager" or precision == "fp32"):
                name = f"{framework}-{maker.split('_')[-1]}-{precision}"
                compared.append(Implementation(name, how, module + maker, (needs,), {**common, **more}))
    return compared


class _Ready(NamedTuple):
    """An implementation that may be timed."""

    one: Implementation
    worker: Worker
    error: float  # of its meta-gradient
    first: float  # seconds of its first step


def run(workloads: Sequence[str], rounds: int, clock: Clock) -> Iterator[Row]:
    """A table for each workload; one that fails does not stop the next."""
    products = {precision: rates(precision)["TFLOP/s"] for precision in TOLERANCE}
    print(f"cuBLAS: {', '.join([f'{value:.1f} TFLOP/s in {name}' for name, value in products.items()])}")
    failed = []
    for i, workload in enumerate(workloads):
        try:
            yield from _run(workload, rounds, products, clock.part(1 / (len(workloads) - i)))
        except (SystemExit, OSError, ValueError) as error:
            print(f"\n{workload}: {error}")
            failed.append(workload)
    if failed:
        raise SystemExit(f"nothing is timed of {', '.join(failed)}")


def _run(workload: str, rounds: int, products: dict[str, float], clock: Clock) -> list[Row]:
    w = WORKLOADS[workload]
    asked = [one for precision in TOLERANCE for one in implementations(workload, precision)]
    left_out = {one.name: f"{one.needs[0]} is not installed" for one in asked
                if importlib.util.find_spec(one.needs[0]) is None}  # fmt: skip
    asked = [one for one in asked if one.name not in left_out]
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        reference, *workers = [stack.enter_context(one.worker(workload, 2)) for one in [asked[0], *asked]]
        path = Path(folder) / "expected.npz"
        expected = _gradient(reference, "float64", w.tasks, path, clock)

        def prepared(one: Implementation, worker: Worker) -> _Ready | None:
            try:
                gradient = _gradient(worker, "float32", w.tasks, path.with_name(f"{one.name}.npz"), clock)
                error, allowed = distance(expected, gradient), TOLERANCE[one.settings["BENCH_PRECISION"]]
                if not error <= allowed:
                    raise Failed(f"its gradient differs by {error:.1e} (allowed: {allowed})")
                return _Ready(one, worker, error, worker.ask("first", limit=_limit(clock)))
            except SystemExit as reason:
                left_out[one.name] = str(reason)
                return None

        pairs = list(zip(asked, workers, strict=True))
        compile_first = [pair for pair in pairs if _compiles(pair[0])]
        outcomes = [prepared(*pair) for pair in pairs if pair not in compile_first]
        with ThreadPoolExecutor(max(1, len(compile_first))) as pool:
            outcomes += pool.map(lambda pair: prepared(*pair), compile_first)
        ready = sorted([one for one in outcomes if one is not None], key=lambda entry: asked.index(entry.one))
        times = _timed(ready, rounds, left_out, clock)
        rows = [
            _row(workload, entry, times[entry.one.name], _peak(entry.worker), products)
            for entry in ready
            if entry.one.name not in left_out
        ]
        for worker in (reference, *workers):  # they take a second each to end by themselves
            worker.kill()
    _print(workload, rows, left_out)
    if not any(row["implementation"].startswith("tinymaml") for row in rows):
        raise Failed("none of ours")
    return rows


def _compiles(one: Implementation) -> bool:
    return one.needs == ("jax",) or "compiled" in one.name


def _limit(clock: Clock) -> float:
    if not clock.left():
        raise Failed("no time left")
    return min(LIMIT, clock.left())


def _gradient(worker: Worker, dtype: str, tasks: int, path: Path, clock: Clock) -> list[Any]:
    worker.ask("gradient", dtype, tasks, str(path), limit=_limit(clock))
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files]


def _timed(ready: Sequence[_Ready], rounds: int, left_out: dict[str, str], clock: Clock) -> dict[str, list[float]]:
    """Milliseconds of every round, as far as the time goes: of those that are slow fewer. One that fails joins
    `left_out`.
    """
    times: dict[str, list[float]] = {entry.one.name: [] for entry in ready}
    for counts in [False, *[True] * rounds]:
        for name, worker in [(entry.one.name, entry.worker) for entry in ready]:
            durations = times[name]
            over = not clock.left() or (len(durations) >= 3 and sum(durations) > ENOUGH)
            if name in left_out or (durations and over):
                continue
            time.sleep(timing.PAUSE)
            try:
                ms = worker.ask("turn", True, limit=max(SHORTEST, min(LIMIT, clock.left())))
            except Failed as reason:
                left_out[name] = str(reason)
                continue
            if counts:
                durations.append(ms)
    return times


def _peak(worker: Worker) -> float | None:
    """MB of the GPU's memory; None if the framework keeps no account."""
    try:
        return float(worker.ask("device_peak", limit=10))
    except Failed:
        return None


def _row(workload: str, entry: _Ready, times: Any, peak: float | None, products: dict[str, float]) -> Row:
    precision, gflop = entry.one.settings["BENCH_PRECISION"], WORKLOADS[workload].gflop(2)
    each = REPEATED if "repeated" in entry.one.name else 1
    median, low, high = (ms / each for ms in spread(times))
    return {
        "part": "frameworks", "workload": workload, "order": 2,
        "implementation": entry.one.name, "precision": precision,
        "median_ms": median, "low_ms": low, "high_ms": high, "rounds": len(times), "first_step_s": entry.first,
        "device_mb": peak, "error": entry.error, "gflop": gflop, "floor_ms": gflop / products[precision],
        "aim_ms": AIMS[precision].get(workload), "how": entry.one.explained(),
    }  # fmt: skip


def _print(workload: str, rows: Sequence[Row], left_out: dict[str, str]) -> None:
    w = WORKLOADS[workload]
    print(
        f"\n{workload}: {w.title}; {w.tasks} tasks, inner steps: {w.steps}, second order, {w.gflop(2):.3g} GFLOP\n"
        f"{'':24} median ms   10 % - 90 %          TFLOP/s  x floor  first step s  GPU's MB  off float64 by  rounds"
    )
    for row in rows:
        print(
            f"{row['implementation']:24}{row['median_ms']:10.3f}   {row['low_ms']:8.3f} - {row['high_ms']:<8.3f}"
            f"{row['gflop'] / row['median_ms']:10.2f}{row['median_ms'] / row['floor_ms']:9.1f}"
            f"{row['first_step_s']:14.2f}{row['device_mb'] or math.nan:10.0f}{row['error']:16.0e}{row['rounds']:8}"
        )
    for precision in TOLERANCE:
        times = {row["implementation"]: row["median_ms"] for row in rows if row["precision"] == precision}
        ours = times.get(f"tinymaml-repeated-{precision}")
        others = {ms: name for name, ms in times.items() if not name.startswith("tinymaml")}
        if ours and others:
            fastest = f"{others[min(others)]}, takes {min(others) / ours:.1f} times as long as ours, repeated"
            print(f"{precision}: the fastest of the others, {fastest} (aim: 3)")
        if ours and (aim := AIMS[precision].get(workload)):
            print(f"{precision}: ours, repeated, takes {ours:.2f} ms, the aim is {aim} ms")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(*[row["how"] for row in rows], sep="\n")

"""A whole meta-step of each workload: ours beside JAX, PyTorch and libraries for it.

Their meta-gradients are compared before anything is timed. In the same rounds: the drawing of a meta-batch, and the
machine's own product of matrices and its copy, from which the floor follows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import footprint
from bench.implementations import OURS, Implementation, chosen
from bench.machine import COPIED, PRODUCT, gbs, gflops
from bench.output import Row
from bench.timing import interleaved, spread
from bench.worker import Failed, Worker, cores
from bench.workloads import WORKLOADS

FLOAT64_TASKS = 2  # on these the float64 meta-gradients are compared; the float32 ones on all, with ours in float64
# Largest difference of a whole meta-gradient, relative to its norm. In float32 a ReLU whose input rounds to the other
# side of 0 makes a finite one, and among millions some do: of W2a's 32 tasks PyTorch's gradient differs by .03 and by
# 4e-4 in one each, by 2e-6 at most in the others; W3 has such tasks in every implementation.
TOLERANCE = {"float64": 1e-8, "float32": 1e-2}


def run(rounds: int, workloads: Sequence[str], peers: Sequence[str] | None, orders: Sequence[int]) -> list[Row]:
    """Time workloads beside `peers` (see `implementations.chosen`)."""
    rows: list[Row] = footprint.table()
    explained: dict[str, None] = {}
    for workload in workloads:
        for order in orders:
            asked, left_out = chosen(workload, order, peers)
            rows += _run(workload, order, asked, left_out, rounds)
            explained |= dict.fromkeys([one.explained() for one in asked if one.name not in left_out])
    print("\nHow:", *explained, sep="\n  ")
    return rows


def _run(workload: str, order: int, asked: list[Implementation], left_out: dict[str, str], rounds: int) -> list[Row]:
    w = WORKLOADS[workload]
    errors = differences(workload, order, asked, left_out)
    asked = [one for one in asked if one.name in errors]
    with ExitStack() as stack:
        workers = {one.name: stack.enter_context(one.worker(workload, order)) for one in asked}
        drawing = stack.enter_context(Worker("bench.metastep:Drawing", (workload,), {}))
        machine = stack.enter_context(Worker("bench.machine:Machine", (), {"OPENBLAS_NUM_THREADS": str(cores())}))
        firsts = {name: worker.ask("first") for name, worker in workers.items()}
        others = {
            "drawing": partial(drawing.ask, "turn"),
            "product": partial(machine.ask, "product"),
            "copy": partial(machine.ask, "copy"),
        }
        times = interleaved({name: partial(worker.ask, "turn") for name, worker in workers.items()} | others, rounds)
        peaks = {name: worker.ask("peak") for name, worker in workers.items()}
    # The best of all rounds: the two threads of a new process may share a core for a second or two.
    sgemm, copied = gflops(float(times["product"].min())), gbs(float(times["copy"].min()))
    rows = []
    for one in asked:
        median, low, high = spread(times[one.name])
        rows.append(
            {
                "part": "frameworks",
                "workload": workload,
                "order": order,
                "implementation": one.name,
                "median_ms": median,
                "low_ms": low,
                "high_ms": high,
                "rounds": len(times[one.name]),
                "import_s": footprint.import_seconds(one.needs[0]),
                "first_step_s": firsts[one.name],
                "peak_mb": peaks[one.name],
                "floor_ms": w.gflop(order) / sgemm * 1e3,
                "sgemm_gflops": sgemm,
                "copy_gbs": copied,
                "drawing_ms": float(np.median(times["drawing"])),
                "float64_error": errors[one.name]["float64"],
                "float32_error": errors[one.name]["float32"],
                "settings": one.settings,
            }
        )
    _print(workload, order, rows, left_out)
    return rows


def differences(
    workload: str, order: int, asked: Sequence[Implementation], left_out: dict[str, str]
) -> dict[str, dict[str, float]]:
    """For each implementation and dtype the difference of its meta-gradient from the first one's in float64, relative.

    In processes of their own, so that the memory of those that are timed is theirs. A peer that fails is noted in
    `left_out`; if one differs nothing is timed.
    """
    few, every = ("float64", FLOAT64_TASKS), ("float32", WORKLOADS[workload].tasks)
    gradients: dict[str, list[Any]] = {}
    for one in asked:
        try:
            gradients[one.name] = _gradients(workload, order, one, [few, every])
        except Failed as error:
            if one.name in OURS:
                raise
            left_out[one.name] = str(error)
    expected = [gradients[asked[0].name][0], *_gradients(workload, order, asked[0], [("float64", every[1])])]
    errors = {
        name: {dtype: distance(a, b) for dtype, a, b in zip(TOLERANCE, expected, by_dtype, strict=True)}
        for name, by_dtype in gradients.items()
    }
    for name, by_dtype in errors.items():
        for dtype, tolerance in TOLERANCE.items():
            if not by_dtype[dtype] <= tolerance:
                raise SystemExit(
                    f"{workload}, order {order}: the {dtype} meta-gradient of {name} differs by {by_dtype[dtype]:.1e} "
                    f"(allowed: {tolerance}): nothing is timed"
                )
    return errors


def _gradients(workload: str, order: int, one: Implementation, asked: Sequence[tuple[str, int]]) -> list[list[Any]]:
    """Meta-gradients, each as (dtype, tasks) asks."""
    gradients = []
    with tempfile.TemporaryDirectory() as folder, one.worker(workload, order) as worker:
        path = Path(folder) / "gradient.npz"
        for dtype, tasks in asked:
            worker.ask("gradient", dtype, tasks, str(path))
            with np.load(path) as arrays:
                gradients.append([arrays[key] for key in arrays.files])
    return gradients


def distance(expected: Sequence[Any], actual: Sequence[Any]) -> float:
    """The norm of the difference of two lists of arrays, relative to the first one's."""
    if [a.shape for a in expected] != [a.shape for a in actual]:
        raise SystemExit(f"{[a.shape for a in actual]} is compared with {[a.shape for a in expected]}")
    a, b = (np.concatenate([x.ravel().astype(np.float64) for x in arrays]) for arrays in (expected, actual))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def _print(workload: str, order: int, rows: Sequence[Row], left_out: dict[str, str]) -> None:
    w, one = WORKLOADS[workload], rows[0]
    worst = {dtype: max([row[f"{dtype}_error"] for row in rows]) for dtype in TOLERANCE}
    print(
        f"\n{workload}, order {order}: {w.title}; {w.tasks} tasks, inner steps: {w.steps}, float32\n"
        f"gradients agree to {worst['float64']:.0e} in float64 ({FLOAT64_TASKS} tasks); in float32 (all tasks) to "
        f"{worst['float32']:.0e} with float64; drawing a meta-batch: {one['drawing_ms']:.2f} ms\n"
        f"floor {one['floor_ms']:.3g} ms: {w.gflop(order):.3g} GFLOP at the {one['sgemm_gflops']:.0f} GFLOP/s of "
        f"sgemm {PRODUCT}; copy of {COPIED >> 20} MB: {one['copy_gbs']:.0f} GB/s\n"
        f"{'':17} median ms   10 % - 90 %            ratio  import s  first step s  peak MB  rounds"
    )
    for row in rows:
        print(
            f"{row['implementation']:17}{row['median_ms']:10.3f}   {row['low_ms']:8.3f} - {row['high_ms']:<8.3f}"
            f"{row['median_ms'] / one['median_ms']:9.2f}{row['import_s']:10.2f}{row['first_step_s']:14.2f}"
            f"{row['peak_mb']:9.0f}{row['rounds']:8}"
        )
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")

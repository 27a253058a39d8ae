"""How the time of our replayed meta-step grows with its sizes, and its memory with the inner steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.implementations import implementations
from bench.output import Row
from bench.timing import fitted_exponent
from bench.workloads import WORKLOADS

ALPHA = 1e-3  # so that twenty steps stay finite
STEPS = (1, 2, 5, 10, 20)
AXES: dict[str, Sequence[int]] = {
    "tasks": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "steps": STEPS,
    "shots": (1, 2, 5, 10, 20),  # of each class, in the support set
    "width": (8, 16, 32, 64, 128),
}
IMPLEMENTATION = "tinymaml-replay"


def run(rounds: int, workloads: Sequence[str]) -> list[Row]:
    """Milliseconds along each axis, all else being the workload's own."""
    rows: list[Row] = []
    for workload in workloads:
        print(f"\nTime of a meta-step against its sizes, {workload}: {WORKLOADS[workload].title}; float32, ms")
        for axis, values in AXES.items():
            times = [_milliseconds(rounds, workload, axis, value) for value in values]
            exponent = _printed(axis, values, times, "{:.3g}")
            common = {"part": "scaling", "workload": workload, "axis": axis, "exponent": exponent}
            rows += [{**common, "value": value, "median_ms": ms} for value, ms in zip(values, times, strict=True)]
    return rows


def _milliseconds(rounds: int, workload: str, axis: str, value: int) -> float:
    changes = {"support": value * WORKLOADS[workload].ways} if axis == "shots" else {axis: value}
    with _worker(workload, **changes) as worker:
        worker.ask("first")
        return float(np.median([worker.ask("turn", True) for _ in range(rounds)]))


def run_memory(workloads: Sequence[str]) -> list[Row]:
    """The most memory of a process, with what the inner steps record kept or recomputed.

    The fits leave out what a process with a single task and step has: the interpreter, its modules, compiled kernels.
    """
    rows: list[Row] = []
    for workload in workloads:
        print(f"\nMost memory against inner steps, {workload}: {WORKLOADS[workload].title}; float32, MB")
        base = _megabytes(workload, tasks=1, steps=1)
        for records in ("keep", "recompute"):
            peaks = [_megabytes(workload, steps=steps, records=records) for steps in STEPS]
            exponent = _printed(f"records={records}", STEPS, peaks, "{:.0f}", base)
            common = {"part": "memory", "workload": workload, "records": records, "exponent": exponent}
            rows += [{**common, "steps": steps, "peak_mb": mb} for steps, mb in zip(STEPS, peaks, strict=True)]
        print(f"  with one task and one step: {base:.0f}")
    return rows


def _megabytes(workload: str, **changes: Any) -> float:
    with _worker(workload, **changes) as worker:
        worker.ask("first")
        worker.ask("turn", False)
        return worker.ask("peak")


def _worker(workload: str, **changes: Any) -> Any:
    return implementations(workload)[IMPLEMENTATION].worker(workload, 2, alpha=ALPHA, **changes)


def _printed(axis: str, values: Sequence[int], ys: Sequence[float], form: str, base: float = 0.0) -> float:
    """The fitted exponent, printed with what it is fitted to."""
    exponent = fitted_exponent(values, [max(y - base, 1e-3) for y in ys])
    points = "  ".join([f"{value}: {form.format(y)}" for value, y in zip(values, ys, strict=True)])
    print(f"  {axis:18} {points};  exponent {exponent:.2f}")
    return exponent

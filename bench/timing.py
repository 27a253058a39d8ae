"""Interleaved timing: every implementation runs once a round, so that a drift of the machine meets them all alike."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    """Milliseconds of every round for each function, after five calls that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for r in range(rounds + 5):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if r >= 5:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: np.array(values) for name, values in times.items()}


def table(title: str, times: dict[str, np.ndarray[Any, Any]]) -> None:
    """Median, the middle 80 %, and the ratio to the first row."""
    print(f"\n{title}\n{'':44}  median ms   10 % - 90 %       ratio")
    first = None
    for name, values in times.items():
        low, median, high = np.percentile(values, [10, 50, 90])
        first = first or median
        print(f"{name:44}  {median:9.3f}   {low:.3f} - {high:.3f}   {median / first:5.2f}")


def machine() -> str:
    """Processor, cores and versions."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    versions = []
    for name in ("numpy", "numba", "jax", "torch"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}"

"""The machine: what it is, and its own rates, from which the floors follow."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from pathlib import Path
from typing import Any

import numpy as np

from bench.timing import turn
from bench.worker import cores

PRODUCT = 2048  # rows and columns of the matrices whose product is the machine's measure
COPIED = 1 << 26  # bytes: more than a core's own caches hold
VERSIONS = ("numpy", "numba", "jax", "torch", "learn2learn", "higher", "torchopt")


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()}, {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak() -> float:
    """The most memory that this process had, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss also counts what the parent had when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Machine:
    """The machine's own measures, in a process with its number of threads."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._factors = rng.random((3, PRODUCT, PRODUCT), np.float32)
        self._copied = rng.integers(0, 256, (2, COPIED), np.uint8)

    def product(self, warm: bool) -> float:
        """Milliseconds of a product of two matrices in NumPy's BLAS."""
        a, b, c = self._factors
        return turn(lambda: np.matmul(a, b, out=c), warm)

    def copy(self, warm: bool) -> float:
        """Milliseconds of a copy from memory to memory."""
        from tinymaml.kernels.cpu import threads

        source, target = self._copied.reshape(2, threads.count(), -1)

        def part(first: int, last: int) -> None:
            target[first:last] = source[first:last]

        return turn(lambda: threads.over_tasks(len(source), COPIED, part), warm)


def gflops(milliseconds: float) -> float:
    """The rate of `Machine.product`."""
    return 2e-6 * PRODUCT**3 / milliseconds


def gbs(milliseconds: float) -> float:
    """The rate of `Machine.copy`, read and written."""
    return 2e-6 * COPIED / milliseconds

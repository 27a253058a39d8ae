"""Kernels for NVIDIA GPUs in CUDA C++, one module a family, by the names of `kernels/cpu/`.

A family's Python lays out the launches of a call, `kernel(plan, outs, ins, **static)`; its `.cuh` computes. CuPy
provides memory, streams, graphs and the compiler (NVRTC), and is imported when the first array is on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from tinymaml.kernels.gpu.launch import Plan


@cache
def planner(name: str) -> Callable[..., None]:
    """What appends the launches of kernel `"family.name"` to a plan. Raises KeyError if there is none of this name."""
    family, own = name.split(".")
    found = getattr(importlib.import_module(f"{__name__}.{family}"), own, None)
    if found is None:
        raise KeyError(f"there is no kernel {name!r}")
    return found


def run(name: str, outs: Any, ins: Any, static: dict[str, Any]) -> None:
    """Run a kernel on arrays of the GPU, on CuPy's current stream."""
    plan = Plan()
    planner(name)(plan, outs, ins, **static)
    plan.run()


def view(name: str, array: Any, static: dict[str, Any]) -> Any:
    """Another look at an array of the GPU."""
    return planner(name)(array, **static)

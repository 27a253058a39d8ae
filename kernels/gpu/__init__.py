"""Kernels for NVIDIA GPUs in CUDA C++, one module a family, by the names of `kernels/cpu/`.

A family's Python lays out the launches of a call, `kernel(plan, outs, ins, **static)`; its `.cuh` computes. CuPy
provides memory, streams, graphs and the compiler (NVRTC), and is imported when the first array is on a GPU. Read launch
(what is compiled and called), products and linear, then the other families; many and support are for recorded programs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import Plan, cupy, precision, set_precision
from tinymaml.kernels.names import KernelName, lookup

__all__ = [
    "GpuMissingError",
    "cupy",
    "describe",
    "number",
    "operand",
    "planner",
    "precision",
    "require",
    "run",
    "set_precision",
]


_INDEXING = (KernelName("shape", "gather"), KernelName("shape", "scatter"))


class GpuMissingError(RuntimeError):
    """There is no GPU that CUDA can use; the message says what is missing."""


def require() -> None:
    """Raises ImportError without CuPy, GpuMissingError without a GPU; the message says what to do."""
    try:
        count = cupy().cuda.runtime.getDeviceCount()
    except ImportError:
        raise
    except Exception as reason:  # errors of CuPy, which there are no names for without it
        raise GpuMissingError(
            f"CUDA finds no GPU: {reason}; is NVIDIA's driver installed, and is a GPU there?"
        ) from None
    if not count:
        raise GpuMissingError("CUDA finds no GPU: NVIDIA's driver is there, but sees no device")


def describe() -> str:
    """The GPUs, and the versions of CuPy and CUDA. Raises as `require`."""
    require()
    runtime = cupy().cuda.runtime
    driver, toolkit = (
        f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    names = []
    for device in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(device)
        capability, memory = f"{properties['major']}.{properties['minor']}", properties["totalGlobalMem"] / 2**30
        names.append(f"{properties['name'].decode()} (compute capability {capability}, {memory:.0f} GiB)")
    return f"{', '.join(names)}; CuPy {cupy().__version__}, CUDA {toolkit}, a driver for CUDA {driver}"


@cache
def planner(family: str, name: str) -> Callable[..., None]:
    """What appends the launches of a kernel to a plan. Raises KeyError if there is none of this name."""
    return lookup(__name__, family, name)


def run(kernel: KernelName, outs: Any, ins: Any, static: dict[str, Any]) -> None:
    """Run a kernel on arrays of the GPU, on CuPy's current stream."""
    plan = Plan()
    planner(*kernel)(plan, outs, ins, **static)
    plan.run()


def number(value: Any, dtype: Any) -> Any:
    """A number as an array without axes on the GPU."""
    return _number(np.asarray(value, dtype).tobytes(), np.dtype(dtype))


@cache
def _number(content: bytes, dtype: Any) -> Any:
    return cupy().asarray(np.frombuffer(content, dtype).reshape(()))


def operand(kernel: KernelName, x: Any) -> Any:
    """An operand of a kernel that came as a NumPy array: a number, repeated or not, or an index.

    Raises:
        TypeError: it is more than that; nothing large is moved to the GPU unasked.
    """
    if not x.size:
        return cupy().empty(x.shape, x.dtype)
    if x.size == 1 or not any(x.strides):
        return cupy().broadcast_to(number(x.flat[0].item(), x.dtype), x.shape)
    if kernel in _INDEXING and x.dtype.kind in "iu":
        return cupy().asarray(x)
    raise TypeError(
        f"{kernel.name}: an array of shape {x.shape} is on the CPU and another one on a GPU: move one of them "
        "with tinymaml.device.to_device"
    )

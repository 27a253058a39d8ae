"""The kernels of the GPU beside the reference: on a GPU, or on the CPU by the stand-in for CuPy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinymaml.kernels import gpu
from tinymaml.kernels.cpu import numpy_kernel
from tinymaml.kernels.names import KernelName

Specs = Sequence[tuple[tuple[int, ...], Any]]
Name = tuple[str, str]  # family, kernel

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def put(x: Any) -> Any:
    """A NumPy array on the GPU, laid out alike: strides and broadcasts too."""
    cupy: Any = sys.modules["cupy"]
    x = np.asarray(x)
    extents = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)]
    low, high = sum(e for e in extents if e < 0), sum(e for e in extents if e > 0) + x.itemsize
    if not x.size:
        return cupy.empty(x.shape, x.dtype)
    memory = np.frombuffer((np.ctypeslib.ctypes.c_char * (high - low)).from_address(x.ctypes.data + low), np.uint8)
    return cupy.ndarray(x.shape, x.dtype, cupy.asarray(memory.copy()).data + -low, x.strides)


@contextmanager
def lanes_reversed() -> Iterator[None]:
    """Threads, warps and blocks in reverse order, where the stand-in runs them."""
    cupy: Any = sys.modules["cupy"]
    if not hasattr(cupy, "REVERSED"):
        yield
        return
    cupy.REVERSED = True
    try:
        yield
    finally:
        cupy.REVERSED = False


def distance(found: Any, expected: Any) -> float:
    """The norm of the difference over the norm of what is expected, which is taken to be 1 at least where it is 0."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.size == 0:
        return 0.0
    return float(np.linalg.norm(found - expected) / (np.linalg.norm(expected) or 1.0))


def run(name: Name, specs: Specs, ins: Sequence[Any], static: dict[str, Any]) -> list[Any]:
    """What a kernel writes into memory that was full of NaN, as NumPy arrays; on operands laid out as given."""
    cupy: Any = sys.modules["cupy"]
    outs = []
    for shape, dtype in specs:
        out = cupy.empty(shape, dtype)
        if out.size:
            out.set(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.array(-1).astype(dtype), dtype))
        outs.append(out)
    gpu.run(KernelName(*name), outs, [put(x) for x in ins], static)
    return [out.get() for out in outs]


def reference(name: Name, specs: Specs, ins: Sequence[Any], static: dict[str, Any]) -> list[Any]:
    """The same by the reference, in double precision."""
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in map(np.asarray, ins)]
    outs = [np.empty(shape, np.float64 if np.dtype(dtype) == np.float32 else dtype) for shape, dtype in specs]
    numpy_kernel(*name)(outs, wide, **static)
    return outs


def check(name: Name, specs: Specs, ins: Sequence[Any], static: dict[str, Any], tolerance: float | None = None) -> None:
    """The kernel gives what the reference gives in double precision, and the same bits with its lanes reversed."""
    found, expected = run(name, specs, ins, static), reference(name, specs, ins, static)
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        limit = tolerance or TOLERANCE.get(x.dtype, 0.0)
        away = distance(x, y)
        assert away <= limit, f"{name}, output {i} of shape {x.shape}: {away:.3g} from the reference, at most {limit}"
    with lanes_reversed():
        for i, (x, y) in enumerate(zip(found, run(name, specs, ins, static), strict=True)):
            assert np.array_equal(x, y, equal_nan=True), f"{name}, output {i}: the order of lanes changes the result"

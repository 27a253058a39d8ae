"""The one way from a primitive to a kernel: the arrays decide where it runs.

A kernel is known by the name of its family and its own, `"elementwise.add"`, and is called as
`kernel(outs, ins, **static)`: it writes into arrays it is given. A view (`"shape.reshape"`) is called as
`view(array, **static)` and returns another look at the same memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff import tracing, tree
from tinymaml.autodiff.tree import Tree
from tinymaml.kernels import cpu

DEVICES = ("cpu", "gpu")

# glibc hands freed memory back to the system, to fault it in again at the next step, until it has seen one large block
# freed; from then on it keeps as much at hand. The block is never touched. It saves a quarter of an eager meta-step.
np.empty(1 << 24, np.uint8)

_MALLOC = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 1 << 26), "M_MMAP_MAX": (-4, 0)}
_HUGE = 1 << 29  # bytes asked for in pages of 2 MB: none of them is real before it is used
_MADV_HUGEPAGE, _PAGE = 14, 1 << 21


def keep_memory() -> bool:
    """Have glibc keep all memory that is freed, for a process that trains: a step's is the next one's.

    It is for programs, not for libraries, to say so: nothing is given back to the system any more. It saves an eager
    meta-step on images thousands of page faults, and large pages save it some of its walks through the page table.
    Returns False, and does nothing, where there is no glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
    except (AttributeError, OSError, TypeError):
        return False
    kept = all([mallopt(name, value) == 1 for name, value in _MALLOC.values()])
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = malloc(_HUGE)
    if block:
        start = -(-block // _PAGE) * _PAGE
        madvise(start, block + _HUGE - start, _MADV_HUGEPAGE)
        free(block)
    return kept


Launch = Callable[[Any, Sequence[Any], dict[str, Any]], tuple[Any, ...]]


def kernel(name: str) -> Launch:
    """A function that allocates the outputs and runs the kernel of this name where the inputs are."""
    run: Callable[..., None] | None = None

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        nonlocal run
        recorded = tracing.current()
        if recorded is not None:
            return recorded.launch(name, specs, ins, static)
        for x in ins:
            if not isinstance(x, np.ndarray):
                return _launch_on_gpu(name, specs, ins, static)
        if run is None:
            run = cpu.find(name)
        outs = tuple([np.empty(shape, dtype) for shape, dtype in specs])
        run(outs, ins, **static)
        return outs

    return launch


def _launch_on_gpu(name: str, specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
    tracing.check_values(ins)
    from tinymaml.kernels import gpu

    outs = tuple([gpu.cupy().empty(shape, dtype) for shape, dtype in specs])
    gpu.run(name, outs, [x if on_gpu(x) else gpu.operand(name, x) for x in ins], static)
    return outs


def view(name: str) -> Launch:
    """As `kernel`, for a view."""

    def look(array: Any, static: dict[str, Any]) -> Any:
        if isinstance(array, np.ndarray):
            return cpu.find(name)(array, **static)
        tracing.check_values([array])
        from tinymaml.kernels import gpu

        return gpu.planner(name)(array, **static)

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        recorded = tracing.current()
        if recorded is not None:
            return (recorded.view(lambda x: look(x, static), *ins),)
        return (look(ins[0], static),)

    return launch


def on_gpu(array: Any) -> bool:
    """Whether an array is on a GPU."""
    return not isinstance(array, np.ndarray | np.generic | tracing.Traced)


def number(value: float, like: Any) -> Any:
    """A number as an array without axes, of the dtype of an array, and where it is."""
    if not on_gpu(like):
        return np.asarray(value, like.dtype)
    from tinymaml.kernels import gpu

    return gpu.number(value, like.dtype)


def zeros(shape: Sequence[int], like: Any) -> Any:
    """Zeros of the dtype of an array, and where it is."""
    return alike(np.zeros(shape, like.dtype), like)


def alike(array: Any, like: Any) -> Any:
    """A NumPy array where another array is."""
    return to_device(array, "gpu") if on_gpu(like) else array


def to_device(values: Tree, device: str) -> Tree:
    """A pytree of arrays with all of them on "gpu", CuPy's current device, or on "cpu"; those that are there stay.

    Arrays of other libraries on a GPU (`__cuda_array_interface__`) become CuPy's, on the same memory.

    Raises:
        ValueError: another device.
        ImportError, GpuMissingError: there is no CuPy, or no GPU; the message says which.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cpu":
        return to_host(values)
    from tinymaml.kernels import gpu

    gpu.require()
    return tree.map(gpu.cupy().asarray, values)


def to_host(values: Tree) -> Tree:
    """A pytree of arrays with all of them as NumPy's."""
    return tree.map(lambda x: x.get() if hasattr(x, "__cuda_array_interface__") else x, values)


def describe_gpu() -> str:
    """Which GPUs there are, and the versions of CuPy and CUDA. Raises as `to_device`."""
    from tinymaml.kernels import gpu

    return gpu.describe()


def precision() -> str:
    """How products of float32 are computed on a GPU; see `set_precision`."""
    from tinymaml.kernels import gpu

    return gpu.precision()


def set_precision(name: str) -> None:
    """Compute products of float32 on a GPU as "fp32", which is the default, or as "tf32": on its matrix units, which
    take operands of 10 bits. It holds for what runs, or is recorded, from now on.

    Raises:
        ValueError: another name.
    """
    from tinymaml.kernels import gpu

    gpu.set_precision(name)

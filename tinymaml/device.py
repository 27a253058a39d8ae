"""Where arrays are: to a GPU and back, and how a process keeps its memory."""

from __future__ import annotations

import ctypes

from tinymaml.autodiff import tree
from tinymaml.autodiff.tree import Tree

DEVICES = ("cpu", "gpu")

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

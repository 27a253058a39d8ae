"""A stand-in for CuPy on a machine without a GPU: the part of it that tinymaml uses, and no more.

Memory is the CPU's, poisoned with NaN, and kernels are compiled by g++ (`cuda_on_cpu.h`). Arrays are as strict as
CuPy's: NumPy's functions refuse them, nothing is copied to the host unasked, comparisons go number by number, and they
have no hash.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__version__ = "14.2.0"
REVERSED = os.environ.get("TINYMAML_SIMULATED_REVERSED", "0") == "1"  # lanes, warps and blocks in reverse order
_HERE = Path(__file__).parent
_captured: list[Any] | None = None  # what is launched while a stream is being captured


class MemoryPointer:
    def __init__(self, memory: Any, offset: int = 0) -> None:
        self.memory, self.offset = memory, offset

    @property
    def ptr(self) -> int:
        return int(self.memory.ctypes.data) + self.offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.memory, self.offset + int(offset))

    def copy_from_device_async(self, source: MemoryPointer, size: int, stream: Any = None) -> None:
        ctypes.memmove(self.ptr, source.ptr, size)


class ndarray:  # as CuPy spells it
    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None) -> None:
        shape = tuple(shape)
        if memptr is None:
            memptr = cuda.alloc(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        self._keep(np.ndarray(shape, dtype, memptr.memory, memptr.offset, strides), memptr)

    def _keep(self, array: Any, data: MemoryPointer) -> ndarray:
        self._array = array
        start = array.ctypes.data if array.size else data.ptr
        self.data = data + (start - data.ptr)
        self.base: ndarray | None = None
        return self

    def _look(self, array: Any) -> ndarray:
        if array.size and not np.may_share_memory(array, self._array):  # as CuPy, a copy where there is no view
            _not_captured("a copy")
            results = empty(array.shape, array.dtype)
            results._array[...] = array
            return results
        results = object.__new__(ndarray)._keep(array, self.data)
        results.base = self
        return results

    shape = property(lambda self: self._array.shape)
    strides = property(lambda self: self._array.strides)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    flags = property(lambda self: self._array.flags)
    __array_ufunc__ = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False), "strides": self.strides,
            "version": 3,
        }  # fmt: skip

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> ndarray:
        results = self._array[index]
        return self._look(results if isinstance(results, np.ndarray) else self._array[(*index, ...)])

    def reshape(self, *shape: Any) -> ndarray:
        return self._look(self._array.reshape(*shape))

    def transpose(self, *axes: Any) -> ndarray:
        return self._look(self._array.transpose(*axes))

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    def get(self, stream: Any = None, out: Any = None) -> Any:
        _not_captured("get")
        if out is None:
            return self._array.copy()
        out[...] = self._array
        return out

    def set(self, array: Any, stream: Any = None) -> None:
        _not_captured("set")
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.dtype or array.shape != self.shape:
            raise ValueError("Shape or dtype mismatch")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._array[...] = array

    def copy(self) -> ndarray:
        _not_captured("copy")
        results = empty(self.shape, self.dtype)
        results._array[...] = self._array
        return results

    def fill(self, value: Any) -> None:
        _not_captured("fill")
        self._array.fill(value)

    def item(self) -> Any:
        return self.get().item()

    __float__ = __int__ = __bool__ = lambda self: self.get().__float__()  # replaced below


for _name in ("__float__", "__int__", "__bool__"):
    setattr(ndarray, _name, lambda self, _name=_name: getattr(self.get(), _name)())


def _compared(self: ndarray, other: Any, name: str) -> ndarray:
    """Number by number; what is neither CuPy's nor a number is refused, `...` in a search for it, say."""
    _not_captured(name)
    if not isinstance(other, ndarray | np.generic | int | float):
        raise TypeError(f"Unsupported type {type(other)}")
    return asarray(getattr(self._array, name)(other._array if isinstance(other, ndarray) else other))


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(ndarray, _name, lambda self, other, _name=_name: _compared(self, other, _name))
ndarray.__hash__ = None  # type: ignore[assignment]  # as CuPy's arrays


def _not_captured(what: str) -> None:
    if _captured is not None:
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is being captured")


def empty(shape: Any, dtype: Any = float) -> ndarray:
    return ndarray((shape,) if isinstance(shape, int) else shape, dtype)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    results = empty(shape, dtype)
    results.fill(0)
    return results


def asarray(value: Any, dtype: Any = None) -> ndarray:
    if isinstance(value, ndarray) and dtype in (None, value.dtype):
        return value
    value = np.asarray(value, dtype)
    results = empty(value.shape, value.dtype)
    results.set(np.ascontiguousarray(value).reshape(value.shape))
    return results


def asnumpy(array: Any) -> Any:
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    return array._look(np.broadcast_to(array._array, shape))


class get_default_memory_pool:
    def free_all_blocks(self) -> None: ...

    def total_bytes(self) -> int:
        return 0


def matmul(a: ndarray, b: ndarray) -> ndarray:
    _not_captured("cuBLAS")
    return asarray(a._array @ b._array)


@cache
def _library(code: str, names: tuple[str, ...], options: tuple[str, ...]) -> Any:
    """The shared library with entry0, entry1, ... for the names; compiled once for a text, kept in a folder."""
    calls = "\n".join(
        f'extern "C" int entry{i}(const unsigned* g, int r, void** a, const int* s, int n)'
        f" {{ return sim::launch(&{name}, g, r, a, s, n); }}"
        for i, name in enumerate(names)
    )
    text = f'#include "{_HERE / "cuda_on_cpu.h"}"\n{code}\n{calls}\n'
    contract = "off" if "--fmad=false" in options else "fast"
    flags = ("-std=c++17", "-O1", "-march=native", "-shared", "-fPIC", "-pthread", f"-ffp-contract={contract}", "-w")
    key = hashlib.sha256(repr((text, flags, (_HERE / "cuda_on_cpu.h").read_text())).encode()).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"tinymaml-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "kernels.cpp").write_text(text)
            built = subprocess.run(
                ["g++", *flags, str(Path(scratch) / "kernels.cpp"), "-o", str(Path(scratch) / "kernels.so")],
                capture_output=True,
                text=True,
            )
            if built.returncode:
                raise RuntimeError(f"g++ refused the kernels:\n{built.stderr[:6000]}")
            os.replace(Path(scratch) / "kernels.so", library)
    return ctypes.CDLL(str(library))


class _Function:
    def __init__(self, entry: Any, name: str) -> None:
        self.entry, self.name = entry, name

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        held = []
        for x in args:
            if isinstance(x, ndarray):
                held.append(ctypes.c_uint64(x.data.ptr))
            elif isinstance(x, np.generic):
                held.append((ctypes.c_char * x.nbytes).from_buffer_copy(x.tobytes()))  # type: ignore[arg-type]
            else:
                raise TypeError(f"{self.name}: {x!r} is neither an array nor a NumPy scalar")
        keep = (args, held)

        def run(keep: Any = keep) -> None:
            count = len(held)
            pointers = (ctypes.c_void_p * count)(*[ctypes.addressof(x) for x in held])
            sizes = (ctypes.c_int * count)(*[ctypes.sizeof(x) for x in held])
            wrong = self.entry((ctypes.c_uint * 6)(*grid, *block), int(REVERSED), pointers, sizes, count)
            if wrong:
                raise TypeError(f"{self.name}: argument {wrong - 1} (of {count}) is not of the size the kernel takes")

        if max(grid[1:]) > 65535 or min(*grid, *block) < 1 or np.prod(block) > 1024:
            raise RuntimeError(f"{self.name}: no such grid: {grid} blocks of {block} threads")
        if _captured is None:
            run()
        else:
            _captured.append(run)


class RawModule:
    def __init__(self, *, code: str, options: Any = (), name_expressions: Any = ()) -> None:
        self.code, self.options, self.names = code, tuple(options), tuple(name_expressions)

    def get_function(self, name: str) -> _Function:
        library = _library(self.code, self.names, self.options)
        return _Function(getattr(library, f"entry{self.names.index(name)}"), name)


class _Graph:
    def __init__(self, runs: list[Any]) -> None:
        self.runs = runs

    def launch(self, stream: Any = None) -> None:
        for run in self.runs:
            run()


class _Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *args: Any) -> None: ...

    def begin_capture(self, mode: Any = None) -> None:
        global _captured
        if not self.non_blocking:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        _not_captured("begin_capture")
        _captured = []

    def end_capture(self) -> _Graph:
        global _captured
        if _captured is None:
            raise RuntimeError("the stream is not being captured")
        results, _captured = _captured, None
        return _Graph(results)

    def synchronize(self) -> None:
        _not_captured("synchronize")


class _Event:
    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None: ...


class _Device:
    compute_capability = "90"


class cuda:
    Device = _Device
    Stream = _Stream
    Event = _Event

    @staticmethod
    def get_elapsed_time(start: _Event, end: _Event) -> float:
        return (end.time - start.time) * 1e3

    class runtime:
        @staticmethod
        def getDeviceCount() -> int:
            return 1

        @staticmethod
        def getDeviceProperties(device: int) -> dict[str, Any]:
            return {"name": b"a stand-in", "major": 9, "minor": 0, "totalGlobalMem": 8 << 30}

        @staticmethod
        def driverGetVersion() -> int:
            return 13020

        @staticmethod
        def runtimeGetVersion() -> int:
            return 12090

    @staticmethod
    def set_allocator(allocator: Any = None) -> None: ...

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def alloc(size: int) -> MemoryPointer:
        _not_captured("alloc")
        memory = np.empty(-(-max(size, 1) // 8) * 8 + 512, np.uint8)
        memory.view(np.uint64)[:] = 0x7FF80000_7FC00000  # NaN as float32 (the lower half) and as float64
        return MemoryPointer(memory, -memory.ctypes.data % 512 // 1)

    @staticmethod
    def get_current_stream() -> _Stream:
        return _Stream()

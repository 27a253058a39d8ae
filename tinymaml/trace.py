"""What a step does, written down while it runs on arrays without values: a list of calls of kernels.

While a trace is on, `tinymaml.device` appends its calls to it and runs nothing. The arrays that it hands out have a
shape, a dtype and strides, so that views can be made of them, but no numbers: whoever asks for one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

Spec = tuple[tuple[int, ...], Any]
Check = Callable[[Any], None]


class RecordingError(TypeError):
    """What a step does cannot be recorded; the message says why, and what to do instead."""


@dataclass(eq=False)
class Root:
    """Memory that a program will have: of one of its inputs, or of one output of a call."""

    shape: tuple[int, ...]
    dtype: Any
    base: int  # where the views of it would begin in memory, had it any
    maker: Call | None = None  # None: an input
    below: int | None = None  # values are whole numbers in [0, below), whatever the kernel that makes them is given

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(eq=False)
class Call:
    """A kernel on its operands: `Traced` views of roots, or arrays that the step closed over."""

    name: str  # family.kernel
    outs: list[Any]
    ins: list[Any]
    static: dict[str, Any] = field(default_factory=dict)


def _refuse(what: str) -> NoReturn:
    raise RecordingError(
        f"{what} asks for the value of an array while a step is recorded, when there is none yet: decide outside of "
        "the step, or compute with tinymaml's functions (where, maximum, ...), which are recorded"
    )


class Traced(np.ndarray[Any, np.dtype[Any]]):
    """An array without values, or a view of one. See `Root`."""

    root: Root

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, Traced):
            self.root = source.root

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _refuse(f"numpy.{ufunc.__name__}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        _refuse(f"numpy.{func.__name__}")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **options: Any) -> NoReturn:
        _refuse(name)

    return method


for _name in (
    "__bool__", "__complex__", "__contains__", "__float__", "__getitem__", "__index__", "__int__", "__iter__",
    "__repr__", "__setitem__", "__str__", "argmax", "argmin", "astype", "choose", "copy", "dump", "dumps", "fill",
    "flatten", "item", "nonzero", "put", "repeat", "searchsorted", "sort", "take", "tobytes", "tofile", "tolist",
):  # fmt: skip
    setattr(Traced, _name, _refusing(_name))

_block = np.empty(0, np.uint8)  # all traced arrays are views of it: they need addresses, not memory


def traced(shape: tuple[int, ...], dtype: Any, maker: Call | None = None) -> Traced:
    """A new root, as an array."""
    global _block
    dtype = np.dtype(dtype)
    need = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if need > _block.nbytes:
        _block = np.empty(need, np.uint8)  # never touched, so the system never gives it memory
    block = _block
    array = np.ndarray.__new__(Traced, shape, dtype, buffer=block)
    array.root = Root(shape, dtype, block.ctypes.data, maker)
    return array


def offset(array: Traced) -> int:
    """Bytes from the beginning of its root to the array's first number."""
    return array.ctypes.data - array.root.base


@dataclass
class Trace:
    """The calls of a step so far, and what is to be checked before and after each replay."""

    calls: list[Call] = field(default_factory=list)
    before: list[tuple[Any, Check]] = field(default_factory=list)
    after: list[tuple[Any, Check]] = field(default_factory=list)

    def launch(self, name: str, specs: Sequence[Spec], ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        """Append a call of a kernel. Returns its outputs."""
        call = Call(name, [], list(ins), static)
        call.outs = [traced(shape, dtype, call) for shape, dtype in specs]
        self.calls.append(call)
        return tuple(call.outs)

    def view(self, look: Callable[[Any], Any], array: Any) -> Any:
        """Another look at an array; a copy, which is a call, where there is none."""
        if not isinstance(array, np.ndarray):
            return self._view_on_gpu(look, array)
        block = array.view(np.ndarray)
        found = look(block)
        if not np.may_share_memory(found, block) and found.size:
            if block.flags.c_contiguous:
                raise AssertionError("a view copies an array that is in order")
            (whole,) = self.launch("elementwise.copy", [(array.shape, array.dtype)], [array], {})
            return self.view(look, whole)
        if not isinstance(array, Traced):
            return found
        view = found.view(Traced)
        view.root = array.root
        return view

    def _view_on_gpu(self, look: Callable[[Any], Any], array: Any) -> Any:
        found = look(array)
        if array.flags.c_contiguous or found.data.ptr == array.data.ptr:
            return found
        (whole,) = self.launch("elementwise.copy", [(array.shape, array.dtype)], [array], {})
        return self.view(look, whole)


_TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
current = _TRACE.get


@contextmanager
def tracing() -> Iterator[Trace]:
    """Calls of kernels are written down meanwhile, in this thread."""
    if current() is not None:
        raise RecordingError("a step is being recorded already: a recorded step cannot record another, call it instead")
    trace = Trace()
    token = _TRACE.set(trace)
    try:
        yield trace
    finally:
        _TRACE.reset(token)


def declare_below(array: Any, limit: int) -> None:
    """What a kernel has made is whole numbers in [0, limit), by construction: labels that it drew, say."""
    if isinstance(array, Traced):
        array.root.below = limit


def is_below(array: Any, limit: int) -> bool:
    """Whether that was declared; then nothing needs to be asked when the values are known."""
    return isinstance(array, Traced) and array.root.below is not None and array.root.below <= limit


def when_known(array: Any, check: Check, needed: bool = False) -> None:
    """Run check(array), which raises if it does not like the values: now, or while a step is recorded at each replay.

    There it runs before the calls if the values are known by then; what is `needed` before them must be known.
    Otherwise it runs after them, and only if not all of the array is finite: it has to like what is.
    """
    trace = current()
    if trace is None:
        check(array if isinstance(array, np.ndarray) else array.get())
    elif not isinstance(array, Traced):
        check(array if isinstance(array, np.ndarray) else array.get())
        trace.before.append((array, check))
    elif array.root.maker is None:
        trace.before.append((array, check))
    elif needed:
        raise RecordingError("labels must be known before a recorded step runs: give them to it as an argument")
    else:
        trace.after.append((array, check))

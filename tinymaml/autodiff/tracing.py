"""Tracing: what a step does is recorded, while it runs on arrays without values, as a list of calls of kernels.

While a trace is active, `dispatch` appends calls to it and runs nothing. The arrays that it returns have a shape, a
dtype and strides, so that views can be made of them, but no memory: whatever else is done with one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tinymaml.kernels.names import KernelName

Spec = tuple[tuple[int, ...], Any]  # shape and dtype of one output
Check = Callable[[Any], None]


class RecordingError(TypeError):
    """What a step does cannot be recorded; the message says why, and what to do instead."""


class NoValueError(RecordingError, AttributeError):
    """The value of an array without values was asked for. It is an AttributeError too, for `hasattr` and for
    libraries that ask an object for one of their protocols, as NumPy does."""


@dataclass(eq=False)
class Root:
    """Memory that a program will have: of one of its inputs, or of one output of a call."""

    shape: tuple[int, ...]
    dtype: Any
    recording: object  # the trace that it is of, as nothing but an identity
    maker: Call | None = None  # None: an input
    below: int | None = None  # values are whole numbers in [0, below), whatever the kernel that makes them is given
    entries_of: tuple[Any, ...] = ()  # arrays whose entries it has, some or all of them and no others

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * int(self.dtype.itemsize)


@dataclass(eq=False)
class Call:
    """A kernel on its operands: `Traced` views of roots, or arrays that the step closed over.

    Attributes:
        row_strides: set where the compiler splits the call by rows, see `compile.regions.row_strides`.
    """

    kernel: KernelName
    outs: list[Any]
    ins: list[Any]
    static: dict[str, Any] = field(default_factory=dict)
    row_strides: list[int | None] | None = None


def _refuse(what: str) -> NoReturn:
    raise NoValueError(
        f"{what} asks for the value of an array while a step is recorded, when there is none yet: decide outside of "
        "the step, or compute with tinymaml's functions (where, maximum, ...), which are recorded"
    )


class Flags(NamedTuple):
    """What `numpy.ndarray.flags` says, as far as kernels ask."""

    c_contiguous: bool


@dataclass(frozen=True, eq=False, repr=False)
class Traced:
    """An array without values, or a view of one: how it lies in its root's memory once there is some.

    It is no `numpy.ndarray` and has no buffer, so that nothing but this package can do anything with it: there is no
    list of what is forbidden. The methods below only give a better reason than Python's own.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]  # bytes
    offset: int  # bytes from the beginning of the root to the first number
    root: Root

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def flags(self) -> Flags:
        """Whether it is in C order; along an axis of length 1 any stride is."""
        expected = self.itemsize
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and stride != expected and self.size:
                return Flags(False)
            expected *= n
        return Flags(True)

    def __repr__(self) -> str:
        return f"Traced({self.shape}, dtype={self.dtype})"

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(name)

    def __array__(self, *args: Any, **options: Any) -> NoReturn:
        _refuse("numpy.asarray")

    def __array_ufunc__(self, ufunc: Any, *args: Any, **options: Any) -> NoReturn:
        _refuse(f"numpy.{ufunc.__name__}")

    def __array_function__(self, func: Any, *args: Any) -> NoReturn:
        _refuse(f"numpy.{func.__name__}")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any) -> NoReturn:
        _refuse(name)

    return method


# What Python would otherwise answer of any object, from where it is in memory, or without looking at it at all.
for _name in ("__bool__", "__eq__", "__ne__", "__hash__", "__reduce_ex__", "__copy__", "__deepcopy__"):
    setattr(Traced, _name, _refusing(_name))
# What users write on arrays: Python's own error would not say why not.
for _name in (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__pow__",
    "__rpow__", "__matmul__", "__rmatmul__", "__neg__", "__abs__", "__lt__", "__le__", "__gt__", "__ge__",
    "__getitem__", "__setitem__", "__iter__", "__len__", "__contains__", "__float__", "__int__", "__index__",
    "__complex__",
):  # fmt: skip
    setattr(Traced, _name, _refusing(_name))


def traced(shape: tuple[int, ...], dtype: Any, recording: object, maker: Call | None = None) -> Traced:
    """A new root, as an array."""
    dtype = np.dtype(dtype)
    strides, stride = [], dtype.itemsize
    for n in reversed(shape):
        strides.append(stride)
        stride *= max(n, 1)
    return Traced(tuple(shape), dtype, tuple(reversed(strides)), 0, Root(tuple(shape), dtype, recording, maker))


_block = np.empty(0, np.uint8)  # what `placeholder` is made of: addresses, which are never read or written


def placeholder(array: Traced) -> Any:
    """A NumPy array that lies as a traced one will, in memory without values: for its layout, not to be read.

    It is for what only asks how an array lies: what makes a view of it, or says whether a kernel can take it.
    """
    global _block
    if array.root.nbytes > _block.nbytes:
        _block = np.empty(array.root.nbytes, np.uint8)  # never touched, so the system never gives it memory
    return np.ndarray(array.shape, array.dtype, _block.data if _block.size else None, array.offset, array.strides)


_COPY = KernelName("elementwise", "copy")


@dataclass
class Trace:
    """The calls of a step so far, and what is to be checked before and after each replay.

    Attributes:
        tasks: how many tasks the step said that it has; several numbers if it has several meta-batches.
    """

    calls: list[Call] = field(default_factory=list)
    tasks: set[int] = field(default_factory=set)
    before: list[tuple[Any, Check]] = field(default_factory=list)
    after: list[tuple[Any, Check]] = field(default_factory=list)
    identity: object = field(default_factory=object)  # of its arrays, which keep it and not the trace alive

    def input(self, shape: tuple[int, ...], dtype: Any) -> Traced:
        """An argument of the step."""
        return traced(shape, dtype, self.identity)

    def launch(
        self, kernel: KernelName, specs: Sequence[Spec], ins: Sequence[Any], static: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Append a call of a kernel. Returns its outputs."""
        for x in ins:
            self.check_recorded_here(x)
        call = Call(kernel, [], list(ins), static)
        call.outs = [traced(shape, dtype, self.identity, call) for shape, dtype in specs]
        self.calls.append(call)
        return tuple(call.outs)

    def view(self, make_view: Callable[[Any], Any], array: Any) -> Any:
        """A view of an array; of a copy, which is a call, where there is none."""
        self.check_recorded_here(array)
        if not isinstance(array, np.ndarray | Traced):
            return self._view_on_gpu(make_view, array)
        block = placeholder(array) if isinstance(array, Traced) else array
        viewed = make_view(block)
        if not np.may_share_memory(viewed, block) and viewed.size:
            if block.flags.c_contiguous:
                raise AssertionError("a view copies an array that is in order")
            (copy,) = self.launch(_COPY, [(array.shape, array.dtype)], [array], {})
            return self.view(make_view, copy)
        if not isinstance(array, Traced):
            return viewed
        offset = array.offset + (viewed.ctypes.data - block.ctypes.data if viewed.size else 0)
        return Traced(viewed.shape, viewed.dtype, viewed.strides, offset, array.root)

    def _view_on_gpu(self, make_view: Callable[[Any], Any], array: Any) -> Any:
        viewed = make_view(array)
        if array.flags.c_contiguous or viewed.data.ptr == array.data.ptr:
            return viewed
        (copy,) = self.launch(_COPY, [(array.shape, array.dtype)], [array], {})
        return self.view(make_view, copy)

    def check_recorded_here(self, array: Any) -> None:
        """Raises RecordingError for an array without values that is not of this trace."""
        if isinstance(array, Traced) and array.root.recording is not self.identity:
            raise RecordingError(
                "an array of one recording is used in another: it has no values here. Give the step what it computes "
                "with as arguments; do not keep tensors from call to call, in a list or a memo"
            )


_TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
current = _TRACE.get


@contextmanager
def tracing() -> Iterator[Trace]:
    """Calls of kernels are recorded meanwhile, in this thread."""
    if current() is not None:
        raise RecordingError("a step is being recorded already: a recorded step cannot record another, call it instead")
    trace = Trace()
    token = _TRACE.set(trace)
    try:
        yield trace
    finally:
        _TRACE.reset(token)


def check_values(arrays: Sequence[Any]) -> None:
    """Raises RecordingError for an array without values, where no step is recorded that it could be of."""
    if any(isinstance(x, Traced) for x in arrays):
        raise RecordingError(
            "an array of a recording is used where no step is recorded, and has no values there: keep no tensors of a "
            "step for later, return them; and compute in the thread that records, a program has threads of its own"
        )


def declare_tasks(count: int) -> None:
    """Say, where a step is recorded, that first axes of this length are those of its tasks, which do not depend on each
    other until they are summed: a program is split by them and by nothing else."""
    trace = current()
    if trace is not None:
        trace.tasks.add(count)


def declare_below(array: Any, limit: int) -> None:
    """What a kernel has made is whole numbers in [0, limit), by construction: labels that it drew, say."""
    if isinstance(array, Traced):
        array.root.below = limit


def declare_entries(array: Any, sources: tuple[Any, ...]) -> None:
    """What a kernel has made are entries of these arrays: what is asked of its values is asked of theirs."""
    if isinstance(array, Traced):
        array.root.entries_of = sources


def is_below(array: Any, limit: int) -> bool:
    """Whether that was declared; then nothing needs to be asked when the values are known."""
    if not isinstance(array, Traced):
        return False
    if array.root.entries_of:
        return all(is_below(source, limit) for source in array.root.entries_of)
    return array.root.below is not None and array.root.below <= limit


def when_known(array: Any, check: Check, needed: bool = False) -> None:
    """Run check(array), which raises if it does not like the values: now, or while a step is recorded at each replay.

    There it runs before the calls if the values are known by then; what is `needed` before them must be known.
    Otherwise it runs after them, and only if not all of the array is finite: it has to like what is.
    """
    trace = current()
    if trace is None:
        check_values([array])
        check(array if isinstance(array, np.ndarray) else array.get())
        return
    trace.check_recorded_here(array)
    if not isinstance(array, Traced):
        check(array if isinstance(array, np.ndarray) else array.get())
        trace.before.append((array, check))
    elif array.root.maker is None:
        trace.before.append((array, check))
    elif needed and array.root.entries_of:
        for source in array.root.entries_of:
            when_known(source, check, needed)
    elif needed:
        raise RecordingError("labels must be known before a recorded step runs: give them to it as an argument")
    else:
        trace.after.append((array, check))

"""A thread pool for compiled kernels: ranges of a launch are distributed and awaited without the interpreter.

Through Python's own pools a launch costs a tenth of a millisecond: both sides wait for the interpreter's lock, and
sleep while they wait. Here the workers poll for tasks in machine code, and sleep there when none comes, as the lock
would keep one that wakes up waiting. A worker that is late is not waited for: the thread that submitted its range runs
it.
"""

from __future__ import annotations

import atexit
import os
import platform
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinymaml.kernels.cpu import threads
from tinymaml.kernels.cpu.compiled.arrays import Operand
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.vectors import I32, loop
from tinymaml.kernels.locks import Lock

# The queue has a slot for each worker, a line of the cache of these 64-bit words; behind the last lie the arguments.
_LINE = 8
_SUBMITTED, _TAKEN, _DONE, _FUNCTION, _ARGUMENTS, _FIRST, _LAST, _FAILED = range(8)
_ROOM = 512  # words for a launch's arguments
_POLLS = 10_000  # of a slot, before a worker sleeps: half a millisecond or so
_SLEEPS = 50, 5000  # microseconds of the first sleep, and of the longest: each is twice the one before
_SHUT_DOWN = -1  # the number of the last submission of all

# The queue's address, how many workers, the number of the submission, how many units. With PACK for the workers nothing
# is run: the arguments are written to the first address, and what `PackedLaunch` reads to the third.
Job = tuple[int, int, int, int]
PACK = -1

_I64 = ir.IntType(64)
PART = ir.FunctionType(_I64, [_I64, _I64, _I64])  # (address of the arguments, first, last) -> whether it failed


def _word(b: ir.IRBuilder, slot: ir.Value, word: int) -> ir.Value:
    return b.inttoptr(b.add(slot, _I64(8 * word)), _I64.as_pointer())


def _declared(b: ir.IRBuilder, name: str, kind: ir.FunctionType) -> ir.Function:
    return b.module.globals.get(name) or ir.Function(b.module, kind, name)


def _poll(b: ir.IRBuilder, place: ir.Value, known: ir.Value, polls: ir.Value) -> ir.Value:
    """The value of a word once it differs from the known one, or after so many polls."""
    before, again, end = b.block, b.append_basic_block("poll"), b.append_basic_block("polled")
    b.branch(again)
    b.position_at_end(again)
    count = b.phi(_I64)
    value = b.load_atomic(place, "acquire", 8)
    if platform.machine() in ("x86_64", "AMD64"):
        b.call(_declared(b, "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])
    more = b.add(count, _I64(1))
    count.add_incoming(_I64(0), before)
    count.add_incoming(more, again)
    b.cbranch(b.or_(b.icmp_signed("!=", value, known), b.icmp_signed(">=", more, polls)), end, again)
    b.position_at_end(end)
    return value


def _await(b: ir.IRBuilder, place: ir.Value, wanted: ir.Value) -> None:
    """Poll a word until it is as wanted; with fewer cores than threads, yield this one to others meanwhile."""
    again, late, end = (b.append_basic_block(name) for name in ("await", "late", "there"))
    b.branch(again)
    b.position_at_end(again)
    value = _poll(b, place, b.sub(wanted, _I64(1)), _I64(_POLLS))
    b.cbranch(b.icmp_signed("==", value, wanted), end, late)
    b.position_at_end(late)
    if llvm.address_of_symbol("sched_yield"):
        b.call(_declared(b, "sched_yield", ir.FunctionType(I32, [])), [])
    b.branch(again)
    b.position_at_end(end)


def _take(b: ir.IRBuilder, slot: ir.Value, number: ir.Value) -> ir.Value:
    """Whether this thread is to run the submission of this number: the worker does, or the thread that submitted it."""
    place = _word(b, slot, _TAKEN)
    before = b.load_atomic(place, "acquire", 8)
    new = b.icmp_signed("<", before, number)
    exchanged = b.cmpxchg(place, before, b.select(new, number, before), "acq_rel", "acquire")
    return b.and_(new, b.extract_value(exchanged, 1))


@intrinsic
def call(context: Any, function: Any, arguments: Any, first: Any, last: Any) -> Any:
    """function(arguments, first, last), by its address; whether it failed."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.call(b.inttoptr(args[0], PART.as_pointer()), args[1:])

    return types.intp(*[types.intp] * 4), codegen


@intrinsic
def _run_next(context: Any, slot: Any, last: Any, polls: Any) -> Any:
    """Poll a slot for a submission after the last and run it; its number, or the last one's if none came."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        slot, last, polls = args
        number = _poll(b, _word(b, slot, _SUBMITTED), last, polls)
        with b.if_then(b.icmp_signed("!=", number, last)), b.if_then(_take(b, slot, number)):
            part = b.inttoptr(b.load(_word(b, slot, _FUNCTION)), PART.as_pointer())
            failed = b.call(part, [b.load(_word(b, slot, word)) for word in (_ARGUMENTS, _FIRST, _LAST)])
            b.store(failed, _word(b, slot, _FAILED))
            b.store_atomic(number, _word(b, slot, _DONE), "release", 8)
        return number

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def _sleep(context: Any, microseconds: Any) -> Any:
    """Sleep without the interpreter, whose lock a worker that wakes up would have to wait for."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        if llvm.address_of_symbol("usleep"):
            b.call(_declared(b, "usleep", ir.FunctionType(I32, [I32])), [b.trunc(args[0], I32)])
        else:  # Windows, in milliseconds
            b.call(_declared(b, "Sleep", ir.FunctionType(ir.VoidType(), [I32])), [I32(1)])
        return cgctx.get_dummy_value()

    return types.void(types.intp), codegen


def distribute(kernel: Any) -> Any:
    """An intrinsic that runs kernel(*arguments, first, last) on ranges that make up all the units, the first one here.

    It returns how many of them failed; of a job to `PACK`, the address of the function that runs a range. It is put in
    a function, which Numba can cache:

        _double_distributed = distribute(_double)

        @njit(cache=True, nogil=True)
        def _double_parallel(job, *arguments):
            return _double_distributed(job, arguments)
    """

    @intrinsic
    def submit(context: Any, job: Any, arguments: Any) -> Any:
        signature = (*arguments, types.intp, types.intp)
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        return types.intp(job, arguments), partial(_emit_distribution, compiled, arguments)

    return submit


def _emit_distribution(compiled: Any, arguments: Any, cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
    queue, workers, generation, units = [b.extract_value(args[0], i) for i in range(4)]
    values = args[1]
    cgctx.add_linking_libs([compiled.library])
    kinds = [cgctx.get_value_type(kind) for kind in arguments]
    held = ir.LiteralStructType(kinds)
    if cgctx.get_abi_sizeof(held) > 8 * _ROOM:
        raise ValueError(f"the arguments of {compiled.fndesc.qualname} do not fit into the queue")

    part = ir.Function(b.module, PART, b.module.get_unique_name("part"))
    part.linkage = "internal"
    inside = ir.IRBuilder(part.append_basic_block("entry"))
    read = inside.load(inside.inttoptr(part.args[0], held.as_pointer()))
    unpacked = [inside.extract_value(read, i) for i in range(len(kinds))]
    desc = compiled.fndesc
    call = cgctx.declare_function(b.module, desc)
    status, _ = cgctx.call_conv.call_function(inside, call, desc.restype, desc.argtypes, [*unpacked, *part.args[1:]])
    inside.ret(inside.zext(status.is_error, _I64))

    function, result = b.ptrtoint(part, _I64), cgutils.alloca_once(b, _I64)
    here = b.ptrtoint(cgutils.alloca_once(b, held), _I64)
    packs = b.icmp_signed("==", workers, _I64(PACK))
    alone = b.icmp_signed("<=", workers, _I64(0))
    place = b.select(alone, b.select(packs, queue, here), b.add(queue, b.mul(workers, _I64(8 * _LINE))))
    at = b.inttoptr(place, held.as_pointer())
    for i in range(len(kinds)):
        b.store(b.extract_value(values, i), b.gep(at, [I32(0), I32(i)]))
    parts = b.add(workers, _I64(1))

    def end(number: ir.Value) -> ir.Value:
        return b.sdiv(b.mul(units, number), parts)

    def submit(number: ir.Value) -> Sequence[ir.Value]:
        slot = b.add(queue, b.mul(number, _I64(8 * _LINE)))
        first, last = end(b.add(number, _I64(1))), end(b.add(number, _I64(2)))
        for word, value in ((_FUNCTION, function), (_ARGUMENTS, place), (_FIRST, first), (_LAST, last)):
            b.store(value, _word(b, slot, word))
        b.store_atomic(generation, _word(b, slot, _SUBMITTED), "release", 8)
        return []

    def collect(number: ir.Value, failed: ir.Value) -> Sequence[ir.Value]:
        slot = b.add(queue, b.mul(number, _I64(8 * _LINE)))
        with b.if_else(_take(b, slot, generation)) as (late, taken):  # a worker that sleeps is not waited for
            with late:
                first, last = b.load(_word(b, slot, _FIRST)), b.load(_word(b, slot, _LAST))
                here, by_this = b.call(part, [place, first, last]), b.block
            with taken:
                _await(b, _word(b, slot, _DONE), generation)
                there, by_worker = b.load(_word(b, slot, _FAILED)), b.block
        one = b.phi(_I64)
        one.add_incoming(here, by_this)
        one.add_incoming(there, by_worker)
        return [b.add(failed, one)]

    with b.if_else(packs) as (pack, run):
        with pack:
            pointers = [b.gep(at, [I32(0), I32(i), I32(_DATA)]) for i, kind in enumerate(arguments) if _is_array(kind)]
            words = [_I64(cgctx.get_abi_sizeof(held)), *[b.sub(b.ptrtoint(p, _I64), place) for p in pointers]]
            for i, word in enumerate(words):
                b.store(word, _word(b, generation, i))
            b.store(function, result)
        with run:
            loop(b, workers, [], submit)
            failed = b.call(part, [place, _I64(0), end(_I64(1))])
            b.store(loop(b, workers, [failed], collect)[0], result)
    return b.load(result)


_DATA = 4  # where an array's address stands in what Numba passes of it


def _is_array(kind: Any) -> bool:
    return isinstance(kind, types.Array)


@njit(cache=True, nogil=True)
def _run_worker(slot: int) -> None:
    """Run what is submitted to a slot until the shut-down; poll for more, and sleep if none comes."""
    last, sleep, polls = 0, _SLEEPS[0], _POLLS
    while last != _SHUT_DOWN:
        number: int = _run_next(slot, last, polls)
        if number != last:
            last, sleep, polls = number, _SLEEPS[0], _POLLS
        else:
            _sleep(sleep)
            sleep, polls = min(2 * sleep, _SLEEPS[1]), 1


class _ThreadPool:
    """The workers of this process, and the queue that their slots are in."""

    def __init__(self, workers: int) -> None:
        self._words = np.zeros(_LINE + workers * _LINE + _ROOM, np.int64)
        self._queue = -(-self._words.ctypes.data // (8 * _LINE)) * 8 * _LINE  # at the beginning of a line
        self._submissions = 0
        self._free = Lock()
        self._workers = [threading.Thread(target=self._work, args=(number,), name=f"tinymaml-{number}", daemon=True)
                         for number in range(workers)]  # fmt: skip
        for worker in self._workers:
            worker.start()
        atexit.register(self._shut_down)  # machine code must not outlive the interpreter

    def _work(self, number: int) -> None:
        _run_worker(self._queue + 8 * _LINE * number)

    def _shut_down(self) -> None:
        first = (self._queue - self._words.ctypes.data) // 8
        for number, worker in enumerate(self._workers):
            self._words[first + _LINE * number + _SUBMITTED] = _SHUT_DOWN
            worker.join()

    def launch(self, parallel: Callable[..., int], units: int, arguments: Sequence[Any], submissions: int = 1) -> bool:
        """Run all of a launch; False, without having done anything, while another thread has the workers.

        A function that distributes several times is given the first of so many numbers.
        """
        if not self._free.acquire(blocking=False):
            return False
        try:
            number = self._submissions + 1
            self._submissions += submissions
            _check(parallel, parallel((self._queue, len(self._workers), number, units), *arguments))
        finally:
            self._free.release()
        return True


def _check(parallel: Callable[..., int], failed: int) -> None:
    if failed:
        raise MemoryError(f"{parallel.__module__}.{parallel.__name__} could not allocate what it needs")


@cache
def _thread_pool(workers: int) -> _ThreadPool:
    return _ThreadPool(workers)


def run(parallel: Callable[..., int], submissions: int, arguments: Sequence[Any], workers: int) -> None:
    """A function that distributes so many times, on so many threads, or on this one while another has the workers."""
    if workers == 1 or not _thread_pool(workers - 1).launch(parallel, workers, arguments, submissions):
        _check(parallel, parallel((0, 0, 0, workers), *arguments))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)  # threads do not survive a fork


class Kernel(NamedTuple):
    """A compiled kernel(*arguments, first, last), and what distributes it, see `distribute`."""

    serial: Callable[..., None]
    parallel: Callable[..., int]


class Launch(NamedTuple):
    """A compiled kernel with its arguments, still to be run on ranges that make up all its units: tasks, mostly."""

    units: int
    work: int  # what it does in all, in operations or numbers moved: little work stays on the calling thread
    kernel: Kernel
    arguments: tuple[Any, ...]

    def run(self) -> None:
        """kernel(*arguments, first, last) on all ranges. Raises MemoryError if one of them does."""
        units, work, kernel, arguments = self
        alone = work < threads.LARGE or min(units, threads.count()) == 1
        if alone or not _thread_pool(threads.count() - 1).launch(kernel.parallel, units, arguments):
            kernel.serial(*arguments, 0, units)


class PackedLaunch(NamedTuple):
    """A launch as machine code sees it: a function(address of the arguments, first, last), and the arguments."""

    function: int
    arguments: Any  # int64[words], as they lie in memory
    pointers: list[int]  # which words are addresses of arrays, in the order of the arrays
    strides: list[int]  # bytes by which these move from row to row of a program

    @staticmethod
    def of(launch: Launch) -> PackedLaunch:
        """The launch; those of its arguments that are views of an `Operand` move as that does."""
        arrays = [x for x in launch.arguments if isinstance(x, np.ndarray)]
        strides = [x.source.stride if isinstance(x, Operand) and x.source else 0 for x in arrays]
        arguments = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in launch.arguments]
        words, layout = np.zeros(_ROOM, np.int64), np.zeros(_ROOM, np.int64)
        function = launch.kernel.parallel((words.ctypes.data, PACK, layout.ctypes.data, 0), *arguments)
        pointers = layout[1 : len(arrays) + 1] // 8
        for word in pointers:  # Numba's counters of references live no longer than a call; without them nobody counts
            words[word - _DATA : word - _DATA + 2] = 0
        return PackedLaunch(function, words[: -(-layout[0] // 8)].copy(), pointers.tolist(), strides)

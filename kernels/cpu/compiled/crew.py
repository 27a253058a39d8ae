"""Compiled kernels on several threads: parts of a launch are handed out and awaited without the interpreter.

Through Python's own pools a launch costs a tenth of a millisecond: both sides wait for the interpreter's lock, and
sleep while they wait. Here the hands of a crew look for work in machine code, and nap there, as the lock would keep one
that wakes up waiting. A hand that is late is not waited for: who posted the work does it.
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
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.vectors import I32, loop
from tinymaml.kernels.locks import Lock

# Each hand has a line of the cache for its mail, of these 64-bit words; behind the last one lie the arguments.
_LINE = 8
_POSTED, _TAKEN, _DONE, _FUNCTION, _ARGUMENTS, _FIRST, _LAST, _FAILED = range(8)
_ROOM = 512  # words for a launch's arguments
_LOOKS = 10_000  # for mail, before a hand naps: half a millisecond or so
_NAPS = 50, 5000  # microseconds of the first nap, and of the longest: each is twice the one before
_END = -1  # the number of the last mail of all

# The desk's address, how many hands, the number of the launch, how many tasks. With KEEP for the hands nothing is run:
# the arguments are kept at the first address, and what `Kept` reads is written to the third.
Job = tuple[int, int, int, int]
KEEP = -1

_I64 = ir.IntType(64)
PART = ir.FunctionType(_I64, [_I64, _I64, _I64])  # (address of the arguments, first, last) -> whether it failed


def _word(b: ir.IRBuilder, mail: ir.Value, word: int) -> ir.Value:
    return b.inttoptr(b.add(mail, _I64(8 * word)), _I64.as_pointer())


def _declared(b: ir.IRBuilder, name: str, kind: ir.FunctionType) -> ir.Function:
    return b.module.globals.get(name) or ir.Function(b.module, kind, name)


def _look(b: ir.IRBuilder, place: ir.Value, known: ir.Value, looks: ir.Value) -> ir.Value:
    """What a word is once it is not as known any more, or after so many looks."""
    before, again, end = b.block, b.append_basic_block("look"), b.append_basic_block("looked")
    b.branch(again)
    b.position_at_end(again)
    count = b.phi(_I64)
    found = b.load_atomic(place, "acquire", 8)
    if platform.machine() in ("x86_64", "AMD64"):
        b.call(_declared(b, "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])
    more = b.add(count, _I64(1))
    count.add_incoming(_I64(0), before)
    count.add_incoming(more, again)
    b.cbranch(b.or_(b.icmp_signed("!=", found, known), b.icmp_signed(">=", more, looks)), end, again)
    b.position_at_end(end)
    return found


def _await(b: ir.IRBuilder, place: ir.Value, wanted: ir.Value) -> None:
    """Look at a word until it is as wanted; with fewer cores than threads, let others have this one meanwhile."""
    again, late, end = (b.append_basic_block(name) for name in ("await", "late", "there"))
    b.branch(again)
    b.position_at_end(again)
    found = _look(b, place, b.sub(wanted, _I64(1)), _I64(_LOOKS))
    b.cbranch(b.icmp_signed("==", found, wanted), end, late)
    b.position_at_end(late)
    if llvm.address_of_symbol("sched_yield"):
        b.call(_declared(b, "sched_yield", ir.FunctionType(I32, [])), [])
    b.branch(again)
    b.position_at_end(end)


def _take(b: ir.IRBuilder, mail: ir.Value, number: ir.Value) -> ir.Value:
    """Whether this thread is to do what the mail of this number says: it is done by the hand, or by who posted it."""
    place = _word(b, mail, _TAKEN)
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
def _serve(context: Any, mail: Any, last: Any, looks: Any) -> Any:
    """Look for mail other than the last and do what it says; its number, which is the last one's if none came."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        mail, last, looks = args
        found = _look(b, _word(b, mail, _POSTED), last, looks)
        with b.if_then(b.icmp_signed("!=", found, last)), b.if_then(_take(b, mail, found)):
            part = b.inttoptr(b.load(_word(b, mail, _FUNCTION)), PART.as_pointer())
            failed = b.call(part, [b.load(_word(b, mail, word)) for word in (_ARGUMENTS, _FIRST, _LAST)])
            b.store(failed, _word(b, mail, _FAILED))
            b.store_atomic(found, _word(b, mail, _DONE), "release", 8)
        return found

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def _nap(context: Any, microseconds: Any) -> Any:
    """Sleep without the interpreter, whose lock a hand that wakes up would have to wait for."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        if llvm.address_of_symbol("usleep"):
            b.call(_declared(b, "usleep", ir.FunctionType(I32, [I32])), [b.trunc(args[0], I32)])
        else:  # Windows, in milliseconds
            b.call(_declared(b, "Sleep", ir.FunctionType(ir.VoidType(), [I32])), [I32(1)])
        return cgctx.get_dummy_value()

    return types.void(types.intp), codegen


def hand_out(kernel: Any) -> Any:
    """An intrinsic that runs kernel(*arguments, first, last) on ranges that make up all the tasks, the first one here.

    It returns how many of them failed; of a launch to `KEEP`, the address of the function that runs a part of it. Numba
    can keep it in a function of its own:

        _double_out = hand_out(_double)

        @njit(cache=True, nogil=True)
        def _double_parts(job, *arguments):
            return _double_out(job, arguments)
    """

    @intrinsic
    def post(context: Any, job: Any, arguments: Any) -> Any:
        signature = (*arguments, types.intp, types.intp)
        kernel.compile(signature)
        compiled = kernel.overloads[signature]
        return types.intp(job, arguments), partial(_post, compiled, arguments)

    return post


def _post(compiled: Any, arguments: Any, cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
    desk, hands, generation, tasks = [b.extract_value(args[0], i) for i in range(4)]
    values = args[1]
    cgctx.add_linking_libs([compiled.library])
    kinds = [cgctx.get_value_type(kind) for kind in arguments]
    held = ir.LiteralStructType(kinds)
    if cgctx.get_abi_sizeof(held) > 8 * _ROOM:
        raise ValueError(f"the arguments of {compiled.fndesc.qualname} do not fit on the desk")

    part = ir.Function(b.module, PART, b.module.get_unique_name("part"))
    part.linkage = "internal"
    inside = ir.IRBuilder(part.append_basic_block("entry"))
    read = inside.load(inside.inttoptr(part.args[0], held.as_pointer()))
    own = [inside.extract_value(read, i) for i in range(len(kinds))]
    desc = compiled.fndesc
    call = cgctx.declare_function(b.module, desc)
    status, _ = cgctx.call_conv.call_function(inside, call, desc.restype, desc.argtypes, [*own, *part.args[1:]])
    inside.ret(inside.zext(status.is_error, _I64))

    function, result = b.ptrtoint(part, _I64), cgutils.alloca_once(b, _I64)
    here = b.ptrtoint(cgutils.alloca_once(b, held), _I64)
    kept = b.icmp_signed("==", hands, _I64(KEEP))
    alone = b.icmp_signed("<=", hands, _I64(0))
    place = b.select(alone, b.select(kept, desk, here), b.add(desk, b.mul(hands, _I64(8 * _LINE))))
    at = b.inttoptr(place, held.as_pointer())
    for i in range(len(kinds)):
        b.store(b.extract_value(values, i), b.gep(at, [I32(0), I32(i)]))
    parts = b.add(hands, _I64(1))

    def end(number: ir.Value) -> ir.Value:
        return b.sdiv(b.mul(tasks, number), parts)

    def post(number: ir.Value) -> Sequence[ir.Value]:
        mail = b.add(desk, b.mul(number, _I64(8 * _LINE)))
        first, last = end(b.add(number, _I64(1))), end(b.add(number, _I64(2)))
        for word, value in ((_FUNCTION, function), (_ARGUMENTS, place), (_FIRST, first), (_LAST, last)):
            b.store(value, _word(b, mail, word))
        b.store_atomic(generation, _word(b, mail, _POSTED), "release", 8)
        return []

    def collect(number: ir.Value, failed: ir.Value) -> Sequence[ir.Value]:
        mail = b.add(desk, b.mul(number, _I64(8 * _LINE)))
        with b.if_else(_take(b, mail, generation)) as (late, taken):  # a hand that sleeps is not waited for
            with late:
                first, last = b.load(_word(b, mail, _FIRST)), b.load(_word(b, mail, _LAST))
                here, own = b.call(part, [place, first, last]), b.block
            with taken:
                _await(b, _word(b, mail, _DONE), generation)
                there, others = b.load(_word(b, mail, _FAILED)), b.block
        one = b.phi(_I64)
        one.add_incoming(here, own)
        one.add_incoming(there, others)
        return [b.add(failed, one)]

    with b.if_else(kept) as (keep, run):
        with keep:
            pointers = [b.gep(at, [I32(0), I32(i), I32(_DATA)]) for i, kind in enumerate(arguments) if _is_array(kind)]
            words = [_I64(cgctx.get_abi_sizeof(held)), *[b.sub(b.ptrtoint(p, _I64), place) for p in pointers]]
            for i, word in enumerate(words):
                b.store(word, _word(b, generation, i))
            b.store(function, result)
        with run:
            loop(b, hands, [], post)
            failed = b.call(part, [place, _I64(0), end(_I64(1))])
            b.store(loop(b, hands, [failed], collect)[0], result)
    return b.load(result)


_DATA = 4  # where an array's address stands in what Numba passes of it


def _is_array(kind: Any) -> bool:
    return isinstance(kind, types.Array)


@njit(cache=True, nogil=True)
def _serve_all(mail: int) -> None:
    """Do what the mail says until the end; look for more, and nap if none comes."""
    last, nap, looks = 0, _NAPS[0], _LOOKS
    while last != _END:
        found: int = _serve(mail, last, looks)
        if found != last:
            last, nap, looks = found, _NAPS[0], _LOOKS
        else:
            _nap(nap)
            nap, looks = min(2 * nap, _NAPS[1]), 1


class _Crew:
    """The hands of this process, and the desk that their mail lies on."""

    def __init__(self, hands: int) -> None:
        self._words = np.zeros(_LINE + hands * _LINE + _ROOM, np.int64)
        self._desk = -(-self._words.ctypes.data // (8 * _LINE)) * 8 * _LINE  # at the beginning of a line
        self._launches = 0
        self._free = Lock()
        self._hands = [threading.Thread(target=self._work, args=(number,), name=f"tinymaml-{number}", daemon=True)
                       for number in range(hands)]  # fmt: skip
        for hand in self._hands:
            hand.start()
        atexit.register(self._end)  # machine code must not outlive the interpreter

    def _work(self, number: int) -> None:
        _serve_all(self._desk + 8 * _LINE * number)

    def _end(self) -> None:
        first = (self._desk - self._words.ctypes.data) // 8
        for number, hand in enumerate(self._hands):
            self._words[first + _LINE * number + _POSTED] = _END
            hand.join()

    def launch(self, parts: Callable[..., int], tasks: int, arguments: Sequence[Any], numbers: int = 1) -> bool:
        """Run all parts; False, without having done anything, while another thread has the hands.

        A function that hands out several times is given the first of so many numbers.
        """
        if not self._free.acquire(blocking=False):
            return False
        try:
            number = self._launches + 1
            self._launches += numbers
            _check(parts, parts((self._desk, len(self._hands), number, tasks), *arguments))
        finally:
            self._free.release()
        return True


def _check(parts: Callable[..., int], failed: int) -> None:
    if failed:
        raise MemoryError(f"{parts.__module__}.{parts.__name__} could not allocate what it needs")


@cache
def _crew(hands: int) -> _Crew:
    return _Crew(hands)


def run(parts: Callable[..., int], handed_out: int, arguments: Sequence[Any], workers: int) -> None:
    """A function that hands out so many times, on so many threads, or on this one while another has them."""
    if workers == 1 or not _crew(workers - 1).launch(parts, workers, arguments, handed_out):
        _check(parts, parts((0, 0, 0, workers), *arguments))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # threads do not survive a fork


class Kernel(NamedTuple):
    """A compiled kernel(*arguments, first, last), and what hands it out, see `hand_out`."""

    alone: Callable[..., None]
    parts: Callable[..., int]


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
        if alone or not _crew(threads.count() - 1).launch(kernel.parts, units, arguments):
            kernel.alone(*arguments, 0, units)


class Kept(NamedTuple):
    """A launch as machine code sees it: a function(address of the arguments, first, last), and the arguments."""

    function: int
    arguments: Any  # int64[words], as they lie in memory
    places: list[int]  # of the arrays' addresses, in words, in the order of the arrays

    @staticmethod
    def of(launch: Launch) -> Kept:
        words, found = np.zeros(_ROOM, np.int64), np.zeros(_ROOM, np.int64)
        function = launch.kernel.parts((words.ctypes.data, KEEP, found.ctypes.data, 0), *launch.arguments)
        places = found[1 : sum(isinstance(x, np.ndarray) for x in launch.arguments) + 1] // 8
        for place in places:  # Numba's counters of references live no longer than a call; without them nobody counts
            words[place - _DATA : place - _DATA + 2] = 0
        return Kept(function, words[: -(-found[0] // 8)].copy(), places.tolist())

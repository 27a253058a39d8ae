"""Programs: launches whose arguments are known, run one after the other in machine code, on several threads.

A part of a program is a list of launches. Where tasks are apart its launches run for some tasks at a time, a shard,
from the first to the last: whoever is free takes the next shard, on memory of the worker's own. Between shards only the
addresses of arrays change that have an entry for every task of the program. Other launches run on all there is: large
ones in ranges side by side, small ones on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu import threads
from tinymaml.kernels.cpu.compiled import crew
from tinymaml.kernels.cpu.compiled.crew import Job, Kept, call, hand_out
from tinymaml.kernels.cpu.compiled.jit import njit

_SERIAL, _RANGES, _SHARDS = range(3)  # how the launches of a part are run


class Work(NamedTuple):
    """A launch as a part of a program has it.

    For tasks apart its arrays are those of the first shard: in the first worker's memory, or the beginning of an array
    with an entry for every task of the program.
    """

    kept: Kept
    units: int
    operations: int
    strides: Sequence[int]  # bytes by which its arrays move from task to task, in the order of `kept.places`
    alive: Any  # what holds the memory of its arrays, and its code


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    """A 64-bit word at an address."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        b.store(args[1], b.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return cgctx.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def _next(context: Any, address: Any) -> Any:
    """The number at an address, which is one more afterwards, whoever asks at the same time."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        word = b.inttoptr(args[0], ir.IntType(64).as_pointer())
        return b.atomic_rmw("add", word, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.intp(types.intp), codegen


@njit(cache=True, nogil=True)
def _launch_all(launches: Any, count: int) -> None:
    """launches[n]: function, arguments, units (of a task, if `count` is the number of tasks)."""
    for i in range(len(launches)):
        if call(launches[i, 0], launches[i, 1], 0, launches[i, 2] * count):
            raise MemoryError


@njit(cache=True, nogil=True)
def _work(part: Any, launches: Any, moves: Any, size: int, tasks: int, first: int, last: int) -> None:
    """What workers first ... last - 1 do of a part: (how, launches from, to, moves from, to, next shard, workers)."""
    how, workers = part[0], part[6]
    for worker in range(first, last):
        own = launches[worker, part[1] : part[2]]
        if how == _SERIAL:
            _launch_all(own, 1)
        elif how == _RANGES:
            for i in range(len(own)):
                units = own[i, 2]
                if call(own[i, 0], own[i, 1], units * worker // workers, units * (worker + 1) // workers):
                    raise MemoryError
        else:
            shard: int = _next(part.ctypes.data + 8 * 5)
            while shard * size < tasks:
                start = shard * size
                for i in range(part[3], part[4]):
                    # (address of the word, what it holds for the first task, bytes a task)
                    _store(moves[worker, i, 0], moves[worker, i, 1] + start * moves[worker, i, 2])
                _launch_all(own, min(size, tasks - start))
                shard = _next(part.ctypes.data + 8 * 5)


_work_out = hand_out(_work)


@njit(cache=True, nogil=True)
def _run_parts(job: Job, parts: Any, launches: Any, moves: Any, size: int, tasks: int) -> int:
    """All parts in order; each but the serial ones is handed out. Returns how many workers failed in one."""
    for i in range(len(parts)):
        parts[i, 5] = 0
        workers = parts[i, 6]
        own = (job[0], job[1], job[2] + i, workers) if workers > 1 else (0, 0, 0, workers)
        failed = _work_out(own, (parts[i], launches, moves, size, tasks))
        if failed:
            return failed
    return 0


@dataclass(eq=False)
class Memory:
    """What the launches of tasks apart compute in: a stretch for each worker, at these addresses, of so many bytes."""

    starts: list[int]
    size: int

    def moved(self, address: int, worker: int) -> int:
        """The address in a worker's stretch that is this one in the first one's, if it is one of those."""
        inside = self.starts[0] <= address < self.starts[0] + self.size
        return address - self.starts[0] + self.starts[worker] if inside else address


class Program:
    """Parts, each (apart, works), for `workers` workers; `size` tasks in a shard."""

    def __init__(
        self, parts: Sequence[tuple[bool, Sequence[Work]]], memory: Memory, size: int, tasks: int, workers: int
    ) -> None:
        self._size, self._tasks, self._workers = size, tasks, workers
        rows: list[list[int]] = []
        works: list[Work] = []
        moves: list[tuple[int, int, int]] = []  # work, place in its arguments, bytes a task
        units: list[int] = []
        for apart, own in parts:
            for how, some in [(_SHARDS, own)] if apart else _split(own, workers):
                row = [how, len(works), len(works) + len(some), len(moves)]
                for work in some:
                    if apart and work.units % size:
                        raise AssertionError(f"{work.units} units for {size} tasks")
                    for place, stride in zip(work.kept.places, work.strides, strict=True):
                        moves += [(len(works), place, stride)] if stride else []
                    works.append(work)
                    units.append(work.units // size if apart else work.units)
                rows.append([*row, len(moves), 0, 1 if how == _SERIAL else workers, 0])
        self._parts = np.array(rows, np.int64).reshape(-1, 8)
        self._works = works
        starts = np.cumsum([0, *[len(work.kept.arguments) for work in works]])
        self._arguments = np.zeros((workers, -(-int(starts[-1]) // 8) * 8), np.int64)
        self._launches = np.zeros((workers, len(works), 3), np.int64)
        self._moves = np.zeros((workers, len(moves), 3), np.int64)
        for worker in range(workers):
            at = self._arguments[worker].ctypes.data + 8 * starts
            for i, work in enumerate(works):
                words = work.kept.arguments.copy()
                for place in work.kept.places:
                    words[place] = memory.moved(int(words[place]), worker)
                self._arguments[worker, starts[i] : starts[i + 1]] = words
                self._launches[worker, i] = work.kept.function, at[i], units[i]
            for j, (i, place, stride) in enumerate(moves):
                self._moves[worker, j] = at[i] + 8 * place, works[i].kept.arguments[place], stride

    def run(self) -> None:
        """All of it. Raises MemoryError."""
        arguments = (self._parts, self._launches, self._moves, self._size, self._tasks)
        crew.run(_run_parts, len(self._parts), arguments, self._workers)


def _split(works: Sequence[Work], workers: int) -> list[tuple[int, list[Work]]]:
    """The works that are large, each alone, and those between together."""
    found: list[tuple[int, list[Work]]] = []
    for work in works:
        if work.operations >= threads.LARGE and work.units > 1 and workers > 1:
            found.append((_RANGES, [work]))
        elif found and found[-1][0] == _SERIAL:
            found[-1][1].append(work)
        else:
            found.append((_SERIAL, [work]))
    return found

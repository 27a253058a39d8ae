"""Launches whose arguments are known, run one after the other in machine code, on several threads.

A part is a list of launches. Where it is split by rows, its launches run for some rows at a time, a shard, from the
first to the last: a worker that is free takes the next shard, and computes it in separate memory. Between shards only
the addresses change of arrays that have an entry for every row. Other launches run on all there is: large ones in
ranges side by side, small ones on one thread.
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
from tinymaml.kernels.cpu.compiled import thread_pool
from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.thread_pool import Job, PackedLaunch, call, distribute

_SERIAL, _RANGES, _SHARDS = range(3)  # how the launches of a step are run
# The words of a step: how it is run, its launches from and to, its moving addresses from and to, the next shard, how
# many workers, rows of a shard, and rows in all.
_NEXT, _WORKERS, _SHARD, _ROWS, _WORDS = 5, 6, 7, 8, 9


class BoundLaunch(NamedTuple):
    """A launch on the memory of a program.

    In a part that is split by rows its arrays are those of the first shard: in the first worker's memory, or the
    beginning of an array with an entry for every row.
    """

    packed: PackedLaunch
    units: int
    operations: int
    held: Any  # what owns the memory of its arrays, and its code


class Part(NamedTuple):
    """Launches that follow each other, for `rows` rows, `shard` of them at a time; or both 0."""

    launches: Sequence[BoundLaunch]
    rows: int = 0
    shard: int = 0


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    """A 64-bit word at an address."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        b.store(args[1], b.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return cgctx.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def _fetch_add(context: Any, address: Any) -> Any:
    """The number at an address, which is one more afterwards, whatever other threads do."""

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        word = b.inttoptr(args[0], ir.IntType(64).as_pointer())
        return b.atomic_rmw("add", word, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.intp(types.intp), codegen


@njit(cache=True, nogil=True)
def _run_all(launches: Any, count: int) -> None:
    """launches[n]: function, arguments, units (of a row, if `count` is the number of rows)."""
    for i in range(len(launches)):
        if call(launches[i, 0], launches[i, 1], 0, launches[i, 2] * count):
            raise MemoryError


@njit(cache=True, nogil=True)
def _run_step(step: Any, launches: Any, moves: Any, first: int, last: int) -> None:
    """What workers first ... last - 1 do of a step."""
    how, workers, size, rows = step[0], step[_WORKERS], step[_SHARD], step[_ROWS]
    for worker in range(first, last):
        mine = launches[worker, step[1] : step[2]]
        if how == _SERIAL:
            _run_all(mine, 1)
        elif how == _RANGES:
            for i in range(len(mine)):
                units = mine[i, 2]
                if call(mine[i, 0], mine[i, 1], units * worker // workers, units * (worker + 1) // workers):
                    raise MemoryError
        else:
            shard: int = _fetch_add(step.ctypes.data + 8 * _NEXT)
            while shard * size < rows:
                start = shard * size
                for i in range(step[3], step[4]):
                    # (address of the word, what it holds for the first row, bytes a row)
                    _store(moves[worker, i, 0], moves[worker, i, 1] + start * moves[worker, i, 2])
                _run_all(mine, min(size, rows - start))
                shard = _fetch_add(step.ctypes.data + 8 * _NEXT)


_run_step_distributed = distribute(_run_step)


@njit(cache=True, nogil=True)
def _run_steps(job: Job, steps: Any, launches: Any, moves: Any) -> int:
    """All steps in order; each but the serial ones is distributed. Returns how many workers failed in one."""
    for i in range(len(steps)):
        steps[i, _NEXT] = 0
        workers = steps[i, _WORKERS]
        part = (job[0], job[1], job[2] + i, workers) if workers > 1 else (0, 0, 0, workers)
        failed = _run_step_distributed(part, (steps[i], launches, moves))
        if failed:
            return failed
    return 0


@dataclass(eq=False)
class WorkerMemory:
    """What the launches of a shard compute in: as many bytes for each worker, beginning at these addresses."""

    starts: list[int]
    size: int

    def moved(self, address: int, worker: int) -> int:
        """The address in a worker's memory that is this one in the first one's, if it is one of those."""
        inside = self.starts[0] <= address < self.starts[0] + self.size
        return address - self.starts[0] + self.starts[worker] if inside else address


class LaunchSequence:
    """Parts, one after the other, on so many workers."""

    def __init__(self, parts: Sequence[Part], memory: WorkerMemory, workers: int) -> None:
        self._workers = workers
        steps: list[list[int]] = []
        launches: list[BoundLaunch] = []
        moves: list[tuple[int, int, int]] = []  # launch, word of its arguments, bytes a row
        units: list[int] = []
        for part in parts:
            for how, some in [(_SHARDS, part.launches)] if part.rows else _grouped(part.launches, workers):
                step = [how, len(launches), len(launches) + len(some), len(moves)]
                for launch in some:
                    if part.rows and launch.units % part.shard:
                        raise AssertionError(f"{launch.units} units for {part.shard} rows")
                    for word, stride in zip(launch.packed.pointers, launch.packed.strides, strict=True):
                        moves += [(len(launches), word, stride)] if stride else []
                    launches.append(launch)
                    units.append(launch.units // part.shard if part.rows else launch.units)
                steps.append([*step, len(moves), 0, 1 if how == _SERIAL else workers, part.shard, part.rows])
        self._steps = np.array(steps, np.int64).reshape(-1, _WORDS)
        self._held = launches
        starts = np.cumsum([0, *[len(launch.packed.arguments) for launch in launches]])
        self._arguments = np.zeros((workers, -(-int(starts[-1]) // 8) * 8), np.int64)
        self._launches = np.zeros((workers, len(launches), 3), np.int64)
        self._moves = np.zeros((workers, len(moves), 3), np.int64)
        for worker in range(workers):
            at = self._arguments[worker].ctypes.data + 8 * starts
            for i, (packed, *_) in enumerate(launches):
                words = packed.arguments.copy()
                for word in packed.pointers:
                    words[word] = memory.moved(int(words[word]), worker)
                self._arguments[worker, starts[i] : starts[i + 1]] = words
                self._launches[worker, i] = packed.function, at[i], units[i]
            for j, (i, word, stride) in enumerate(moves):
                self._moves[worker, j] = at[i] + 8 * word, launches[i].packed.arguments[word], stride

    def run(self) -> None:
        """All of it. Raises MemoryError."""
        thread_pool.run(_run_steps, len(self._steps), (self._steps, self._launches, self._moves), self._workers)


def _grouped(launches: Sequence[BoundLaunch], workers: int) -> list[tuple[int, list[BoundLaunch]]]:
    """The launches that are large, each alone, and those between together."""
    groups: list[tuple[int, list[BoundLaunch]]] = []
    for launch in launches:
        if launch.operations >= threads.LARGE and launch.units > 1 and workers > 1:
            groups.append((_RANGES, [launch]))
        elif groups and groups[-1][0] == _SERIAL:
            groups[-1][1].append(launch)
        else:
            groups.append((_SERIAL, [launch]))
    return groups

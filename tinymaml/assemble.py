"""A program for the CPU from the calls of a step: each call gets its memory, its kernel and its turn.

With Numba, launches follow each other in machine code, tasks in shards that several threads take; what has no compiled
kernel runs from Python in between. Without Numba all of it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinymaml import arrange
from tinymaml.arrange import ALIGN, Region
from tinymaml.kernels import cpu
from tinymaml.trace import Call, Root, Traced, offset, traced

CACHE = 1 << 20  # bytes that the tasks of a shard may take, unless one alone needs more: half of a core's second cache

Run = Callable[[], None]


def _memory(size: int) -> Any:
    """So many bytes, from the beginning of a line of the cache."""
    block = np.zeros(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start : start + size]


def _view(memory: Any, start: int, x: Traced, shape: Sequence[int]) -> Any:
    return np.ndarray(shape, x.dtype, memory.data if memory.size else None, start, x.strides)


class Block(NamedTuple):
    """A buffer in one of the two kinds of memory, for pictures: from which launch to which it is in use, and where."""

    name: str  # of the kernel that makes it
    own: bool  # in the memory of a shard
    first: int
    last: int
    start: int
    size: int


@dataclass(eq=False)
class Assembly:
    """What a step's calls became."""

    calls: list[Call]
    outputs: list[Any]  # what is read after a run
    checked: list[Any]  # what should be finite then
    workers: int
    tasks: int = 0
    shard: int = 0
    regions: list[Region] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    arena: int = 0  # bytes of memory of what goes from region to region
    scratch: int = 0  # bytes of memory of each worker's shard

    def __post_init__(self) -> None:
        recorded = len(self.calls)
        self.calls = arrange.alive(self.calls, [*self.outputs, *self.checked])
        self.dropped = recorded - len(self.calls)
        self._how: dict[Call, str] = {}
        compiled = cpu.numba_is_used()
        if compiled:
            self.calls = self._prepared()
            self.tasks = arrange.count_tasks(self.calls)
        kept = {x.root for x in (*self.outputs, *self.checked) if isinstance(x, Traced)}
        self.regions = arrange.regions(self.calls, self.tasks, lambda call: self.how(call) != "python")
        if compiled:
            read = [arrange.read(region.calls) for region in self.regions]
            for i, region in enumerate(self.regions):
                elsewhere = set().union(kept, *read[:i], *read[i + 1 :])
                arrange.fuse(region, lambda call: self.how(call) == "fused", elsewhere)
                self._how.update({call: "fused" for call in region.calls if call.name == "fused"})
        self._place(kept)
        self._bind()

    def how(self, call: Call) -> str:
        """What a call is run by: "fused" or "launch" in machine code, or "python"."""
        return self._how.get(call, "python")

    # What each call is run by.

    def _prepared(self) -> list[Call]:
        found = []
        copies: dict[Any, Call] = {}
        for call in self.calls:
            how = self._way(call)
            if how == "copies":  # a compiled kernel whose operands have to be laid out in order first
                for i, x in enumerate(call.ins):
                    if not x.flags.c_contiguous:
                        key = arrange.operand_key(x)
                        if key not in copies:
                            copy = copies[key] = Call("elementwise.copy", [], [x])
                            copy.outs = [traced(x.shape, x.dtype, copy)]
                            self._how[copy] = self._way(copy)
                            found.append(copy)
                        call.ins[i] = copies[key].outs[0]
                how = self._way(call)
            self._how[call] = how
            found.append(call)
        return found

    def _way(self, call: Call) -> str:
        from tinymaml.kernels.cpu.compiled import fused
        from tinymaml.kernels.cpu.compiled.arrays import Copied, without_copies

        family, name = call.name.split(".")
        if family == "elementwise" and fused.supported(name, [x.dtype for x in call.ins]):
            return "fused"
        launch_of = cpu.numba_launch(call.name)
        if launch_of is None or family == "elementwise":
            return "python"
        outs, ins = ([np.asarray(x) for x in some] for some in (call.outs, call.ins))
        try:
            with without_copies():
                return "python" if launch_of(outs, ins, **call.static) is None else "launch"
        except Copied:
            return "copies"

    # Where its memory is.

    def _place(self, kept: set[Root]) -> None:
        first: dict[Root, int] = {}
        last: dict[Root, int] = {}
        region_of: dict[Root, Region | None] = {}
        spans: dict[int, tuple[int, int]] = {}
        clock = 0
        for region in self.regions:
            start = clock
            for call in region.calls:
                clock += 1
                for x in (*call.outs, *call.ins):
                    if isinstance(x, Traced) and x.root.maker is not None:
                        first.setdefault(x.root, clock)
                        last[x.root] = clock
                        alone = region.apart and x.root not in kept and region_of.get(x.root, region) is region
                        region_of[x.root] = region if alone else None
            if region.apart:
                spans.update(dict.fromkeys(range(start + 1, clock + 1), (start + 1, clock)))
        own = [root for root in first if region_of[root] is not None]
        places, per_task = arrange.place([(first[r], last[r], r.nbytes // self.tasks) for r in own])
        self._own = dict(zip(own, places, strict=True))
        # What leaves a region of tasks apart is in use in all of it: shards are in different places at the same time.
        # What has to be finite lies together, so that one look tells.
        self._finite: dict[Any, Any] = {}
        self._of_finite: dict[Root, int] = {}
        for dtype in {x.dtype for x in self.checked}:
            roots = dict.fromkeys(x.root for x in self.checked if x.dtype == dtype and x.root in first)
            starts = np.cumsum([0, *[-(-root.nbytes // ALIGN) * ALIGN for root in roots]]).tolist()
            self._finite[dtype] = _memory(starts[-1])
            self._of_finite.update(zip(roots, starts, strict=False))
        shared = [root for root in first if root not in self._own and root not in self._of_finite]
        times = [
            (spans.get(first[r], (first[r],))[0], math.inf if r in kept else spans.get(last[r], (0, last[r]))[1])
            for r in shared
        ]
        places, self.arena = arrange.place(
            [(start, end, r.nbytes) for (start, end), r in zip(times, shared, strict=True)]  # type: ignore[misc]
        )
        self._shared = dict(zip(shared, places, strict=True))
        self._arena = _memory(self.arena)
        if self.tasks:
            even = -(-self.tasks // self.workers)
            self.shard = max(1, min(even, CACHE // max(per_task, 1)))
        self.scratch = per_task * self.shard
        launches = clock
        self.blocks = [
            Block(r.maker.name, True, first[r], last[r], at * self.shard, r.nbytes // self.tasks * self.shard)  # type: ignore[union-attr]
            for r, at in self._own.items()
        ] + [
            Block(r.maker.name, False, start, min(end, launches), self._shared[r], r.nbytes)  # type: ignore[union-attr]
            for (start, end), r in zip(times, shared, strict=True)
        ]
        self._scratch = [_memory(self.scratch) for _ in range(self.workers)]
        self._inputs: dict[Root, Any] = {}

    def array(self, x: Any) -> Any:
        """An operand in the program's memory, where it is for all tasks."""
        if not isinstance(x, Traced):
            return x
        if x.root.maker is None:
            if x.root not in self._inputs:
                self._inputs[x.root] = _memory(x.root.nbytes)
            return _view(self._inputs[x.root], offset(x), x, x.shape)
        if x.root in self._of_finite:
            return _view(self._finite[x.dtype], self._of_finite[x.root] + offset(x), x, x.shape)
        return _view(self._arena, self._shared[x.root] + offset(x), x, x.shape)

    def is_finite(self) -> bool:
        """Whether all that was to be checked is; it may say no without a reason, then a closer look is due."""
        with np.errstate(invalid="ignore", over="ignore"):
            return all([math.isfinite(np.add.reduce(block.view(dtype))) for dtype, block in self._finite.items()])

    def _of_shard(self, call: Call, x: Any, strides: dict[int, int]) -> Any:
        """An operand as the first shard has it; `strides` gets those that move with the tasks."""
        moves = arrange.moves(call, x, self.tasks)
        if isinstance(x, Traced) and x.root in self._own:
            return _view(self._scratch[0], self._own[x.root] * self.shard + offset(x), x, (self.shard, *x.shape[1:]))
        whole = self.array(x)
        part = whole[: self.shard] if arrange.has_task_axis(call, x, self.tasks) else whole
        stride = whole.strides[0] if moves else 0
        address = whole.__array_interface__["data"][0]
        if strides.setdefault(address, stride) != stride:
            raise AssertionError(f"{call.name} reads one address both for each task and for all")
        return part

    # When it runs.

    def _bind(self) -> None:
        parts: list[tuple[bool, list[Any]]] = []
        self._compile_groups()
        for region in self.regions:
            for call in region.calls:
                if self.how(call) == "python":
                    self._finish(parts)
                    outs, ins = ([self.array(x) for x in some] for some in (call.outs, call.ins))
                    self.runs.append(partial(cpu.numpy_kernel(call.name), outs, ins, **call.static))
                    continue
                if not parts or parts[-1][0] != region.apart:
                    parts.append((region.apart, []))
                parts[-1][1].append(self._work(region, call))
        self._finish(parts)

    def _finish(self, parts: list[tuple[bool, list[Any]]]) -> None:
        """What was collected is a program in machine code."""
        if parts:
            from tinymaml.kernels.cpu.compiled.program import Memory, Program

            memory = Memory([block.ctypes.data for block in self._scratch], self.scratch)
            self.runs.append(Program(list(parts), memory, self.shard, self.tasks, self.workers).run)
            parts.clear()

    def _work(self, region: Region, call: Call) -> Any:
        from tinymaml.kernels.cpu.compiled.arrays import without_copies
        from tinymaml.kernels.cpu.compiled.crew import Kept
        from tinymaml.kernels.cpu.compiled.program import Work

        strides: dict[int, int] = {}
        static = call.static
        if region.apart:
            outs, ins = ([self._of_shard(call, x, strides) for x in some] for some in (call.outs, call.ins))
            if static.get("shape", (0,))[0] == self.tasks:
                static = {**static, "shape": (self.shard, *static["shape"][1:])}
        else:
            outs, ins = ([self.array(x) for x in some] for some in (call.outs, call.ins))
        if call.name == "fused":
            words = np.array([x.__array_interface__["data"][0] for x in (*ins, *outs)], np.int64)
            kept = Kept(self._functions[call], words, list(range(len(words))))
            units = outs[0].shape[0] if outs[0].ndim else 1
            return Work(kept, units, outs[0].size * len(call.static["parts"]), strides, (outs, ins))
        with without_copies():
            launch = cpu.numba_launch(call.name)(outs, ins, **static)  # type: ignore[misc]  # `_way` has found it
        return Work(Kept.of(launch), launch.units, launch.work, strides, launch)

    def _compile_groups(self) -> None:
        calls = [call for region in self.regions for call in region.calls if call.name == "fused"]
        if calls:
            from tinymaml.kernels.cpu.compiled import fused

            self._functions = dict(zip(calls, fused.compile([_group(call) for call in calls]), strict=True))


def _group(call: Call) -> Any:
    """A fused call as the generator of kernels takes it."""
    from tinymaml.kernels.cpu.compiled.fused import Group, Operand, Step

    shape = call.outs[0].shape or (1,)
    number: dict[Any, int] = {arrange.operand_key(x): i for i, x in enumerate(call.ins)}
    operands = [Operand(x.dtype, np.broadcast_to(np.asarray(x), shape).strides) for x in call.ins]
    steps = []
    for i, part in enumerate(call.static["parts"]):
        own = tuple([number[arrange.operand_key(x)] for x in part.ins])
        steps.append(Step(part.name.split(".")[1], own, part.outs[0].dtype, tuple(part.static.items())))
        number[arrange.operand_key(part.outs[0])] = len(operands) + i
    results = tuple([number[arrange.operand_key(y)] for y in call.outs])
    return Group(shape, tuple(operands), tuple(steps), results)

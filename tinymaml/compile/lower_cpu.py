"""Lowering to the CPU: each call of a step gets its kernel, its memory and its turn.

With Numba, launches follow each other in machine code, rows in shards that several threads take; what has no compiled
kernel runs from Python in between. Without Numba all of it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinymaml.autodiff.tracing import Call, Root, Traced, placeholder, traced
from tinymaml.compile import fusion, passes, peephole, regions
from tinymaml.compile.fusion import FusedCall
from tinymaml.compile.memory_plan import MemoryPlan, address
from tinymaml.compile.regions import Region
from tinymaml.kernels import cpu, formulas
from tinymaml.kernels.names import KernelName

FUSED, LAUNCHED, PYTHON = "fused", "launched", "Python"  # what a call is run by

_COPY = KernelName("elementwise", "copy")


class CpuExecutable:
    """What a step's calls are lowered to.

    Attributes:
        calls: those that something needed depends on; `dead` more are eliminated.
        regions: the same in the order in which they run, some of them fused.
        memory: where everything is.
        runs: to be called one after the other, they are the program.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        outputs: Sequence[Any],
        checked: Sequence[Any],
        tasks: Collection[int],
        workers: int,
    ) -> None:
        self.workers = workers
        self.calls = passes.eliminate_dead(calls, [*outputs, *checked])
        self.dead = len(calls) - len(self.calls)
        self._how: dict[Call, str] = {}
        compiled = cpu.numba_is_used()
        kept = {x.root for x in (*outputs, *checked) if isinstance(x, Traced)}
        if compiled:
            self.calls = passes.eliminate_dead(_with_pooling_merged(self.calls, kept), [*outputs, *checked])
            self.calls = self._choose_kernels()
        self.regions = regions.split_by_rows(self.calls, tasks, lambda call: self.how(call) != PYTHON)
        if compiled:
            self._fuse(kept)
        self.memory = MemoryPlan(self.regions, outputs, checked, workers)
        self.runs: list[Callable[[], None]] = []
        self._bind()

    def how(self, call: Call) -> str:
        """What a call is run by: a fused kernel or a launch, both in machine code, or Python."""
        return self._how.get(call, PYTHON)

    def describe(self) -> str:
        """Where it runs, in words."""
        shards = [f"{region.rows} rows, {shard} in a shard" for region, shard in self.memory.shards.items()]
        return f"{'; '.join(dict.fromkeys(shards)) or 'not split by rows'}, threads: {self.workers}"

    def array(self, x: Any) -> Any:
        """An operand where it is."""
        return self.memory.array(x)

    def write(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        """Copy arguments into the program's memory."""
        for array, leaf in zip(inputs, leaves, strict=True):
            np.copyto(array, leaf)

    def read(self, outputs: Sequence[Any]) -> list[Any]:
        """Copies of outputs; what is no array is what it is."""
        return [x.copy() if isinstance(x, np.ndarray) else x for x in outputs]

    def run(self) -> None:
        """Run the program."""
        for run in self.runs:
            run()

    def is_finite(self) -> bool:
        """Whether all that was to be checked is."""
        return self.memory.is_finite()

    def _choose_kernels(self) -> list[Call]:
        """The calls, with copies in between of operands that a compiled kernel takes only in C order."""
        calls: list[Call] = []
        copies: dict[Any, Call] = {}
        for call in self.calls:
            self._how[call], strided = _kernel_for(call)
            for i in strided:
                x = call.ins[i]
                key = passes.operand_key(x)
                if key not in copies:
                    copy = copies[key] = Call(_COPY, [], [x])
                    copy.outs = [traced(x.shape, x.dtype, None, copy)]
                    self._how[copy], _ = _kernel_for(copy)
                    calls.append(copy)
                call.ins[i] = copies[key].outs[0]
            calls.append(call)
        return calls

    def _fuse(self, kept: set[Root]) -> None:
        read = [passes.roots_read(region.calls) for region in self.regions]
        for i, region in enumerate(self.regions):
            elsewhere = set().union(kept, *read[:i], *read[i + 1 :])
            region.calls = fusion.fuse(region.calls, lambda call: self.how(call) == FUSED, elsewhere)
            self._how.update({call: FUSED for call in region.calls if isinstance(call, FusedCall)})

    def _bind(self) -> None:
        """Make `runs`: launches in machine code, as many after each other as there are, and calls from Python."""
        functions = _compiled([call for region in self.regions for call in region.calls if isinstance(call, FusedCall)])
        parts: list[tuple[Region, list[Any]]] = []
        for region in self.regions:
            for call in region.calls:
                if self.how(call) == PYTHON:
                    self._finish(parts)
                    outs, ins = ([self.memory.array(x) for x in some] for some in (call.outs, call.ins))
                    self.runs.append(partial(cpu.numpy_kernel(*call.kernel), outs, ins, **call.static))
                    continue
                # A split region is a part by itself: its shards may read all that the shards of another have made.
                if not parts or (parts[-1][0] is not region and (region.rows or parts[-1][0].rows)):
                    parts.append((region, []))
                parts[-1][1].append(self._launch(region, call, functions))
        self._finish(parts)

    def _finish(self, parts: list[tuple[Region, list[Any]]]) -> None:
        """What was collected is run in machine code."""
        if parts:
            from tinymaml.kernels.cpu.compiled.launch_sequence import LaunchSequence, Part, WorkerMemory

            memory = WorkerMemory(self.memory.addresses, self.memory.scratch)
            sequence = [Part(launches, of.rows, self.memory.shards.get(of, 0)) for of, launches in parts]
            self.runs.append(LaunchSequence(sequence, memory, self.workers).run)
            parts.clear()

    def _launch(self, region: Region, call: Call, functions: dict[Call, Any]) -> Any:
        from tinymaml.kernels.cpu.compiled.arrays import Operand
        from tinymaml.kernels.cpu.compiled.launch_sequence import BoundLaunch
        from tinymaml.kernels.cpu.compiled.thread_pool import PackedLaunch

        if region.rows:
            assert call.row_strides is not None
            outs = [self.memory.of_shard(region, y, y.strides[0]) for y in call.outs]
            ins = [self.memory.of_shard(region, x, s) for x, s in zip(call.ins, call.row_strides, strict=True)]
        else:
            outs, ins = ([(self.memory.array(x), 0) for x in some] for some in (call.outs, call.ins))
        if isinstance(call, FusedCall):
            addresses, strides = np.array([address(x) for x, _ in (*ins, *outs)], np.int64), [s for _, s in ins + outs]
            packed = PackedLaunch(functions[call].address, addresses, list(range(len(addresses))), strides)
            first = outs[0][0]
            units = first.shape[0] if region.rows else next((n for n in first.shape if n != 1), 1)  # see `group_of`
            return BoundLaunch(packed, units, first.size * len(call.parts), (outs, ins, functions[call]))
        operands = [[Operand.of(x, stride) for x, stride in some] for some in (outs, ins)]
        launch = cpu.launch_builder(*call.kernel)(*operands, **call.static)  # type: ignore[misc]  # see `_kernel_for`
        assert not any(x.source and x.source.must_be_copied for x in operands[1])
        return BoundLaunch(PackedLaunch.of(launch), launch.units, launch.work, launch)


def _with_pooling_merged(calls: list[Call], kept: set[Root]) -> list[Call]:
    """The calls after the peephole pass."""
    if not passes.has_family(calls, "pool"):
        return calls
    from tinymaml.kernels.cpu.compiled.norm import can_pool

    return peephole.merge_pooling(calls, kept, can_pool)


def _kernel_for(call: Call) -> tuple[str, list[int]]:
    """What a call can be run by, and which inputs have to be copied for that, as its kernel takes them in C order."""
    family, name = call.kernel
    if family == "elementwise":
        return (FUSED if formulas.supported(name, [x.dtype for x in call.ins]) else PYTHON), []
    build = cpu.launch_builder(family, name)
    if build is None:
        return PYTHON, []
    from tinymaml.kernels.cpu.compiled.arrays import Operand

    outs, ins = ([Operand.of(_as_it_lies(x)) for x in some] for some in (call.outs, call.ins))
    if build(outs, ins, **call.static) is None:
        return PYTHON, []
    return LAUNCHED, [i for i, x in enumerate(ins) if x.source is not None and x.source.must_be_copied]


def _as_it_lies(x: Any) -> Any:
    return placeholder(x) if isinstance(x, Traced) else x


def _compiled(calls: Sequence[FusedCall]) -> dict[Call, Any]:
    """The functions of fused calls, which hold their code."""
    if not calls:
        return {}
    from tinymaml.kernels.cpu.compiled import fused

    return dict(zip(calls, fused.compile([fusion.group_of(call) for call in calls]), strict=True))

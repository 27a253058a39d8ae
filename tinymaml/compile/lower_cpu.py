"""A program for the CPU from the calls of a step: each call gets its kernel, its memory and its turn.

With Numba, launches follow each other in machine code, tasks in shards that several threads take; what has no compiled
kernel runs from Python in between. Without Numba all of it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinymaml.autodiff.tracing import Call, Traced, placeholder, traced
from tinymaml.compile import fusion, passes, peephole
from tinymaml.compile.memory_plan import Layout, address
from tinymaml.compile.passes import Region
from tinymaml.kernels import cpu, formulas

FUSED, LAUNCHED, PYTHON = "fused", "launched", "Python"  # what a call is run by


class Assembly:
    """What a step's calls became.

    Attributes:
        calls: those that something needed depends on; `dropped` more are not there any more.
        regions: the same in the order in which they run, some of them fused.
        tasks: how many there are, 0 if nothing is done task by task.
        layout: where everything is.
        runs: to be called one after the other, they are the program.
    """

    def __init__(self, calls: Sequence[Call], outputs: Sequence[Any], checked: Sequence[Any], workers: int) -> None:
        self.workers = workers
        self.calls = passes.eliminate_dead(calls, [*outputs, *checked])
        self.dropped = len(calls) - len(self.calls)
        self._how: dict[Call, str] = {}
        compiled = cpu.numba_is_used()
        kept = {x.root for x in (*outputs, *checked) if isinstance(x, Traced)}
        if compiled:
            self.calls = passes.eliminate_dead(_joined(self.calls, kept), [*outputs, *checked])
            self.calls = self._prepared()
        self.tasks = passes.count_tasks(self.calls) if compiled else 0
        self.regions = passes.regions(self.calls, self.tasks, lambda call: self.how(call) != PYTHON)
        if compiled:
            self._fuse(kept)
        self.layout = Layout(self.regions, outputs, checked, self.tasks, workers)
        self.runs: list[Callable[[], None]] = []
        self._bind()

    def how(self, call: Call) -> str:
        """What a call is run by: a fused kernel or a launch, both in machine code, or Python."""
        return self._how.get(call, PYTHON)

    def on_what(self) -> str:
        """Where it runs, in words."""
        shard = self.layout.shard
        shards = f"{self.tasks} tasks, {shard} in a shard" if shard else "no tasks apart"
        return f"{shards}, threads: {self.workers}"

    def array(self, x: Any) -> Any:
        """An operand where it is."""
        return self.layout.array(x)

    def write(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        """Copy arguments into the program's memory."""
        for own, leaf in zip(inputs, leaves, strict=True):
            np.copyto(own, leaf)

    def read(self, outputs: Sequence[Any]) -> list[Any]:
        """Outputs in memory of their own; what is no array is what it is."""
        return [x.copy() if isinstance(x, np.ndarray) else x for x in outputs]

    def run(self) -> None:
        """Run the program."""
        for run in self.runs:
            run()

    def is_finite(self) -> bool:
        """Whether all that was to be checked is."""
        return self.layout.is_finite()

    def _prepared(self) -> list[Call]:
        """The calls, and copies of operands that a compiled kernel takes only in order."""
        found: list[Call] = []
        copies: dict[Any, Call] = {}
        for call in self.calls:
            how = _way(call)
            if how is None:
                for i, x in enumerate(call.ins):
                    if not x.flags.c_contiguous:
                        key = passes.operand_key(x)
                        if key not in copies:
                            copy = copies[key] = Call("elementwise.copy", [], [x])
                            copy.outs = [traced(x.shape, x.dtype, None, copy)]
                            self._how[copy] = _way(copy) or PYTHON
                            found.append(copy)
                        call.ins[i] = copies[key].outs[0]
                how = _way(call)
            self._how[call] = how or PYTHON
            found.append(call)
        return found

    def _fuse(self, kept: set[Any]) -> None:
        read = [passes.read(region.calls) for region in self.regions]
        for i, region in enumerate(self.regions):
            elsewhere = set().union(kept, *read[:i], *read[i + 1 :])
            fusion.fuse(region, lambda call: self.how(call) == FUSED, elsewhere)
            self._how.update({call: FUSED for call in region.calls if call.name == "fused"})

    def _bind(self) -> None:
        """Make the program: stretches in machine code, and calls from Python in between."""
        functions = _compiled([call for region in self.regions for call in region.calls if call.name == "fused"])
        parts: list[tuple[Region | None, list[Any]]] = []
        for region in self.regions:
            # One part a region apart: its shards may read all that the shards of another have made.
            of = region if region.apart else None
            for call in region.calls:
                if self.how(call) == PYTHON:
                    self._finish(parts)
                    outs, ins = ([self.layout.array(x) for x in some] for some in (call.outs, call.ins))
                    self.runs.append(partial(cpu.numpy_kernel(call.name), outs, ins, **call.static))
                    continue
                if not parts or parts[-1][0] is not of:
                    parts.append((of, []))
                parts[-1][1].append(self._work(region, call, functions))
        self._finish(parts)

    def _finish(self, parts: list[tuple[Region | None, list[Any]]]) -> None:
        """What was collected is a stretch in machine code."""
        if parts:
            from tinymaml.kernels.cpu.compiled.program import Memory, Program

            memory = Memory(self.layout.addresses, self.layout.scratch)
            works = [(of is not None, own) for of, own in parts]
            self.runs.append(Program(works, memory, self.layout.shard, self.tasks, self.workers).run)
            parts.clear()

    def _work(self, region: Region, call: Call, functions: dict[Call, Any]) -> Any:
        from tinymaml.kernels.cpu.compiled.arrays import without_copies
        from tinymaml.kernels.cpu.compiled.crew import Kept
        from tinymaml.kernels.cpu.compiled.program import Work

        static = call.static
        if region.apart:
            outs, ins = ([self.layout.of_shard(call, x) for x in some] for some in (call.outs, call.ins))
            if static.get("shape", (0,))[0] == self.tasks:
                static = {**static, "shape": (self.layout.shard, *static["shape"][1:])}
        else:
            outs, ins = ([(self.layout.array(x), 0) for x in some] for some in (call.outs, call.ins))
        if call.name == "fused":
            words = np.array([address(x) for x, _ in (*ins, *outs)], np.int64)
            kept = Kept(functions[call].address, words, list(range(len(words))))
            first = outs[0][0]
            units = first.shape[0] if region.apart else next((n for n in first.shape if n != 1), 1)  # see `group_of`
            operations = first.size * len(call.static["parts"])
            return Work(kept, units, operations, [stride for _, stride in (*ins, *outs)], (outs, ins, functions[call]))
        with without_copies():
            launch = cpu.numba_launch(call.name)([y for y, _ in outs], [x for x, _ in ins], **static)  # type: ignore[misc]  # `_way` has found it
        kept = Kept.of(launch)
        moving = {address(x): stride for x, stride in (*ins, *outs)}  # it may look at them in other shapes
        strides = [moving.get(int(kept.arguments[place]), 0) for place in kept.places]
        return Work(kept, launch.units, launch.work, strides, launch)


def _joined(calls: list[Call], kept: set[Any]) -> list[Call]:
    """The calls, those of a pair as one."""
    if not any(call.name.startswith("pool.") for call in calls):
        return calls
    from tinymaml.kernels.cpu.compiled.norm import can_pool

    return peephole.join(calls, kept, can_pool)


def _way(call: Call) -> str | None:
    """What a call can be run by; None: a compiled kernel, once its operands are laid out in order."""
    from tinymaml.kernels.cpu.compiled.arrays import Copied, without_copies

    family, name = call.name.split(".")
    if family == "elementwise":
        return FUSED if formulas.supported(name, [x.dtype for x in call.ins]) else PYTHON
    launch_of = cpu.numba_launch(call.name)
    if launch_of is None:
        return PYTHON
    outs, ins = ([placeholder(x) if isinstance(x, Traced) else x for x in some] for some in (call.outs, call.ins))
    try:
        with without_copies():
            return PYTHON if launch_of(outs, ins, **call.static) is None else LAUNCHED
    except Copied:
        return None


def _compiled(calls: Sequence[Call]) -> dict[Call, Any]:
    """The functions of fused calls; they own their code."""
    if not calls:
        return {}
    from tinymaml.kernels.cpu.compiled import fused

    return dict(zip(calls, fused.compile([fusion.group_of(call) for call in calls]), strict=True))

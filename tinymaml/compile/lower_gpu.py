"""Lowering to a GPU: launches on fixed memory, captured as one CUDA graph.

What differs between replays comes in through memory: arguments, and NumPy arrays that the step closed over, are copied
in before the graph is launched. Nothing is read back unless it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np

from tinymaml.autodiff.tensor import is_array
from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import fusion, memory_plan, passes, peephole
from tinymaml.compile.fusion import FusedCall
from tinymaml.compile.memory_plan import ALIGN, Buffer
from tinymaml.compile.regions import Region
from tinymaml.kernels import gpu
from tinymaml.kernels.formulas import supported
from tinymaml.kernels.gpu import support
from tinymaml.kernels.gpu.launch import Plan

FUSED, LAUNCHED = "fused", "launched"


class GpuExecutable:
    """What a step's calls are lowered to. See `CpuExecutable`, whose attributes these are; a GPU splits no rows.

    Attributes:
        plan: the launches of the program, in order.
        arena, scratch: bytes of what goes from launch to launch, and of what one call uses alone.
    """

    shards: Mapping[Region, int] = MappingProxyType({})

    def __init__(
        self, calls: Sequence[Call], outputs: Sequence[Any], checked: Sequence[Any], inputs: Sequence[Any]
    ) -> None:
        self.calls = passes.eliminate_dead(calls, [*outputs, *checked])
        kept = {x.root for x in (*outputs, *checked) if isinstance(x, Traced)}
        if passes.has_family(self.calls, "pool"):
            from tinymaml.kernels.gpu.norm import can_pool

            self.calls = passes.eliminate_dead(peephole.merge_pooling(self.calls, kept, can_pool), [*outputs, *checked])
        self.dead = len(calls) - len(self.calls)
        fused = fusion.fuse(self.calls, _fusable, kept)
        self._batches = _batches(_with_updates_merged(fused))
        self.regions = [Region(0, [call for batch in self._batches for call in batch])]
        self.memory = self
        self._memory: dict[Root, Any] = {}
        self._closed_over = _ClosedOver([*[x for call in self.calls for x in call.ins], *outputs])
        self._place(kept, inputs)
        self._roots_checked = list(dict.fromkeys(x.root for x in checked))
        self._flag = gpu.cupy().asarray(np.zeros((), np.int32))
        self.plan = self._planned()
        self._graphs: dict[str, tuple[Plan, Any]] = {}

    def how(self, call: Call) -> str:
        """What a call is run by."""
        return FUSED if isinstance(call, FusedCall) else LAUNCHED

    def describe(self) -> str:
        """Where it runs, in words."""
        return f"one CUDA graph of {len(self.plan.launches)} kernels"

    def _place(self, kept: set[Root], inputs: Sequence[Any]) -> None:
        """Memory: of the inputs, of what is kept until the next call, and of the rest by when it is in use."""
        first: dict[Root, int] = {}
        last: dict[Root, int] = {}
        for i, batch in enumerate(self._batches, start=1):
            for x in [x for call in batch for x in (*call.outs, *call.ins)]:
                if isinstance(x, Traced) and x.root.maker is not None:
                    first.setdefault(x.root, i)
                    last[x.root] = i
        passing = [root for root in first if root not in kept]
        lives = [(first[root], last[root], root.nbytes) for root in passing]
        starts, self.arena = memory_plan.assign_offsets(lives)
        self.buffers: list[Buffer] = [
            memory_plan.buffer(root, False, begins, ends, start, size)
            for root, (begins, ends, size), start in zip(passing, lives, starts, strict=True)
        ]
        self._allocate(passing, starts, self.arena)
        staying = [root for root in first if root in kept]
        for roots in (staying, [x.root for x in inputs]):
            ends = list(accumulate([-(-root.nbytes // ALIGN) * ALIGN for root in roots], initial=0))
            self._allocate(roots, ends, ends[-1])

    def _allocate(self, roots: Sequence[Root], starts: Sequence[int], size: int) -> None:
        memory = gpu.cupy().cuda.alloc(size)
        self._memory.update({root: memory + start for root, start in zip(roots, starts, strict=False)})

    def _planned(self) -> Plan:
        """The launches of all calls; a call uses the scratch memory of those before it again."""
        scratch = _Scratch()
        plan = Plan(scratch.empty)
        for run, batch in zip(_planners(self._batches, self.array), self._batches, strict=True):
            scratch.restart()
            run(plan, *self._operands(batch))
        self.scratch = scratch.size
        support.find_not_finite(plan, [self._whole(root) for root in self._roots_checked], self._flag)
        return plan

    def _operands(self, batch: Sequence[Call]) -> tuple[list[Any], list[Any]]:
        outs, ins = [y for call in batch for y in call.outs], [x for call in batch for x in call.ins]
        return [self.array(y) for y in outs], [self.array(x) for x in ins]

    def _whole(self, root: Root) -> Any:
        return gpu.cupy().ndarray(root.shape, root.dtype, self._memory[root])

    def array(self, x: Any) -> Any:
        """An operand where it is."""
        if isinstance(x, Traced):
            return gpu.cupy().ndarray(x.shape, x.dtype, self._memory[x.root] + x.offset, x.strides)
        return self._closed_over.array(x) if isinstance(x, np.ndarray) else x

    def write(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        """Copy arguments into the program's memory; those on the GPU all at once."""
        there = []
        for array, leaf in zip(inputs, leaves, strict=True):
            if isinstance(leaf, np.ndarray | np.generic):
                array.set(np.ascontiguousarray(leaf).reshape(leaf.shape))
            else:
                there.append((leaf, array))
        self._copy(there)

    def read(self, outputs: Sequence[Any]) -> list[Any]:
        """Copies of outputs; what is no array is what it is."""
        copies = [gpu.cupy().empty(x.shape, x.dtype) if is_array(x) else x for x in outputs]
        self._copy([(x, y) for x, y in zip(outputs, copies, strict=True) if is_array(x)])
        return copies

    def _copy(self, arrays: Sequence[tuple[Any, Any]]) -> None:
        """Copy arrays (from, to) in as few launches as there are sizes of numbers."""
        plan = Plan()
        support.copy_all(plan, arrays)
        plan.run()

    def run(self) -> None:
        """Launch the program."""
        self._launch("once", lambda plan: None, 1)

    def repeat(self, count: int, carried: Sequence[tuple[Any, Any]]) -> None:
        """Launch the program so many times; after each but the last the arrays (from, to) are copied."""
        if count > 1:
            self._launch("repeat", lambda plan: support.copy_all(plan, carried), count - 1)
        self.run()

    def _launch(self, key: str, more: Callable[[Plan], None], count: int) -> None:
        self._closed_over.write()
        if key not in self._graphs:
            plan = Plan(launches=list(self.plan.launches))
            more(plan)
            plan.run()  # once without the graph: what is not yet loaded cannot be while a stream is captured
            self._graphs[key] = plan, _captured(plan)
            count -= 1
        for _ in range(count):
            self._graphs[key][1].launch()

    def is_finite(self) -> bool:
        """Whether all that was to be checked was, in every run since this was last asked. It waits for the GPU."""
        if not int(self._flag.get()):
            return True
        self._flag.set(np.zeros((), np.int32))
        return False


class _Scratch:
    """Memory that one call after the other uses: blocks, of which there are more the more a call asks for.

    Attributes:
        size: of all blocks, in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._blocks: list[tuple[Any, int]] = []  # memory, and its size
        self.restart()

    def restart(self) -> None:
        """For the next call all of it is free."""
        self._block, self._used = 0, 0

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """An array in what is free of the next block that it fits into, or in a new one."""
        size = -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGN) * ALIGN
        while self._block < len(self._blocks) and self._used + size > self._blocks[self._block][1]:
            self._block, self._used = self._block + 1, 0
        if self._block == len(self._blocks):
            # Powers of two: blocks that have become too small are together no larger than the one that fits.
            whole = 1 << max(size - 1, _LEAST - 1).bit_length()
            self._blocks.append((gpu.cupy().cuda.alloc(whole), whole))
            self.size += whole
        array = gpu.cupy().ndarray(tuple(shape), dtype, self._blocks[self._block][0] + self._used)
        self._used += size
        return array


_LEAST = 1 << 16  # bytes of a block of scratch memory


class _ClosedOver:
    """The NumPy arrays that a step closed over, in one piece: what has changed since the last replay is sent again."""

    def __init__(self, operands: Sequence[Any]) -> None:
        self._arrays = {id(x): x for x in operands if isinstance(x, np.ndarray)}
        cores = [
            x[(*[slice(1) if stride == 0 else slice(None) for stride in x.strides], ...)] for x in self._arrays.values()
        ]
        ends = list(accumulate([-(-core.nbytes // ALIGN) * ALIGN for core in cores], initial=0))
        self._here, self._sent = np.zeros(ends[-1], np.uint8), b""
        self._there = gpu.cupy().asarray(self._here)
        self._copies = [
            (core, np.ndarray(core.shape, core.dtype, self._here.data, start))
            for core, start in zip(cores, ends, strict=False)
            if core.size
        ]
        self._starts = dict(zip(self._arrays, zip(cores, ends, strict=False), strict=True))

    def array(self, x: Any) -> Any:
        """One of them, on the GPU."""
        core, start = self._starts[id(x)]
        array = gpu.cupy().ndarray(core.shape, core.dtype, self._there.data + start)
        return gpu.cupy().broadcast_to(array, x.shape)

    def write(self) -> None:
        """Send what they are now."""
        for core, copy in self._copies:
            np.copyto(copy, core)
        if (now := self._here.tobytes()) != self._sent:
            self._there.set(self._here)
            self._sent = now


def _captured(plan: Plan) -> Any:
    """The launches as one CUDA graph."""
    with gpu.cupy().cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            plan.run()
        finally:
            graph = stream.end_capture()
    return graph


def _fusable(call: Call) -> bool:
    return call.kernel.family == "elementwise" and supported(call.kernel.name, [x.dtype for x in call.ins])


def _with_updates_merged(calls: Sequence[Call]) -> list[Call]:
    """The calls, the optimiser's of all parameters as one, unless something between them needs what one makes."""
    updates = [call for call in calls if call.kernel == ("optim", "adam")]
    if len(updates) < 2:
        return list(calls)
    last = updates[-1]
    made = {y.root for call in updates for y in call.outs}
    start, end = calls.index(updates[0]), calls.index(last)
    same = all(
        call.static == last.static and call.ins[4].root is last.ins[4].root and call.ins[0].dtype == last.ins[0].dtype
        for call in updates
    )
    if not same or made & passes.roots_read(calls[start:end]):
        return list(calls)
    outs = [y for call in updates for y in call.outs]
    ins = [x for call in updates for x in call.ins[:4]]
    update = Call(last.kernel, outs, [*ins, last.ins[4]], last.static)
    for y in outs:
        y.root.maker = update
    return [update if call is last else call for call in calls if call is last or call not in updates]


def _batches(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls in an order and in batches that are one launch each: fused calls wait for each other until one of their
    results is needed. Calls are few microseconds long, and starting one takes as many.
    """
    batches: list[list[Call]] = []
    waiting: list[Call] = []
    for call in calls:
        if len(waiting) == _MOST or passes.roots_read([call]) & {y.root for other in waiting for y in other.outs}:
            batches.append(waiting)
            waiting = []
        if isinstance(call, FusedCall):
            waiting.append(call)
        else:
            batches.append([call])
    return [*batches, waiting] if waiting else batches


_MOST = 24  # fused calls in a launch: 16 operands each are as many arguments as all GPUs take


def _planners(batches: Sequence[Sequence[Call]], array: Callable[[Any], Any]) -> list[Callable[[Plan, Any, Any], None]]:
    """For each batch what appends its launches to a plan."""
    from tinymaml.kernels.gpu.elementwise import fused_launches

    bundles = [[fusion.group_of(call, array) for call in batch if isinstance(call, FusedCall)] for batch in batches]
    generated = iter(fused_launches([bundle for bundle in bundles if bundle]))

    def planner(call: Call) -> Callable[[Plan, Any, Any], None]:
        run = gpu.planner(*call.kernel)
        return lambda plan, outs, ins: run(plan, outs, ins, **call.static)

    return [next(generated) if bundle else planner(batch[0]) for batch, bundle in zip(batches, bundles, strict=True)]

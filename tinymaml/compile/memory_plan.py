"""Where a program's arrays lie in memory.

There are four kinds of memory: of the inputs; of what is to be finite at the end, together; of what goes from region to
region; and, for each worker, of what lives only while a shard of tasks is computed. In the last two buffers that are in
use at different times lie on top of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile import passes
from tinymaml.compile.passes import Region

ALIGN = 64  # bytes: a line of the cache
CACHE = 1 << 20  # bytes that the tasks of a shard may take, unless one alone needs more: half of a core's second cache


class Block(NamedTuple):
    """A buffer, for pictures: from which launch to which it is in use, and where."""

    name: str  # of the kernel that makes it
    own: bool  # in the memory of a shard
    first: int
    last: int
    start: int
    size: int


def _memory(size: int) -> Any:
    """So many bytes, from the beginning of a line of the cache."""
    block = np.zeros(size + ALIGN, np.uint8)
    start = -block.ctypes.data % ALIGN
    return block[start : start + size]


def _view(memory: Any, start: int, x: Traced, shape: Sequence[int]) -> Any:
    return np.ndarray(shape, x.dtype, memory.data if memory.size else None, start, x.strides)


class _Life:
    """From which launch to which a root is in use, and the region of tasks apart that alone uses it, if one does."""

    def __init__(self, regions: Sequence[Region], kept: set[Root]) -> None:
        self.first: dict[Root, int] = {}
        self.last: dict[Root, float] = {}
        self.alone: dict[Root, Region | None] = {}
        self.launches = 0
        # What leaves a region of tasks apart is in use in all of it: shards are in different places at the same time.
        self.spans: dict[int, tuple[int, int]] = {}
        for region in regions:
            start = self.launches + 1
            for call in region.calls:
                self.launches += 1
                for x in (*call.outs, *call.ins):
                    if isinstance(x, Traced) and x.root.maker is not None:
                        self._use(x.root, region if region.apart and x.root not in kept else None)
            if region.apart:
                launches = range(start, self.launches + 1)
                self.spans.update(dict.fromkeys(launches, (start, self.launches)))
        self.last.update(dict.fromkeys(kept & self.first.keys(), math.inf))

    def _use(self, root: Root, region: Region | None) -> None:
        self.first.setdefault(root, self.launches)
        self.last[root] = self.launches
        self.alone[root] = region if self.alone.get(root, region) is region else None

    def wide(self, root: Root) -> tuple[int, float]:
        """The same, with regions of tasks apart taken as one launch."""
        first, last = self.first[root], self.last[root]
        return self.spans.get(first, (first,))[0], last if math.isinf(last) else self.spans.get(int(last), (0, last))[1]


class Layout:
    """The memory of a program.

    Attributes:
        shard: how many tasks are computed at a time.
        arena: bytes of what goes from region to region.
        scratch: bytes of each worker's shard.
        addresses: where the workers' memory for shards begins.
    """

    def __init__(
        self, regions: Sequence[Region], outputs: Sequence[Any], checked: Sequence[Any], tasks: int, workers: int
    ) -> None:
        self.tasks = tasks
        kept = {x.root for x in (*outputs, *checked) if isinstance(x, Traced)}
        life = _Life(regions, kept)
        self._inputs: dict[Root, Any] = {}
        self._finite: dict[Any, Any] = {}
        self._of_finite: dict[Root, int] = {}
        for dtype in {x.dtype for x in checked}:
            roots = list(dict.fromkeys(x.root for x in checked if x.dtype == dtype))
            starts = np.cumsum([0, *[-(-root.nbytes // ALIGN) * ALIGN for root in roots]]).tolist()
            self._finite[dtype] = _memory(starts[-1])
            self._of_finite.update(zip(roots, starts, strict=False))

        own = [root for root in life.first if life.alone[root] is not None]
        places, per_task = place([(life.first[r], life.last[r], r.nbytes // tasks) for r in own])
        self._own = dict(zip(own, places, strict=True))
        self.shard = max(1, min(-(-tasks // workers), CACHE // max(per_task, 1))) if tasks else 0
        self.scratch = per_task * self.shard
        self._scratch = [_memory(self.scratch) for _ in range(workers)]
        self.addresses = [block.ctypes.data for block in self._scratch]

        shared = [root for root in life.first if root not in self._own and root not in self._of_finite]
        times = [life.wide(root) for root in shared]
        places, self.arena = place([(*time, r.nbytes) for time, r in zip(times, shared, strict=True)])
        self._shared = dict(zip(shared, places, strict=True))
        self._arena = _memory(self.arena)
        self.blocks = [self._block(r, True, life.first[r], life.last[r], life.launches) for r in own]
        self.blocks += [self._block(r, False, *time, life.launches) for r, time in zip(shared, times, strict=True)]

    def _block(self, root: Root, own: bool, first: int, last: float, launches: int) -> Block:
        assert root.maker is not None  # inputs have memory of their own
        scale = self.shard if own else 1
        start, size = (self._own[root], root.nbytes // self.tasks) if own else (self._shared[root], root.nbytes)
        return Block(root.maker.name, own, first, int(min(last, launches)), start * scale, size * scale)

    def array(self, x: Any) -> Any:
        """An operand where it is for all tasks."""
        if not isinstance(x, Traced):
            return x
        if x.root.maker is None:
            if x.root not in self._inputs:
                self._inputs[x.root] = _memory(x.root.nbytes)
            return _view(self._inputs[x.root], x.offset, x, x.shape)
        if x.root in self._of_finite:
            return _view(self._finite[x.dtype], self._of_finite[x.root] + x.offset, x, x.shape)
        return _view(self._arena, self._shared[x.root] + x.offset, x, x.shape)

    def of_shard(self, call: Call, x: Any) -> tuple[Any, int]:
        """An operand as the first shard has it, and the bytes by which it moves from task to task of the program.

        It is in the first worker's memory, or at the beginning of what there is for all tasks; only that moves.
        """
        if isinstance(x, Traced) and x.root in self._own:
            start = self._own[x.root] * self.shard + x.offset
            return _view(self._scratch[0], start, x, (self.shard, *x.shape[1:])), 0
        whole = self.array(x)
        part = whole[: self.shard] if passes.has_task_axis(call, x, self.tasks) else whole
        return part, whole.strides[0] if passes.moves(call, x, self.tasks) else 0

    def is_finite(self) -> bool:
        """Whether all that was to be checked is; it may say no without a reason, then a closer look is due."""
        with np.errstate(invalid="ignore", over="ignore"):
            return all([math.isfinite(np.add.reduce(block.view(dtype))) for dtype, block in self._finite.items()])


def address(array: Any) -> int:
    """Of an array's first number."""
    return int(array.__array_interface__["data"][0])


def place(intervals: Sequence[tuple[float, float, int]]) -> tuple[list[int], int]:
    """Where blocks (first use, last use, bytes) may lie in one stretch of memory; and how long it is.

    Blocks that are in use at the same time do not overlap. The largest are placed first, each as low as it fits.
    """
    offsets = [0] * len(intervals)
    placed: list[int] = []
    total = 0
    for i in sorted(range(len(intervals)), key=lambda i: -intervals[i][2]):
        first, last, size = intervals[i]
        size = -(-size // ALIGN) * ALIGN
        at = 0
        for j in placed:  # in the order of their offsets
            other_first, other_last, other = intervals[j]
            if other_first <= last and first <= other_last:
                if offsets[j] - at >= size:
                    break
                at = max(at, offsets[j] + -(-other // ALIGN) * ALIGN)
        offsets[i] = at
        total = max(total, at + size)
        placed.insert(int(np.searchsorted([offsets[j] for j in placed], at)), i)
    return offsets, total

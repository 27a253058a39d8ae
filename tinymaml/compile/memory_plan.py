"""Where a program's arrays lie in memory.

There are four kinds of memory: of the inputs; of what has to be finite at the end, together; of what goes from region
to region; and, for each worker, of what lives only while a shard of rows is computed. In the last two, buffers that are
in use at different times lie on top of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff.tracing import Call, Root, Traced
from tinymaml.compile.regions import Region

ALIGN = 64  # bytes: a line of the cache
CACHE = 1 << 20  # bytes that the rows of a shard may take, unless one alone needs more: half of a core's second cache


class Buffer(NamedTuple):
    """From which launch to which a buffer is in use, and where it lies, for pictures."""

    name: str  # of the kernel that makes it
    family: str
    in_shard: bool  # in a worker's memory for a shard
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


class _Lifetimes:
    """From which launch to which a root is in use, and the region split by rows that alone uses it, if one does."""

    def __init__(self, regions: Sequence[Region], kept: set[Root]) -> None:
        self.first: dict[Root, int] = {}
        self.last: dict[Root, float] = {}
        self.region: dict[Root, Region | None] = {}
        self.launches = 0
        # What leaves a split region is in use in all of it: shards are in different places at the same time.
        self._spans: dict[int, tuple[int, int]] = {}
        for region in regions:
            start = self.launches + 1
            for call in region.calls:
                self.launches += 1
                for x in (*call.outs, *call.ins):
                    if isinstance(x, Traced) and x.root.maker is not None:
                        self._use(x.root, region if region.rows and x.root not in kept else None)
            if region.rows:
                launches = range(start, self.launches + 1)
                self._spans.update(dict.fromkeys(launches, (start, self.launches)))
        self.last.update(dict.fromkeys(kept & self.first.keys(), math.inf))

    def _use(self, root: Root, region: Region | None) -> None:
        self.first.setdefault(root, self.launches)
        self.last[root] = self.launches
        self.region[root] = region if self.region.get(root, region) is region else None

    def interval(self, root: Root, nbytes: int) -> tuple[int, float, int]:
        """(first, last, bytes) for `assign_offsets`."""
        return self.first[root], self.last[root], nbytes

    def across_regions(self, root: Root) -> tuple[int, float]:
        """(first, last), with a split region taken as one launch."""
        first, last = self.first[root], self.last[root]
        start = self._spans.get(first, (first,))[0]
        return start, last if math.isinf(last) else self._spans.get(int(last), (0, last))[1]


class MemoryPlan:
    """The memory of a program.

    Attributes:
        shards: of each region that is split, how many rows are computed at a time.
        arena: bytes of what goes from region to region.
        scratch: bytes of each worker's memory for a shard.
        addresses: where the workers' memory for shards begins.
        buffers: what lies where and when, for pictures.
    """

    def __init__(self, regions: Sequence[Region], outputs: Sequence[Any], checked: Sequence[Any], workers: int) -> None:
        kept = {x.root for x in (*outputs, *checked) if isinstance(x, Traced)}
        lifetimes = _Lifetimes(regions, kept)
        self._inputs: dict[Root, Any] = {}
        self._finite: dict[Any, Any] = {}
        self._of_finite: dict[Root, int] = {}
        for dtype in {x.dtype for x in checked}:
            roots = list(dict.fromkeys(x.root for x in checked if x.dtype == dtype))
            starts = np.cumsum([0, *[-(-root.nbytes // ALIGN) * ALIGN for root in roots]]).tolist()
            self._finite[dtype] = _memory(starts[-1])
            self._of_finite.update(zip(roots, starts, strict=False))

        self.shards: dict[Region, int] = {}
        self.scratch = 0
        self._in_shard: dict[Root, int] = {}
        self.buffers: list[Buffer] = []
        for region in regions:
            if region.rows:
                self._place_in_shard(region, lifetimes, workers)
        self._scratch = [_memory(self.scratch) for _ in range(workers)]
        self.addresses = [block.ctypes.data for block in self._scratch]

        shared = [root for root in lifetimes.first if root not in self._in_shard and root not in self._of_finite]
        times = [lifetimes.across_regions(root) for root in shared]
        intervals = [(*time, root.nbytes) for time, root in zip(times, shared, strict=True)]
        offsets, self.arena = assign_offsets(intervals)
        self._shared = dict(zip(shared, offsets, strict=True))
        self._arena = _memory(self.arena)
        for root, (first, last, size) in zip(shared, intervals, strict=True):
            self.buffers.append(buffer(root, False, first, min(last, lifetimes.launches), self._shared[root], size))

    def _place_in_shard(self, region: Region, lifetimes: _Lifetimes, workers: int) -> None:
        """The memory of what lives in one region only, a shard's at a time."""
        roots = [root for root in lifetimes.first if lifetimes.region[root] is region]
        intervals = [lifetimes.interval(root, root.nbytes // region.rows) for root in roots]
        offsets, row = assign_offsets(intervals)
        shard = max(1, min(-(-region.rows // workers), CACHE // max(row, 1)))
        self.shards[region] = shard
        self.scratch = max(self.scratch, row * shard)
        for root, offset, (first, last, size) in zip(roots, offsets, intervals, strict=True):
            self._in_shard[root] = offset * shard
            self.buffers.append(buffer(root, True, first, last, offset * shard, size * shard))

    def array(self, x: Any) -> Any:
        """An operand where it is, with all its rows."""
        if not isinstance(x, Traced):
            return x
        if x.root.maker is None:
            if x.root not in self._inputs:
                self._inputs[x.root] = _memory(x.root.nbytes)
            return _view(self._inputs[x.root], x.offset, x, x.shape)
        if x.root in self._of_finite:
            return _view(self._finite[x.dtype], self._of_finite[x.root] + x.offset, x, x.shape)
        return _view(self._arena, self._shared[x.root] + x.offset, x, x.shape)

    def of_shard(self, region: Region, x: Any, row_stride: int | None) -> tuple[Any, int]:
        """An operand as the first shard of a region has it, and the bytes by which it moves from row to row.

        It is in the first worker's memory, which stays, or at the beginning of what there is for all rows.
        """
        shard = self.shards[region]
        if isinstance(x, Traced) and x.root in self._in_shard:
            return _view(self._scratch[0], self._in_shard[x.root] + x.offset, x, (shard, *x.shape[1:])), 0
        every = self.array(x)
        return (every, 0) if row_stride is None else (every[:shard], row_stride)

    def is_finite(self) -> bool:
        """Whether all that was to be checked is; it may say no without a reason, then a closer look is due."""
        with np.errstate(invalid="ignore", over="ignore"):
            return all([math.isfinite(np.add.reduce(block.view(dtype))) for dtype, block in self._finite.items()])


def buffer(root: Root, in_shard: bool, first: int, last: float, start: int, size: int) -> Buffer:
    """What a root lies in; not of an input, whose memory is separate."""
    maker: Call | None = root.maker
    assert maker is not None
    return Buffer(str(maker.kernel), maker.kernel.family, in_shard, first, int(last), start, size)


def address(array: Any) -> int:
    """Of an array's first element."""
    return int(array.__array_interface__["data"][0])


def assign_offsets(intervals: Sequence[tuple[float, float, int]]) -> tuple[list[int], int]:
    """Where blocks (first use, last use, bytes) may lie in one piece of memory; and how long it is.

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

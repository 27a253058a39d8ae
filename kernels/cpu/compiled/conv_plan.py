"""Which pixels of a convolution meet which taps of its kernel: classes of pixels that all meet the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_IMAGES = 1 << 18  # bytes of images at a time: they stay in the second cache


class ConvPlan(NamedTuple):
    """Where the pixels of a pass lie, in classes: the same taps of the kernel meet the source for all of a class.

    So nothing is read beyond the edge of an image. The zeros around it count only where they meet what is not finite: 0
    times that is not a number. Lists of classes one behind the other.
    """

    group: int  # images at a time
    starts: Any  # int64[classes + 1]: of each class's pixels of one image, in the next two
    sources: Any  # int64: where a pixel's first tap meets the source, in bytes, image by image
    targets: Any  # int64: offsets of pixels in the result, bytes, image by image
    lines: Any  # int64[classes]: rows of the kernel that meet the source
    columns: Any  # int64[classes]: columns of the kernel that do
    first_taps: Any  # int64[classes]: place of the first one in the next
    strides: Any  # int64[classes]: from one row of the kernel to the next, in taps
    taps: Any  # int64: taps of the kernel in the order of their use
    gaps: Any  # int64[classes + 1]: of each class's taps that meet zeros around the source, in the next
    missed: Any  # int64: taps of the kernel


class _Run(NamedTuple):
    """Pixels along one axis for which the same taps meet the source."""

    phase: int  # which of the lists of taps they use
    first: int  # the first of these that meets the source
    meeting: int  # how many do
    sources: list[int]  # where it does
    targets: list[int]  # the pixels


def _runs(pixels: Iterable[tuple[int, int, int, int, int]]) -> list[_Run]:
    """(phase, first, count, source, target) of each pixel; those that most taps meet come first."""
    runs: dict[tuple[int, int, int], _Run] = {}
    for phase, first, count, source, target in pixels:
        run = runs.setdefault((phase, first, count), _Run(phase, first, count, [], []))
        run.sources.append(source)
        run.targets.append(target)
    return sorted(runs.values(), key=lambda run: -run.meeting)


def _forward_axis(n: int, k: int, s: int, before: int, outputs: int) -> list[_Run]:
    """Of the results along one axis: result p meets the source in s p - before ... s p - before + k - 1."""
    pixels = []
    for p in range(outputs):
        start = s * p - before
        first, last = min(max(0, -start), k), min(k, n - start)
        count = max(0, last - first)
        pixels.append((0, first, count, start + first if count else 0, p))
    return _runs(pixels)


def _backward_axis(n: int, k: int, s: int, before: int, outputs: int) -> list[_Run]:
    """Of the source along one axis: its pixel i is reached from result (i + before - tap) / s by every s-th tap, the
    last one from the first of these results."""
    pixels = []
    for i in range(n):
        phase = (i + before) % s
        reached = [(i + before - tap) // s for tap in range(phase, k, s)[::-1]]
        meet = [j for j, p in enumerate(reached) if 0 <= p < outputs]
        pixels.append((phase, *((meet[0], len(meet), reached[meet[0]]) if meet else (0, 0, 0)), i))
    return _runs(pixels)


def _offsets(rows: Any, columns: Any, height: int, width: int, group: int, pixel: int) -> Any:
    """Bytes from the first image to each pixel of each of `group` images [group * rows * columns]."""
    places = (np.asarray(rows)[:, None] * width + np.asarray(columns)[None, :]).ravel()
    return ((np.arange(group)[:, None] * (height * width) + places).ravel() * pixel).astype(np.int64)


def _plan(
    over_rows: list[_Run], over_columns: list[_Run], taps: list[list[list[list[int]]]],
    images: int, source: Pair, target: Pair, pixel: int, out_pixel: int, padded: bool,
) -> ConvPlan:  # fmt: skip
    """`taps[a][b]`: rows and columns of taps for the phases a and b; sizes of images, bytes of their pixels; whether
    there are zeros around the source."""
    group = max(1, min(images, _IMAGES // max(1, source[0] * source[1] * pixel)))
    begin: dict[Pair, int] = {}
    order: list[int] = []
    for a, b in product(range(len(taps)), range(len(taps[0]))):
        begin[a, b] = len(order)
        order += [tap for line in taps[a][b] for tap in line]
    starts, sources, targets, lines, columns, first_taps, strides = [0], [], [], [], [], [], []
    gaps, missed = [0], []
    # The classes that all taps meet come first: they write every number of a result that sums over pixels.
    for i, j in sorted(product(over_rows, over_columns), key=lambda ij: -ij[0].meeting * ij[1].meeting):
        starts.append(starts[-1] + len(i.targets) * len(j.targets))
        sources.append(_offsets(i.sources, j.sources, *source, group, pixel))
        targets.append(_offsets(i.targets, j.targets, *target, group, out_pixel))
        lines.append(i.meeting if j.meeting else 0)
        columns.append(j.meeting)
        block = taps[i.phase][j.phase]
        strides.append(len(block[0]) if block else 0)
        first_taps.append(begin[i.phase, j.phase] + i.first * strides[-1] + j.first)
        met = {tap for line in block[i.first :][: lines[-1]] for tap in line[j.first :][: columns[-1]]}
        missed += [tap for line in block for tap in line if padded and tap not in met]
        gaps.append(len(missed))
    numbers = [np.array(x, np.int64) for x in (lines, columns, first_taps, strides, order, gaps, missed)]
    return ConvPlan(group, np.array(starts), np.concatenate(sources), np.concatenate(targets), *numbers)


@lru_cache(maxsize=256)
def forward_plan(
    images: int, size: Pair, kernel: Pair, outputs: Pair, stride: Pair, padding: Padding, pixel: int, out_pixel: int
) -> ConvPlan:
    """Of x (`size`, `pixel` bytes) to y (`outputs`, `out_pixel` bytes)."""
    over_rows, over_columns = (_forward_axis(size[i], kernel[i], stride[i], padding[i][0], outputs[i]) for i in (0, 1))
    taps = [[[[i * kernel[1] + j for j in range(kernel[1])] for i in range(kernel[0])]]]
    return _plan(over_rows, over_columns, taps, images, size, outputs, pixel, out_pixel, True)


@lru_cache(maxsize=256)
def backward_plan(
    images: int, size: Pair, kernel: Pair, outputs: Pair, stride: Pair, padding: Padding, pixel: int, out_pixel: int
) -> ConvPlan:
    """Of g (`outputs`, `pixel` bytes) to x (`size`, `out_pixel` bytes)."""
    over_rows, over_columns = (_backward_axis(size[i], kernel[i], stride[i], padding[i][0], outputs[i]) for i in (0, 1))
    rows, columns = ([range(a, kernel[i], stride[i])[::-1] for a in range(stride[i])] for i in (0, 1))
    taps = [[[[i * kernel[1] + j for j in some] for i in every] for some in columns] for every in rows]
    return _plan(over_rows, over_columns, taps, images, outputs, size, pixel, out_pixel, False)

"""Tasks drawn by counter: N-way K-shot episodes from labelled images, and sinusoids.

Random numbers are Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a block of
four 32-bit numbers is a function of a 128-bit counter and a 64-bit key, with no state in between. Here the key is the
seed, and the counter holds the split, the task and the number of the block: so every task of every split has a stream
that is the same in whatever batch and order, and on whatever device, it is drawn.

A stream's place is an array (seed, first task) of uint64, and each kernel also gives the place after its tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Sequence[Any]
Range = tuple[float, float]

SPLITS = {"train": 0, "validation": 1, "test": 2}

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Four 32-bit random numbers for each counter; all arrays are uint64 holding 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(seed: int, split: str, tasks: Array, count: int) -> Array:
    """The first `count` 32-bit numbers of each task's stream: uint64[len(tasks), count]. The tasks are uint64."""
    index = tasks[:, None]
    blocks = np.arange(-(-count // 4), dtype=np.uint64)[None, :] | np.uint64(SPLITS[split] << 28)
    shape = (index.shape[0], blocks.shape[1])
    counter = (
        np.broadcast_to(blocks, shape),
        np.zeros(shape, np.uint64),
        np.broadcast_to(index & _LOW, shape),
        np.broadcast_to(index >> _SHIFT, shape),
    )
    drawn = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(drawn, axis=-1).reshape(shape[0], -1)[:, :count]


def uniform(seed: int, split: str, tasks: Array, count: int, dtype: Any) -> Array:
    """`count` numbers in [0, 1) of each task's stream: [len(tasks), count].

    float32 takes the upper 24 bits of a word, float64 the upper 53 of two: every value is a multiple of 2^-24 or 2^-53.
    """
    if dtype == np.float32:
        return (words(seed, split, tasks, count) >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    pairs = words(seed, split, tasks, 2 * count)
    return ((pairs[:, ::2] << np.uint64(21)) | (pairs[:, 1::2] >> np.uint64(11))) * 2.0**-53


def tasks_from(first: Any, count: int) -> Array:
    """The indices of so many tasks."""
    return np.uint64(first) + np.arange(count, dtype=np.uint64)


def choices(
    first: Array, seed: int, split: str, tasks: Array, ways: int, images: int, rotations: bool
) -> tuple[Array, Array, Array]:
    """(classes [T, ways], quarter turns [T, ways], images of each class [T, ways, images]) of some tasks.

    Classes are drawn without replacement, then one number of quarter turns for each (if `rotations`: so two turns of
    one class never meet in a task), then images without replacement. With more images the first ones stay the same.
    """
    counts = np.diff(first)
    drawn = words(seed, split, tasks, ways * (2 + images)).reshape(len(tasks), 2 + images, ways)
    classes = _distinct(drawn[:, 0], np.full((len(tasks), 1), len(counts)))
    turns = (drawn[:, 1] >> np.uint64(30)).astype(np.int64) * rotations
    chosen = _distinct(np.swapaxes(drawn[:, 2:], 1, 2), counts[classes][..., None])
    return classes, turns, first[classes][..., None] + chosen


def _distinct(drawn: Array, counts: Array) -> Array:
    """Whole numbers below `counts`, distinct along the last axis, from 32-bit random words.

    The j-th is one of those that are left: its rank among them becomes a number by stepping over each smaller one that
    is taken.
    """
    taken = np.empty((*drawn.shape[:-1], 0), np.int64)
    distinct = np.empty(drawn.shape, np.int64)
    for j in range(drawn.shape[-1]):
        left = (counts[..., 0] - j).astype(np.uint64)
        number = ((drawn[..., j] * left) >> np.uint64(32)).astype(np.int64)
        for i in range(j):
            number += number >= taken[..., i]
        distinct[..., j] = number
        taken = np.sort(np.concatenate([taken, number[..., None]], -1), -1)
    return distinct


def show(results: Arrays, images: Array, chosen: Array, turns: Array) -> None:
    """The chosen images, turned and in [0, 1], into `results`: x and y of the support set, x and y of the query set."""
    shown = images[chosen.ravel()].reshape(*chosen.shape, *images.shape[1:])
    for quarter in range(1, 4) if turns.any() else ():
        those = turns == quarter
        shown[those] = np.rot90(shown[those], quarter, (2, 3))
    ways = turns.shape[1]
    shots = results[1].shape[1] // ways
    for x, y, part in ((*results[:2], shown[:, :, :shots]), (*results[2:4], shown[:, :, shots:])):
        x[...] = np.divide(part, np.float32(255)).reshape(x.shape)
        y[...] = np.repeat(np.arange(ways), y.shape[1] // ways)


def episodes(outs: Arrays, ins: Arrays, split: str, ways: int, shots: int, queries: int, rotations: bool) -> None:
    """Tasks of labelled images: ins are images uint8 [M, H, W, C], first int64 [classes + 1] (images of class c are
    first[c] to first[c + 1]), and the stream's place; outs x [T, ways shots, H, W, C] in [0, 1] and y int64
    [T, ways shots] of the support set, the same of the query set, and the next place.

    Examples stand class by class; labels are 0 ... ways - 1, in the order in which classes were drawn.
    """
    images, first, place = ins
    tasks = tasks_from(place[1], len(outs[0]))
    _, turns, chosen = choices(first, int(place[0]), split, tasks, ways, shots + queries, rotations)
    show(outs, images, chosen, turns)
    outs[4][...] = _after(place, len(tasks))


def waves(
    seed: int, split: str, tasks: Array, points: int, amplitude: Range, phase: Range, x: Range, dtype: Any
) -> tuple[Array, Array, Array, Array]:
    """(amplitude [T], phase [T], x [T, points], y [T, points]) with y = amplitude sin(x - phase), all uniform in their
    ranges.
    """
    u = uniform(seed, split, tasks, 2 + points, dtype)

    def spread(fraction: Array, bounds: Range) -> Array:
        low, high = np.asarray(bounds, dtype)
        return low + (high - low) * fraction

    a, p, xs = spread(u[:, 0], amplitude), spread(u[:, 1], phase), spread(u[:, 2:], x)
    return a, p, xs, a[:, None] * np.sin(xs - p[:, None])


def sinusoids(outs: Arrays, ins: Arrays, split: str, amplitude: Range, phase: Range, x: Range) -> None:
    """Tasks of points on sinusoids: ins the stream's place; outs x [T, N, 1] and y [T, N, 1] of each of one or two
    parts, and the next place. Where x is [T, N, 3], amplitude and phase stand beside it.
    """
    (place,), parts = ins, outs[:-1]
    tasks = tasks_from(place[1], len(parts[0]))
    points = sum(y.shape[1] for y in parts[1::2])
    a, p, xs, ys = waves(int(place[0]), split, tasks, points, amplitude, phase, x, parts[0].dtype)
    end = 0
    for inputs, targets in zip(parts[::2], parts[1::2], strict=True):
        begin, end = end, end + targets.shape[1]
        inputs[..., 0], targets[..., 0] = xs[:, begin:end], ys[:, begin:end]
        if inputs.shape[2] == 3:
            inputs[..., 1], inputs[..., 2] = a[:, None], p[:, None]
    outs[-1][...] = _after(place, len(tasks))


def _after(place: Array, tasks: int) -> Array:
    return place + np.array([0, tasks], np.uint64)

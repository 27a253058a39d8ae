"""Tasks drawn by counter: episodes of labelled images, and sinusoids."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tinymaml.kernels.cpu.sampling import SPLITS
from tinymaml.kernels.gpu.launch import REAL, Plan, blocks

Arrays = Sequence[Any]
Range = tuple[float, float]

THREADS = 256
PIXELS = 32 * THREADS  # that a block copies, about

INSTANCES = {real: (f"episodes<{real}, {THREADS}>", f"sinusoids<{real}>") for real in REAL.values()}


def episodes(
    plan: Plan, outs: Arrays, ins: Arrays, split: str, ways: int, shots: int, queries: int, rotations: bool
) -> None:
    """Tasks of labelled images: x and y of the support set, of the query set, and the stream's next place.

    Raises:
        ValueError: more ways, or images a way, than a block has threads.
    """
    images, first, place = ins
    if max(ways, shots + queries) > THREADS:
        raise ValueError(
            f"on a GPU a task has at most {THREADS} ways and images a way, got {ways} and {shots + queries}"
        )
    tasks, pixels = len(outs[0]), prod(images.shape[1:])
    each, tiles = max(1, PIXELS // pixels), blocks(pixels, PIXELS)
    grid = (blocks(shots + queries, each) * tiles, ways, tasks)
    name = f"episodes<{REAL[outs[0].dtype]}, {THREADS}>"
    sizes = (len(first) - 1, shots, queries, int(rotations), *images.shape[1:], each, tiles, PIXELS)
    arrays = (plan.in_order(images), first, place, *outs)
    plan.launch("sampling", name, grid, THREADS, *arrays, SPLITS[split], *sizes)


def sinusoids(plan: Plan, outs: Arrays, ins: Arrays, split: str, amplitude: Range, phase: Range, x: Range) -> None:
    """Tasks of points on sinusoids: x and y of each of one or two parts, and the stream's next place."""
    *parts, after = outs
    inputs, targets = parts[::2], parts[1::2]
    counts = [y.shape[1] for y in targets]
    tasks, columns, dtype = len(inputs[0]), inputs[0].shape[2], inputs[0].dtype
    if len(counts) == 1:
        parts, counts = parts * 2, [*counts, 0]
    ranges = [number for low, high in np.array([amplitude, phase, x], dtype) for number in (low, high - low)]
    plan.launch(
        "sampling",
        f"sinusoids<{REAL[dtype]}>",
        (blocks(tasks * sum(counts), THREADS),),
        THREADS,
        *ins, *parts, after, SPLITS[split], tasks, *counts, columns, *ranges,
    )  # fmt: skip

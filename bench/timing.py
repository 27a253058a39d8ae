"""Interleaved timing: every implementation has its turn in every round, so that a drift of the machine meets them all.

A turn begins with a pause, as threads of the one before it may still spin for a while (OpenBLAS's do for tens of
milliseconds), and its first call does not count: the implementation before has taken the caches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PAUSE = 0.1  # seconds before a turn
AT_LEAST = 0.01  # seconds that a function is repeated for in its turn
SLOW = 1000.0  # a function that takes more milliseconds than this is not called twice a turn, and sits rounds out

Turn = Callable[[bool], float]


def turn(function: Callable[[], Any], warm: bool = True) -> float:
    """Milliseconds of one call: the median of a turn's calls, after one that does not count if `warm`."""
    if warm:
        function()
    times: list[float] = []
    while sum(times) < AT_LEAST:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def interleaved(turns: dict[str, Turn], rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    """What each turn gave, `turn(warm)`, in every round; of those that are not slow a first one does not count."""
    first = {name: one(False) for name, one in turns.items()}
    every = {name: 1 if ms < SLOW else min(math.ceil(ms / 200), max(1, rounds // 2)) for name, ms in first.items()}
    times = {name: [ms] if ms >= SLOW else [] for name, ms in first.items()}
    for r in range(rounds):
        for name, one in turns.items():
            if r % every[name] == 0:
                time.sleep(PAUSE)
                times[name].append(one(first[name] < SLOW))
    return {name: np.array(values) for name, values in times.items()}


def spread(times: Any) -> tuple[float, float, float]:
    """The median and the ends of the middle 80 %."""
    low, median, high = np.percentile(times, [10, 50, 90])
    return float(median), float(low), float(high)


def fitted_exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """k of y ~ x^k, by least squares over the upper half of the range, where constant costs count least."""
    half = len(xs) // 2
    return float(np.polyfit(np.log(xs[half:]), np.log(ys[half:]), 1)[0])

"""Where the time of a recorded meta-step goes on a GPU: each of its launches, in the step's order, on its data.

Events between launches that are all asked for while the GPU is still busy with something else: so it waits for nobody,
and what is between two events is one kernel and the start of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bench import ours
from bench.gpu.clock import Clock
from bench.gpu.kernels import elapsed
from bench.output import Row
from bench.worker import Worker
from bench.workloads import WORKLOADS
from tinymaml.kernels import gpu
from tinymaml.kernels.gpu.launch import Launch

BUSY, COPIES = 1 << 30, 40  # bytes, and copies of them, about 20 milliseconds: time to ask for as many
AT_ONCE = 250  # launches and events; a GPU takes a thousand before it makes its caller wait
ROUNDS = 5
SHOWN = 12  # of the longest launches


class Launches:
    """The program of a workload's meta-step."""

    def __init__(self, workload: str) -> None:
        w = WORKLOADS[workload]
        self._program, self._arguments = ours.gpu_program(w, *w.data(np.dtype(np.float32), w.tasks), 2)
        self._program.repeat(2, *self._arguments)

    def step(self) -> float:
        """Milliseconds of a step in a row of many."""
        count = ours.REPEATED
        self._program.repeat(count, *self._arguments)
        return (
            float(np.median([elapsed(lambda: self._program.repeat(count, *self._arguments)) for _ in range(5)])) / count
        )

    def launches(self) -> list[list[Any]]:
        """(name, grid, block, median of its microseconds) of each, in order."""
        launches = self._program._executable.plan.launches
        times = np.median([microseconds(launches) for _ in range(ROUNDS)], 0)
        return [[one.name, list(one.grid), one.block, float(us)] for one, us in zip(launches, times, strict=True)]


def microseconds(launches: Sequence[Launch]) -> list[float]:
    """Of each."""
    cuda, times = gpu.cupy().cuda, []
    source, target = cuda.alloc(BUSY), cuda.alloc(BUSY)
    for start in range(0, len(launches), AT_ONCE):
        some = launches[start : start + AT_ONCE]
        events = [cuda.Event() for _ in range(len(some) + 1)]
        for _ in range(COPIES):
            target.copy_from_device_async(source, BUSY)
        events[0].record()
        for launch, event in zip(some, events[1:], strict=True):
            launch.run()
            event.record()
        events[-1].synchronize()
        times += [1e3 * cuda.get_elapsed_time(a, b) for a, b in pairwise(events)]
    return times


def run(workloads: Sequence[str], clock: Clock) -> Iterator[Row]:
    """A table for each workload and precision, as far as the time goes."""
    for workload in workloads:
        for precision in ("fp32", "tf32"):
            if not clock.left():
                raise SystemExit("no time left")
            with Worker("bench.gpu.launches:Launches", (workload,), {"BENCH_PRECISION": precision}) as worker:
                step, launches = worker.ask("step", limit=clock.left()), worker.ask("launches", limit=60)
            _print(f"{workload}, {precision}", step, launches)
            yield {
                "part": "launches",
                "workload": workload,
                "precision": precision,
                "step_ms": step,
                "launches": launches,
            }


def _print(title: str, step: float, launches: Sequence[Any]) -> None:
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, _, _, us in launches:
        kinds[name].append(us)
    total = sum([us for *_, us in launches])
    print(
        f"\n{title}: {len(launches)} launches, {total / 1e3:.3f} ms one by one, {step:.3f} ms a step in a row of many"
    )
    print(f"{'kernel':60}{'launches':>9}{'ms':>9}{'share':>7}{'us each':>9}")
    for name, times in sorted(kinds.items(), key=lambda kind: -sum(kind[1])):
        print(f"{name:60}{len(times):9}{sum(times) / 1e3:9.3f}{sum(times) / total:7.0%}{np.median(times):9.1f}")
    print("the longest:")
    for name, grid, block, us in sorted(launches, key=lambda one: -one[-1])[:SHOWN]:
        print(f"{name:60}{'x'.join(map(str, grid)):>16} blocks of {block:4}{us:9.1f} us")

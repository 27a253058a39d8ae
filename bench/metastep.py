"""A meta-step of one implementation, and the drawing of its data, as objects for processes of their own."""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from bench import machine
from bench.timing import turn
from bench.workloads import WORKLOADS, Images

Step = Callable[[], Any]


class MetaStep:
    """One implementation of a workload, some of whose fields may be changed."""

    def __init__(self, workload: str, order: int, maker: str, changes: dict[str, Any]) -> None:
        self._workload, self._order = replace(WORKLOADS[workload], **changes), order
        module, name = maker.split(":")
        self._maker = getattr(importlib.import_module(module), name)

    def _made(self, dtype: str, tasks: int) -> tuple[Step, Step]:
        return self._maker(self._workload, *self._workload.data(np.dtype(dtype), tasks), self._order)

    def gradient(self, dtype: str, tasks: int, path: str) -> None:
        """Write the meta-gradient's arrays."""
        gradient, _ = self._made(dtype, tasks)
        np.savez(path, *gradient())
        del gradient
        _forget()

    @cached_property
    def _step(self) -> Step:
        return self._made("float32", self._workload.tasks)[1]

    def first(self) -> float:
        """Seconds of the first meta-step, with all that is traced and compiled for it."""
        step = self._step
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    def turn(self, warm: bool) -> float:
        """Milliseconds of one meta-step."""
        return turn(self._step, warm)

    def peak(self) -> float:
        """The most memory that this process had, MB."""
        return machine.peak()

    def device_peak(self) -> float:
        """The most of the GPU's memory that this process had for its arrays, MB, by its framework's own account."""
        if torch := sys.modules.get("torch"):
            most = torch.cuda.max_memory_allocated()
        elif jax := sys.modules.get("jax"):
            most = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        else:
            most = sys.modules["cupy"].get_default_memory_pool().total_bytes()
        return float(most) / 2**20


def _forget() -> None:
    """What the GPU's memory was used for so far counts no more, where a framework can forget it."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    elif cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()


class Drawing:
    """The drawing of a meta-batch: of sinusoids, or of episodes from as many made-up images as Omniglot or MiniImagenet
    train on."""

    def __init__(self, workload: str) -> None:
        w = WORKLOADS[workload]
        self._draw = _episodes(w) if isinstance(w, Images) else _sinusoids(w)
        self._first, self._tasks = 0, w.tasks

    def _next(self) -> None:
        self._draw(self._first)
        self._first += self._tasks

    def turn(self, warm: bool) -> float:
        return turn(self._next, warm)


def _sinusoids(w: Any) -> Callable[[int], Any]:
    from tinymaml.tasks import sinusoid

    return lambda first: sinusoid.sample(0, "train", first, w.tasks, w.support + w.query)


def _episodes(w: Images) -> Callable[[int], Any]:
    from tinymaml.tasks import episodes, imageset

    classes, each = (64, 600) if w.pooled else (1200, 20)
    images = np.random.default_rng(0).integers(0, 256, (classes * each, *w.image), np.uint8)
    names = [str(c) for c in range(classes)]
    source = imageset.ImageSet("made-up", "train", images, np.arange(classes + 1) * each, names, False)
    sizes = {"ways": w.ways, "shots": w.support // w.ways, "queries": w.query // w.ways}
    return lambda first: episodes.sample(source, 0, "train", first, w.tasks, **sizes, rotations=not w.pooled)

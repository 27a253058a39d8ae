"""Launches of CUDA kernels: what is compiled, what is called, with what.

A family has its kernels in `family.cuh`, as templates, and says in `INSTANCES` which instances of them there are, in
groups that are compiled together: `{"float": ("conv2d<float, 64>", ...), "double": ...}`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_HERE = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)

REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
WORDS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}  # by their bytes
OPTIONS = ("-std=c++17",)
PRECISIONS = ("fp32", "tf32")

_precision = PRECISIONS[0]


def precision() -> str:
    """How float32 products are computed: "fp32", or "tf32" by the matrix units, whose operands have 10 bits."""
    return _precision


def set_precision(name: str) -> None:
    """For what is planned from now on. Raises ValueError if it is not one of `PRECISIONS`."""
    global _precision
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    _precision = name


def cupy() -> Any:
    """The module CuPy. Raises ImportError, which says how to get it, if it is not installed."""
    try:
        return importlib.import_module("cupy")
    except ImportError as reason:
        raise ImportError(
            f"arrays on a GPU need CuPy ({reason}): pip install 'tinymaml[cuda13]', or [cuda12] for an older driver"
        ) from reason


class Unit(NamedTuple):
    """What is compiled at once: CUDA C++, the kernels wanted of it (template instances), the compiler's options."""

    source: str
    names: tuple[str, ...]
    options: tuple[str, ...] = OPTIONS


@cache
def source(file: str) -> str:
    """The text of a `.cuh` file with what it includes in place, each once: CuPy's cache goes by the text alone."""
    seen: set[str] = set()

    def text(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        return _INCLUDE.sub(lambda match: text(match[1]), (_HERE / name).read_text().replace("#pragma once\n", ""))

    return text(file)


@cache
def unit(family: str, group: str) -> Unit:
    """A group of a family's kernels: of its `.cuh` file, unless the family writes its source itself."""
    module = importlib.import_module(f"{__package__}.{family}")
    if hasattr(module, "unit"):
        return module.unit(group)
    return Unit(source(f"{family}.cuh"), tuple(module.INSTANCES[group]))


@cache
def _group_of(family: str, name: str) -> str:
    groups = importlib.import_module(f"{__package__}.{family}").INSTANCES
    for group, names in groups.items():
        if name in names:
            return str(group)
    raise KeyError(f"{family}.INSTANCES has no {name!r}")


@cache
def _module(cupy_: Any, wanted: Unit) -> Any:
    return cupy_.RawModule(code=wanted.source, options=wanted.options, name_expressions=wanted.names)


@cache
def _function(cupy_: Any, wanted: Unit, name: str) -> Any:
    return _module(cupy_, wanted).get_function(name)


@dataclass(eq=False, frozen=True)
class Launch:
    """A kernel with its grid (blocks), its block (threads) and its arguments: arrays on the GPU and NumPy scalars."""

    unit: Unit
    name: str
    grid: tuple[int, int, int]
    block: int
    arguments: tuple[Any, ...]

    def run(self) -> None:
        """On CuPy's current stream; nothing waits for it."""
        _function(cupy(), self.unit, self.name)(self.grid, (self.block, 1, 1), self.arguments)


def _empty(shape: Sequence[int], dtype: Any) -> Any:
    return cupy().empty(tuple(shape), dtype)


@dataclass(eq=False)
class Plan:
    """The launches of a call, in order. `empty(shape, dtype)` makes scratch memory, which only this call uses."""

    empty: Callable[[Sequence[int], Any], Any] = _empty
    launches: list[Launch] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)  # arrays that launches have the addresses of

    def launch(self, family: str, name: str, grid: Sequence[int], block: int, *arguments: Any) -> None:
        """A kernel of a family. Whole numbers are passed as int, NumPy scalars as what they are, arrays as pointers."""
        self.launch_of(unit(family, _group_of(family, name)), name, grid, block, *arguments)

    def launch_of(self, wanted: Unit, name: str, grid: Sequence[int], block: int, *arguments: Any) -> None:
        """A kernel of any unit. A grid without blocks is no launch."""
        if prod(grid):
            whole = (*grid, *[1] * (3 - len(grid)))
            passed = tuple([np.int32(x) if type(x) is int else x for x in arguments])
            self.launches.append(Launch(wanted, name, whole, block, passed))  # type: ignore[arg-type]  # has 3 now

    def upload(self, array: Any, held: Sequence[Any] = ()) -> Any:
        """A NumPy array as one on the GPU. `held` are arrays whose addresses are in it."""
        self.held += held
        return cupy().asarray(array)

    def in_order(self, x: Any) -> Any:
        """The array itself if it is in C order, otherwise a copy that is."""
        return x if x.flags.c_contiguous else self.copied(x)

    def by_task(self, x: Any) -> tuple[Any, int]:
        """(array, numbers from a task's entry to the next): entries in C order; 0 where all tasks have one entry.

        The first axis is that of the tasks. Copies only what is not laid out like this.
        """
        entry = prod(x.shape[1:])
        expected = x.dtype.itemsize
        for n, stride in zip(x.shape[:0:-1], x.strides[:0:-1], strict=True):
            if n != 1 and stride != expected:
                x = self.copied(x)
                break
            expected *= n
        if x.shape[0] == 1 or x.strides[0] == 0:
            return x, 0
        if x.strides[0] < 0 or x.strides[0] % x.dtype.itemsize:
            x = self.copied(x)
        return x, x.strides[0] // x.dtype.itemsize if entry else 0

    def copied(self, x: Any) -> Any:
        """A copy of the array, in C order."""
        from tinymaml.kernels.gpu.elementwise import copy

        y = self.empty(x.shape, x.dtype)
        copy(self, [y], [x])
        return y

    def run(self) -> None:
        """All launches, on CuPy's current stream."""
        for launch in self.launches:
            launch.run()


def blocks(count: int, each: int) -> int:
    """How many blocks of `each` cover `count`."""
    return -(-count // each)

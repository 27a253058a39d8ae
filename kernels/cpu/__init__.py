"""Kernels for the CPU, one module a family, in plain NumPy; where Numba is installed, those of `compiled/` take over.

`kernel(outs, ins, **static)` writes into the arrays `outs`; a view returns a view of its input. Set `TINYMAML_NUMBA=0`
to stay with NumPy, the reference. Read elementwise, shape, reduce, linear, conv, pool, norm and losses, whose
primitives have the same names; optim and training (for recorded training steps) · sampling (tasks drawn by counter) ·
threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from tinymaml.kernels.names import lookup

_COMPILED = f"{__name__}.compiled"


@cache
def find(family: str, name: str) -> Callable[..., Any]:
    """A kernel: the compiled one if there is one and Numba is installed, else the reference. Raises KeyError if there
    is none of this name."""
    return numba_kernel(family, name) or numpy_kernel(family, name)


@cache
def numpy_kernel(family: str, name: str) -> Callable[..., Any]:
    """A kernel in plain NumPy. Raises KeyError if there is none of this name."""
    return lookup(__name__, family, name)


@cache
def numba_kernel(family: str, name: str) -> Callable[..., Any] | None:
    """A kernel in Numba; None if it has none, or without Numba. The reference does what it builds no launch for."""
    build = launch_builder(family, name)
    if build is None:
        return None

    def kernel(outs: Any, ins: Any, **static: Any) -> None:
        launch = build(outs, ins, **static)
        if launch is None:
            numpy_kernel(family, name)(outs, ins, **static)
        else:
            launch.run()

    return kernel


@cache
def launch_builder(family: str, name: str) -> Callable[..., Any] | None:
    """What builds a launch of a kernel in Numba, `build(outs, ins, **static)`; None if there is no such kernel. It
    returns a `Launch` of `compiled/thread_pool.py`, or None for operands that only the reference takes."""
    if not numba_is_used() or importlib.util.find_spec(f"{_COMPILED}.{family}") is None:
        return None
    return getattr(importlib.import_module(f"{_COMPILED}.{family}"), name, None)


@cache
def numba_is_used() -> bool:
    """Whether Numba is installed and not switched off."""
    return os.environ.get("TINYMAML_NUMBA", "1") != "0" and importlib.util.find_spec("numba") is not None

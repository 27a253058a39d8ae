"""Kernels for the CPU, one module a family, in plain NumPy; where Numba is installed, those of `compiled/` take over.

`kernel(outs, ins, **static)` writes into the arrays `outs`; a view returns another look at its input. Set
`TINYMAML_NUMBA=0` to stay with NumPy, the reference.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any

_COMPILED = f"{__name__}.compiled"


@cache
def find(name: str) -> Callable[..., Any]:
    """The kernel `"family.name"`: the compiled one if there is one and Numba is installed, else the reference."""
    return numba_kernel(name) or numpy_kernel(name)


@cache
def numpy_kernel(name: str) -> Callable[..., Any]:
    """The kernel in plain NumPy. Raises KeyError if there is none of this name."""
    family, own = name.split(".")
    found = getattr(importlib.import_module(f"{__name__}.{family}"), own, None)
    if found is None:
        raise KeyError(f"there is no kernel {name!r}")
    return found


@cache
def numba_kernel(name: str) -> Callable[..., Any] | None:
    """The kernel in Numba; None if it has none, or without Numba. The reference does what it has no launch for."""
    launch_of = numba_launch(name)
    if launch_of is None:
        return None

    def kernel(outs: Any, ins: Any, **static: Any) -> None:
        launch = launch_of(outs, ins, **static)
        if launch is None:
            numpy_kernel(name)(outs, ins, **static)
        else:
            launch.run()

    return kernel


@cache
def numba_launch(name: str) -> Callable[..., Any] | None:
    """What makes a launch of the kernel in Numba, or None: `launch_of(outs, ins, **static)`; see `compiled/crew.py`."""
    family, own = name.split(".")
    if not numba_is_used() or importlib.util.find_spec(f"{_COMPILED}.{family}") is None:
        return None
    return getattr(importlib.import_module(f"{_COMPILED}.{family}"), own, None)


@cache
def numba_is_used() -> bool:
    """Whether Numba is installed and not switched off."""
    return os.environ.get("TINYMAML_NUMBA", "1") != "0" and importlib.util.find_spec("numba") is not None

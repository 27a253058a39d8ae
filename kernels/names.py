"""How a kernel is known: by its family, which is a module of `cpu/` and `gpu/`, and its name, a function there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class KernelName(NamedTuple):
    """The name of a kernel, the same on all devices; `KernelName("conv", "conv2d")` is written conv.conv2d."""

    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.family}.{self.name}"


def lookup(package: str, family: str, name: str) -> Callable[..., Any]:
    """The function of a kernel in a package of families. Raises KeyError if there is none of this name."""
    kernel = getattr(importlib.import_module(f"{package}.{family}"), name, None)
    if kernel is None:
        raise KeyError(f"there is no kernel {name!r} in the family {family!r}")
    return kernel

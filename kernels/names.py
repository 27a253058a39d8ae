"""How a kernel is known: by its family, which is a module of `cpu/` and `gpu/`, and its name, a function there."""

from __future__ import annotations

from typing import NamedTuple


class KernelName(NamedTuple):
    """The name of a kernel, the same on all devices; `KernelName("conv", "conv2d")` is written conv.conv2d."""

    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.family}.{self.name}"

"""The one way from a primitive to a kernel: the arrays decide where it runs.

A kernel is known by the name of its family and its own, `"elementwise.add"`, and is called as
`kernel(outs, ins, **static)`: it writes into arrays it is given. A view (`"shape.reshape"`) is called as
`view(array, **static)` and returns another look at the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.kernels import cpu

# glibc hands freed memory back to the system, to fault it in again at the next step, until it has seen one large block
# freed; from then on it keeps as much at hand. The block is never touched. It saves a quarter of an eager meta-step.
np.empty(1 << 24, np.uint8)

Launch = Callable[[Any, Sequence[Any], dict[str, Any]], tuple[Any, ...]]


def kernel(name: str) -> Launch:
    """A function that allocates the outputs and runs the kernel of this name where the inputs are."""
    run: Callable[..., None] | None = None

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        nonlocal run
        if run is None:
            run = cpu.find(name)
        outs = tuple([np.empty(shape, dtype) for shape, dtype in specs])
        run(outs, ins, **static)
        return outs

    return launch


def view(name: str) -> Launch:
    """As `kernel`, for a view."""

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        return (cpu.find(name)(*ins, **static),)

    return launch

"""The one way from a primitive to a kernel: the arrays decide where it runs.

A kernel is known by its family and its name, `"elementwise", "add"`, and is called as `kernel(outs, ins, **static)`: it
writes into arrays it is given. A view (`"shape", "reshape"`) is called as `view(array, **static)` and returns a view of
the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml.autodiff import tracing
from tinymaml.kernels import cpu
from tinymaml.kernels.names import KernelName

# glibc hands freed memory back to the system, to fault it in again at the next step, until it has seen one large block
# freed; from then on it keeps as much at hand. The block is never touched. It saves a quarter of an eager meta-step.
np.empty(1 << 24, np.uint8)

Launch = Callable[[Any, Sequence[Any], dict[str, Any]], tuple[Any, ...]]


def kernel(family: str, name: str) -> Launch:
    """A function that allocates the outputs and runs a kernel where the inputs are."""
    full = KernelName(family, name)
    run: Callable[..., None] | None = None

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        nonlocal run
        recorded = tracing.current()
        if recorded is not None:
            return recorded.launch(full, specs, ins, static)
        for x in ins:
            if not isinstance(x, np.ndarray):
                return _launch_on_gpu(full, specs, ins, static)
        if run is None:
            run = cpu.find(family, name)
        outs = tuple([np.empty(shape, dtype) for shape, dtype in specs])
        run(outs, ins, **static)
        return outs

    return launch


def _launch_on_gpu(kernel: KernelName, specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
    tracing.check_values(ins)
    from tinymaml.kernels import gpu

    outs = tuple([gpu.cupy().empty(shape, dtype) for shape, dtype in specs])
    gpu.run(kernel, outs, [x if on_gpu(x) else gpu.operand(kernel, x) for x in ins], static)
    return outs


def view(family: str, name: str) -> Launch:
    """As `kernel`, for a view."""
    run: Callable[..., Any] | None = None

    def view_of(array: Any, static: dict[str, Any]) -> Any:
        nonlocal run
        if isinstance(array, np.ndarray):
            if run is None:
                run = cpu.find(family, name)
            return run(array, **static)
        tracing.check_values([array])
        from tinymaml.kernels import gpu

        return gpu.planner(family, name)(array, **static)

    def launch(specs: Any, ins: Sequence[Any], static: dict[str, Any]) -> tuple[Any, ...]:
        recorded = tracing.current()
        if recorded is not None:
            return (recorded.view(lambda x: view_of(x, static), *ins),)
        return (view_of(ins[0], static),)

    return launch


def on_gpu(array: Any) -> bool:
    """Whether an array is on a GPU."""
    return not isinstance(array, np.ndarray | np.generic | tracing.Traced)


def number(value: float, like: Any) -> Any:
    """A number as an array without axes, of the dtype of an array, and where it is."""
    if not on_gpu(like):
        return np.asarray(value, like.dtype)
    from tinymaml.kernels import gpu

    return gpu.number(value, like.dtype)


def zeros(shape: Sequence[int], like: Any) -> Any:
    """Zeros of the dtype of an array, and where it is."""
    return alike(np.zeros(shape, like.dtype), like)


def alike(array: Any, like: Any) -> Any:
    """A NumPy array where another array is."""
    if not on_gpu(like):
        return array
    from tinymaml.kernels import gpu

    return gpu.cupy().asarray(array)

"""Losses and gradients must be finite: the error that says which is not, and for which tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tinymaml.autodiff.tensor import Array, Tensor
from tinymaml.autodiff.tracing import when_known


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or not a number; the message says which. `tasks` has the indices concerned."""

    def __init__(self, message: str, tasks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.tasks = list(tasks)


def check_finite(name: str, x: Tensor, per_task: bool = True, path: Callable[[], str] = lambda: "") -> None:
    """Raise NonFiniteError, which names the tasks where x has one number or row for each, unless all of x is finite."""
    when_known(x.data, lambda data: _check_finite(name, data, per_task, path))


def _check_finite(name: str, data: Array, per_task: bool, path: Callable[[], str]) -> None:
    # A sum is finite only if all its terms are (or it overflowed, which then is looked at again).
    with np.errstate(invalid="ignore", over="ignore"):
        if math.isfinite(data.sum()):
            return
    finite = np.isfinite(data)
    if not finite.all():
        tasks = np.flatnonzero(~finite.reshape(len(finite), -1).all(1)).tolist() if per_task else []
        which = f" (tasks {', '.join(map(str, tasks[:5]))}{', ...' * (len(tasks) > 5)})" if tasks else ""
        hint = "look for a NaN in the data or in params, or take a smaller alpha or learning rate"
        what = " ".join(part for part in (name, path()) if part)
        raise NonFiniteError(f"{what} is not finite{which}: {hint}", tasks)

"""Gradients and Hessian-vector products in tinymaml, eager and recorded, of one task's loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tinymaml as tm
from bench.ours import loss_of
from bench.workloads import Workload
from tinymaml import tree
from tinymaml.device import keep_memory
from tinymaml.transforms import MODES

Functions = dict[str, Callable[[], list[Any]]]


def eager(w: Workload, params: Any, batch: Any, v: Any) -> Functions:
    """By name; each gives its result's leaves."""
    keep_memory()
    return {name: partial(_leaves, function, params, batch, v) for name, function in _functions(w).items()}


def recorded(w: Workload, params: Any, batch: Any, v: Any) -> Functions:
    """As `eager`, recorded at the first call."""
    keep_memory()

    def replayed(function: Callable[..., Any]) -> Callable[[], list[Any]]:
        program = cache(lambda: tm.record(function, params, batch, v))
        return lambda: _leaves(program(), params, batch, v)

    # A finite difference takes norms of what it is given, to choose its step: it cannot be recorded.
    return {name: replayed(function) for name, function in _functions(w).items() if name != "finite-difference"}


def _leaves(function: Callable[..., Any], params: Any, batch: Any, v: Any) -> list[Any]:
    return tree.leaves(function(params, batch, v))


def _functions(w: Workload) -> dict[str, Callable[[Any, Any, Any], Any]]:
    task_losses = loss_of(w)

    def loss(params: Any, batch: Any) -> Any:
        return tm.sum(task_losses(params, batch))

    def product(mode: str, params: Any, batch: Any, v: Any) -> Any:
        return tm.hvp(loss, params, v, batch, mode=mode)

    def both(params: Any, batch: Any, v: Any) -> Any:
        _, gradient, times = tm.grad_and_hvp(loss, params, batch)
        return [gradient, times(v)]

    return {
        "gradient": lambda params, batch, v: tm.grad(loss)(params, batch),
        **{mode: partial(product, mode) for mode in MODES},
        "gradient and product": both,
    }

"""Training on a GPU: many iterations at a time, of which the host sees the beginning and the end.

An iteration is one call of a recorded program, which also draws its meta-batch, takes the optimiser's step and writes
its figures into a table on the GPU, a row for each iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml import record
from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.tensor import Tensor, constant
from tinymaml.autodiff.tree import Tree
from tinymaml.device import to_device, to_host
from tinymaml.meta.maml import NonFiniteError
from tinymaml.optim import Optimiser
from tinymaml.train.loop import Figures, Step

_write_figures, _share_of_correct = kernel("training.write_figures"), kernel("training.share_of_correct")


def device_loop(
    draw: Callable[..., tuple[Sequence[Tree], Tensor]],
    gradient: Callable[..., tuple[dict[str, Tensor], Tree]],
    optimiser: Optimiser,
    figures: Sequence[str],
    longest: int,
    dtype: str,
    data: Tree = (),
) -> Step:
    """A step of up to `longest` iterations on the GPU, a pure function of the state, which comes from the host and goes
    back.

    Args:
        draw: draw(place, *data) -> (batches, the next place), see `tinymaml.train.sampling`.
        gradient: gradient(params, *batches) -> (figures, gradient).
        figures: their names; each is an array of `dtype`, of which the mean counts. None may cease to be finite.
        data: arrays that tasks are drawn from; they are moved to the GPU once.
    """
    data = to_device(data, "gpu")
    program: Any = None

    def iterate(carried: Tree, data: Tree) -> tuple[Tree, Tree]:
        batches, place = draw(carried["place"], *data)
        values, grads = gradient(carried["params"], *batches)
        params, optimiser_state = optimiser.update(grads, carried["optimiser"], carried["params"])
        table, row = carried["figures"], carried["row"]
        specs = [(x.shape, x.dtype) for x in (table, row)]
        table, row = map(constant, _write_figures(specs, [x.data for x in (table, row, *map(values.get, figures))], {}))
        return {"params": params, "optimiser": optimiser_state, "place": place, "row": row, "figures": table}, ()

    def step(state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        nonlocal program
        stream = state["stream"]
        carried = {
            "params": state["params"],
            "optimiser": state["optimiser"],
            "place": np.array([stream["seed"], stream["next_task"]], np.uint64),
            "row": np.zeros(1, np.int64),
            "figures": np.zeros((longest, len(figures)), dtype),
        }
        arguments = (to_device(carried, "gpu"), data)
        if program is None:
            program = record(iterate, *arguments)
        after = to_host(program.repeat(count, *arguments)[0])
        table = after["figures"][:count]
        if not np.isfinite(table).all():
            raise NonFiniteError(f"the {figures[int(np.argwhere(~np.isfinite(table))[0, 1])]} is not finite")
        state = {
            "params": after["params"],
            "optimiser": after["optimiser"],
            "stream": {**stream, "next_task": int(after["place"][1])},
        }
        return state, [dict(zip(figures, map(float, row), strict=True)) for row in table]

    return step


def share_of_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of each task's examples whose largest logit is their label's, [T]; see `training.share_of_correct`."""
    (share,) = _share_of_correct([(logits.shape[:1], logits.dtype)], [logits.data, labels.data], {})
    return constant(share)
